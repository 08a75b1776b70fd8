package bench

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

const (
	// fillers is the number of instances made concurrently.
	fillers = 12
	// batch is the number of instances whose items one BatchWriteItem writes: a record and four claims each, at most 25 items.
	// https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
	batch = 5
)

// fill adds instances up to n, as provision leaves them and as if each had logged in once. It keeps existing ones.
func (b *world) fill(ctx context.Context, n int) error {
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(fillers)
	for from := b.filled; from < n; from += batch {
		group.Go(func() error { return b.fillBatch(groupCtx, from, min(from+batch, n)) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("filling Vault and the ledger: %w", err)
	}
	b.filled = n
	return nil
}

func (b *world) fillBatch(ctx context.Context, from, to int) error {
	var writes []types.WriteRequest
	for n := from; n < to; n++ {
		f, g, err := render(b.profiles, n)
		if err != nil {
			return err
		}
		for i, o := range g.All() {
			if want := pathsOf(n)[i]; o.Path != want {
				return fmt.Errorf("object %d of the profile is at %s, but the raw reads go to %s", i+1, o.Path, want)
			}
			if _, err := b.root.call(ctx, http.MethodPost, o.Path, o.Fields); err != nil {
				return err
			}
		}
		// A login makes an entity with this alias. It also makes an access list entry, which only a login can write.
		if _, err := b.root.call(ctx, http.MethodPost, "identity/entity-alias", map[string]any{
			"name": f.ID, "mount_accessor": b.accessor,
		}); err != nil {
			return err
		}
		items, err := items(f, g)
		if err != nil {
			return err
		}
		writes = append(writes, items...)
	}
	out, err := b.dynamo.BatchWriteItem(ctx, &dynamodb.BatchWriteItemInput{RequestItems: map[string][]types.WriteRequest{table: writes}})
	if err != nil {
		return fmt.Errorf("writing records and claims: %w", err)
	}
	if left := len(out.UnprocessedItems[table]); left > 0 {
		return fmt.Errorf("writing records and claims: DynamoDB Local left %d items unprocessed", left)
	}
	return nil
}

// items returns the record and the claims of one instance, as the ledger writes them. If they differed from the ledger's,
// the comparison would find drift and the bench would fail.
func items(f facts.Instance, g *grant.Grant) ([]types.WriteRequest, error) {
	long := time.Now().Add(-24 * time.Hour).UTC()
	r := ledger.Record{
		InstanceID: f.ID, State: ledger.Active, Account: f.Account, Region: f.Region,
		Profile: g.Profile.Name, ProfileDigest: g.Profile.Digest, BasePath: g.Profile.BasePath, FQDN: g.FQDN,
		Addresses: f.Addresses(), EventTime: long, CreatedAt: long, UpdatedAt: long,
		Version: 2, Program: version.Version(), WriteID: "00000000000000000000000000000000",
	}
	for _, o := range g.All() {
		r.Objects = append(r.Objects, ledger.Object{Kind: o.Kind, Path: o.Path, SHA256: o.SHA256()})
	}
	// As long as a role_id of Vault's.
	r.SetRoleID(g.AuthRole.Path, "00000000-0000-0000-0000-000000000000")
	r.Claims, r.CertificateTTL = ledger.NamesOf(g), int64(g.CertificateTTL/time.Second)
	r.LoginType, r.TokenMaxTTL = g.Profile.Auth.Type, int64(g.Profile.Auth.TokenMaxTTL/time.Second)
	type keyed struct {
		key  string
		item any
	}
	all := []keyed{{ledger.RecordKey(f.ID), r}}
	for _, name := range r.Claims {
		all = append(all, keyed{ledger.ClaimKey(name), ledger.Claim{InstanceID: f.ID, Account: f.Account, Region: f.Region}})
	}
	var out []types.WriteRequest
	for _, i := range all {
		item, err := attributevalue.MarshalMap(i.item)
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", i.key, err)
		}
		item["pk"] = &types.AttributeValueMemberS{Value: i.key}
		out = append(out, types.WriteRequest{PutRequest: &types.PutRequest{Item: item}})
	}
	return out, nil
}
