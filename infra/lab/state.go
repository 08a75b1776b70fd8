package lab

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const stateLimit = 20 * time.Second

// Page returns the text of a page of docs.
func (w *World) Page(name string) (string, error) {
	text, err := os.ReadFile(filepath.Join(w.workspace.RepoRoot, "docs", name))
	if err != nil {
		return "", fmt.Errorf("reading the page: %w", err)
	}
	return string(text), nil
}

// ObjectsOf returns every path in Vault with an instance's ID, sorted: policies, auth role, accesslist entry, the objects
// at the profiles' output paths, and identity entities. It lists with the root token and does not read the ledger.
func (w *World) ObjectsOf(ctx context.Context, instanceID string) ([]string, error) {
	all, err := w.Objects(ctx)
	return all[instanceID], err
}

var instanceID = regexp.MustCompile(`i-(?:[0-9a-f]{17}|[0-9a-f]{8})`)

// Objects returns ObjectsOf for every instance with at least one object.
func (w *World) Objects(ctx context.Context) (map[string][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, stateLimit)
	defer cancel()
	profiles, err := grant.Load(os.DirFS(w.Profiles))
	if err != nil {
		return nil, err
	}
	folders := append(profiles.OutputFolders(), grant.PolicyFolder, grant.AuthRoleFolder(w.AuthMount), grant.AccessListFolder(w.AuthMount))
	slices.Sort(folders)
	found := map[string][]string{}
	for _, folder := range folders {
		list, err := w.Vault.Logical().ListWithContext(ctx, folder)
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", folder, err)
		}
		if list == nil {
			continue
		}
		keys, _ := list.Data["keys"].([]any)
		for _, k := range keys {
			name := fmt.Sprint(k)
			if id := instanceID.FindString(name); id != "" {
				found[id] = append(found[id], folder+"/"+name)
			}
		}
	}
	return found, w.addEntities(ctx, found)
}

func (w *World) addEntities(ctx context.Context, found map[string][]string) error {
	list, err := w.Vault.Logical().ListWithContext(ctx, "identity/entity-alias/id")
	if err != nil || list == nil {
		return err
	}
	info, _ := list.Data["key_info"].(map[string]any)
	for _, id := range slices.Sorted(maps.Keys(info)) {
		fields, _ := info[id].(map[string]any)
		if name := fmt.Sprint(fields["name"]); instanceID.MatchString(name) {
			found[name] = append(found[name], "identity/entity-alias/id/"+id)
		}
	}
	return nil
}

// Record reads an instance's record from the table.
func (w *World) Record(ctx context.Context, instanceID string) (ledger.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, stateLimit)
	defer cancel()
	out, err := w.Dynamo.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: aws.String(w.Stack.Tables["Table"]), ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: ledger.RecordKey(instanceID)}},
	})
	var r ledger.Record
	if err == nil {
		err = attributevalue.UnmarshalMap(out.Item, &r)
	}
	if err != nil {
		return r, fmt.Errorf("reading the record of %s: %w", instanceID, err)
	}
	return r, nil
}

// ItemsOf returns the keys, sorted, of every item in the table that names an instance.
func (w *World) ItemsOf(ctx context.Context, instanceID string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, stateLimit)
	defer cancel()
	var keys []string
	pages := dynamodb.NewScanPaginator(w.Dynamo, &dynamodb.ScanInput{TableName: aws.String(w.Stack.Tables["Table"]), ConsistentRead: aws.Bool(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("scanning the table: %w", err)
		}
		for _, item := range page.Items {
			if id, _ := item["instance_id"].(*types.AttributeValueMemberS); id != nil && id.Value == instanceID {
				key, _ := item["pk"].(*types.AttributeValueMemberS)
				keys = append(keys, key.Value)
			}
		}
	}
	slices.Sort(keys)
	return keys, nil
}
