package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/awsclient"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
)

const (
	table    = "bench"
	pkiMount = "alice_cluster/pki/k8s"
	// tokenTTL outlasts the longest run.
	tokenTTL = "6h"
)

// place holds the addresses that a measured process calls, and its token.
type place struct {
	VaultAddr, VaultCA string
	// Token has the rights of the reconcile function and no others.
	Token     string
	DynamoURL string
}

// world is the running servers and their content.
type world struct {
	place
	profiles *grant.Set
	root     *vaultHTTP
	accessor string // of the auth mount
	dynamo   *dynamodb.Client
	filled   int // instances
	vault    *parts.Process
	dynamoDB *parts.Process
	stops    []func() error
}

func startWorld(ctx context.Context, w *parts.Workspace) (*world, error) {
	b := &world{}
	var vault *vaultserver.Server
	var dynamo *parts.DynamoDBLocal
	var group errgroup.Group
	group.Go(func() (err error) {
		vault, err = vaultserver.Start(ctx, w)
		return err
	})
	group.Go(func() (err error) {
		dynamo, err = parts.StartDynamoDBLocal(ctx, w)
		return err
	})
	err := group.Wait()
	if vault != nil {
		b.stops = append(b.stops, vault.Process.Stop)
	}
	if dynamo != nil {
		b.stops = append(b.stops, dynamo.Process.Stop)
	}
	if err == nil {
		b.place = place{VaultAddr: vault.Address, VaultCA: vault.CAPEM, DynamoURL: dynamo.URL}
		b.vault, b.dynamoDB, b.dynamo = vault.Process, dynamo.Process, awsclient.DynamoDB(dynamo.URL, region)
		err = b.prepare(ctx, vault.RootToken)
	}
	if err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *world) close() error {
	var errs []error
	for _, stop := range b.stops {
		errs = append(errs, stop())
	}
	return errors.Join(errs...)
}

// prepare mounts the engines that the profile needs and makes the token and the table.
func (b *world) prepare(ctx context.Context, rootToken string) (err error) {
	if b.profiles, err = loadProfiles(); err != nil {
		return err
	}
	root := b.place
	root.Token = rootToken
	if b.root, err = newVaultHTTP(root, client{Protocol: http1, AtOnce: fillers}); err != nil {
		return err
	}
	functions := rights.ByFunction(rights.Scope{Profiles: b.profiles, AuthMount: authMount})
	for _, step := range []struct {
		method, path string
		fields       map[string]any
	}{
		// The audit log would be most of the measured work, raw or ours, and would fill the disk.
		{http.MethodDelete, "sys/audit/file", nil},
		{http.MethodPost, "sys/auth/" + authMount, map[string]any{"type": "aws"}},
		{http.MethodPost, grant.AuthConfigPath(authMount, "identity"), map[string]any{"ec2_alias": "instance_id"}},
		{http.MethodPost, "sys/mounts/" + pkiMount, map[string]any{"type": "pki"}},
		{http.MethodPost, grant.PolicyPath(rights.Reconcile), map[string]any{"policy": rights.Policy(functions[rights.Reconcile])}},
	} {
		if _, err := b.root.call(ctx, step.method, step.path, step.fields); err != nil {
			return err
		}
	}
	if err := b.makeToken(ctx); err != nil {
		return err
	}
	var mount struct {
		Data struct{ Accessor string }
	}
	if err := b.root.get(ctx, "sys/auth/"+authMount, &mount); err != nil {
		return err
	}
	b.accessor = mount.Data.Accessor
	return b.makeTable(ctx)
}

// makeToken makes a token of the type and policy that the reconcile function's login returns.
func (b *world) makeToken(ctx context.Context) error {
	text, err := b.root.call(ctx, http.MethodPost, "auth/token/create", map[string]any{
		"policies": []string{rights.Reconcile}, "no_default_policy": true, "type": "batch", "ttl": tokenTTL,
	})
	if err != nil {
		return err
	}
	var made struct {
		Auth struct {
			Token string `json:"client_token"`
		}
	}
	if err := json.Unmarshal(text, &made); err != nil || made.Auth.Token == "" {
		return fmt.Errorf("making the token of the measured processes: Vault returned none (%w)", err)
	}
	b.Token = made.Auth.Token
	return nil
}

func (b *world) makeTable(ctx context.Context) error {
	name := aws.String(table)
	if _, err := b.dynamo.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName: name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
	}); err != nil {
		return fmt.Errorf("creating the table %s: %w", table, err)
	}
	waiter := dynamodb.NewTableExistsWaiter(b.dynamo, func(o *dynamodb.TableExistsWaiterOptions) {
		o.MinDelay, o.MaxDelay = 20*time.Millisecond, 200*time.Millisecond
	})
	if err := waiter.Wait(ctx, &dynamodb.DescribeTableInput{TableName: name}, 20*time.Second); err != nil {
		return fmt.Errorf("waiting for the table %s: %w", table, err)
	}
	return nil
}
