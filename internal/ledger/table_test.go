package ledger_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// described has DynamoDB's answers about a table.
type described struct {
	table   types.TableDescription
	backups types.ContinuousBackupsDescription
	expiry  types.TimeToLiveDescription
	err     error
}

// asDeployed returns the answers about a table as template.yaml makes it.
func asDeployed() *described {
	return &described{
		table: types.TableDescription{
			TableStatus:          types.TableStatusActive,
			KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
			AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		},
		backups: types.ContinuousBackupsDescription{PointInTimeRecoveryDescription: &types.PointInTimeRecoveryDescription{
			PointInTimeRecoveryStatus: types.PointInTimeRecoveryStatusEnabled,
		}},
		expiry: types.TimeToLiveDescription{TimeToLiveStatus: types.TimeToLiveStatusEnabled, AttributeName: aws.String("expires_at")},
	}
}

func (d *described) open() *ledger.Table {
	return ledger.NewTable(ledger.TableAPI{
		Describe: func(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error) {
			return &dynamodb.DescribeTableOutput{Table: &d.table}, d.err
		},
		Backups: func(context.Context, *dynamodb.DescribeContinuousBackupsInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeContinuousBackupsOutput, error) {
			return &dynamodb.DescribeContinuousBackupsOutput{ContinuousBackupsDescription: &d.backups}, d.err
		},
		Expiry: func(context.Context, *dynamodb.DescribeTimeToLiveInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error) {
			return &dynamodb.DescribeTimeToLiveOutput{TimeToLiveDescription: &d.expiry}, d.err
		},
	}, "the-ledger")
}

func TestTable_ReportsItsSettings(t *testing.T) {
	for name, row := range map[string]struct {
		change               func(*described)
		status, keys, expiry string
		recovery             bool
	}{
		"as deployed":                 {func(*described) {}, "ACTIVE", ledger.Keys, ledger.ExpiresAt, true},
		"being created":               {func(d *described) { d.table.TableStatus = types.TableStatusCreating }, "CREATING", ledger.Keys, ledger.ExpiresAt, true},
		"a second key":                {func(d *described) { addKey(d, "sort") }, "ACTIVE", "pk (S), sort (N)", ledger.ExpiresAt, true},
		"no backups":                  {func(d *described) { d.backups.PointInTimeRecoveryDescription = nil }, "ACTIVE", ledger.Keys, ledger.ExpiresAt, false},
		"backups off":                 {turnOffBackups, "ACTIVE", ledger.Keys, ledger.ExpiresAt, false},
		"expiry off":                  {func(d *described) { d.expiry.TimeToLiveStatus = types.TimeToLiveStatusDisabled }, "ACTIVE", ledger.Keys, "", true},
		"expiry starting":             {func(d *described) { d.expiry.TimeToLiveStatus = types.TimeToLiveStatusEnabling }, "ACTIVE", ledger.Keys, ledger.ExpiresAt, true},
		"expiry by another attribute": {func(d *described) { d.expiry.AttributeName = aws.String("ttl") }, "ACTIVE", ledger.Keys, "ttl", true},
	} {
		t.Run(name, func(t *testing.T) {
			d := asDeployed()
			row.change(d)
			table := d.open()
			if s, err := table.Shape(t.Context()); err != nil || s.Status != row.status || s.Keys != row.keys {
				t.Errorf("got %+v, %v, want %s with the keys %s", s, err, row.status, row.keys)
			}
			if on, err := table.Recovery(t.Context()); err != nil || on != row.recovery {
				t.Errorf("recovery: got %v, %v, want %v", on, err, row.recovery)
			}
			if by, err := table.Expiry(t.Context()); err != nil || by != row.expiry {
				t.Errorf("expiry: got %q, %v, want %q", by, err, row.expiry)
			}
		})
	}
}

func addKey(d *described, name string) {
	d.table.KeySchema = append(d.table.KeySchema, types.KeySchemaElement{AttributeName: &name, KeyType: types.KeyTypeRange})
	d.table.AttributeDefinitions = append(d.table.AttributeDefinitions, types.AttributeDefinition{AttributeName: &name, AttributeType: types.ScalarAttributeTypeN})
}

func turnOffBackups(d *described) {
	d.backups.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus = types.PointInTimeRecoveryStatusDisabled
}

func TestTable_SeparatesUnsupportedFromDenied(t *testing.T) {
	d := asDeployed()
	for code, unsupported := range map[string]bool{"UnknownOperationException": true, "AccessDeniedException": false} {
		d.err = coded(code)
		_, err := d.open().Recovery(t.Context())
		if errors.Is(err, ledger.ErrUnsupported) != unsupported || err == nil || !strings.Contains(err.Error(), "the-ledger") || !strings.Contains(err.Error(), code) {
			t.Errorf("%s: want ErrUnsupported: %v, and an error that names table and code, got %v", code, unsupported, err)
		}
	}
}

// coded is an error of the SDK with a code.
type coded string

func (c coded) Error() string     { return "api error " + string(c) }
func (c coded) ErrorCode() string { return string(c) }
