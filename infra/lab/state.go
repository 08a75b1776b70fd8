package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

const stateLimit = 20 * time.Second

// ObjectsOf lists every path in Vault that bears an instance's ID, sorted: policies, auth role, accesslist entry,
// what stands at the profiles' output paths, and identity entities. It looks with the root token and by listing, not
// by what the ledger says.
func (w *World) ObjectsOf(ctx context.Context, instanceID string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, stateLimit)
	defer cancel()
	profiles, err := grant.Load(templates.FS)
	if err != nil {
		return nil, err
	}
	folders := []string{"sys/policies/acl", "auth/" + w.AuthMount + "/role", "auth/" + w.AuthMount + "/identity-accesslist"}
	for _, p := range profiles.Profiles {
		for _, o := range p.Outputs {
			if o.Type != grant.KindPolicy {
				folders = append(folders, p.BasePath+"/"+o.Path)
			}
		}
	}
	slices.Sort(folders)
	var found []string
	for _, folder := range slices.Compact(folders) {
		list, err := w.Vault.Logical().ListWithContext(ctx, folder)
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", folder, err)
		}
		if list == nil {
			continue
		}
		keys, _ := list.Data["keys"].([]any)
		for _, k := range keys {
			if name := fmt.Sprint(k); strings.Contains(name, instanceID) {
				found = append(found, folder+"/"+name)
			}
		}
	}
	entities, err := w.entitiesOf(ctx, instanceID)
	return append(found, entities...), err
}

func (w *World) entitiesOf(ctx context.Context, instanceID string) ([]string, error) {
	list, err := w.Vault.Logical().ListWithContext(ctx, "identity/entity-alias/id")
	if err != nil || list == nil {
		return nil, err
	}
	info, _ := list.Data["key_info"].(map[string]any)
	var found []string
	for id, i := range info {
		if fields, _ := i.(map[string]any); fields["name"] == instanceID {
			found = append(found, "identity/entity-alias/id/"+id)
		}
	}
	slices.Sort(found)
	return found, nil
}

// Record reads an instance's record from the table.
func (w *World) Record(ctx context.Context, instanceID string) (ledger.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, stateLimit)
	defer cancel()
	out, err := w.Dynamo.GetItem(ctx, &dynamodb.GetItemInput{
		TableName: aws.String(w.Stack.Tables["Table"]), ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: "instance#" + instanceID}},
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

// ItemsOf gives the keys, sorted, of every item in the table that names an instance.
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
