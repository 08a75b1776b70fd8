package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// ErrUnsupported says that the endpoint does not know the call: DynamoDB Local knows none about backups.
var ErrUnsupported = errors.New("this endpoint does not know the call")

const (
	// Keys are the key attributes that the table must have, in the form of Shape.Keys.
	Keys = keyAttribute + " (S)"
	// ExpiresAt is the attribute by which the table must expire items.
	ExpiresAt = "expires_at"
)

// TableAPI is the part of DynamoDB that Table uses, as functions for the reason in docs/decisions/binary-size.md.
type TableAPI struct {
	Describe func(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error)
	Backups  func(context.Context, *dynamodb.DescribeContinuousBackupsInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeContinuousBackupsOutput, error)
	Expiry   func(context.Context, *dynamodb.DescribeTimeToLiveInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTimeToLiveOutput, error)
}

// NewTableAPI returns the API of a client.
func NewTableAPI(c *dynamodb.Client) TableAPI {
	return TableAPI{Describe: c.DescribeTable, Backups: c.DescribeContinuousBackups, Expiry: c.DescribeTimeToLive}
}

// Table reads the settings of the ledger's table, and no items. It is safe for concurrent use.
type Table struct {
	api  TableAPI
	name string
}

// NewTable returns the Table with a name.
func NewTable(api TableAPI, name string) *Table { return &Table{api: api, name: name} }

// Shape is the status and the keys of a table.
type Shape struct {
	// Status is DynamoDB's, such as ACTIVE.
	Status string
	// Keys are the key attributes with their types, such as "pk (S)".
	Keys string
}

// Shape returns the table's status and keys.
func (t *Table) Shape(ctx context.Context) (Shape, error) {
	out, err := t.api.Describe(ctx, &dynamodb.DescribeTableInput{TableName: &t.name})
	if err != nil {
		return Shape{}, t.failed("describing", err)
	}
	if out.Table == nil {
		return Shape{}, t.failed("describing", errors.New("DynamoDB answered without a table"))
	}
	var keys []string
	for _, k := range out.Table.KeySchema {
		name := aws.ToString(k.AttributeName)
		i := slices.IndexFunc(out.Table.AttributeDefinitions, func(d types.AttributeDefinition) bool { return aws.ToString(d.AttributeName) == name })
		if i >= 0 {
			name += " (" + string(out.Table.AttributeDefinitions[i].AttributeType) + ")"
		}
		keys = append(keys, name)
	}
	return Shape{Status: string(out.Table.TableStatus), Keys: strings.Join(keys, ", ")}, nil
}

// Recovery reports whether the table can be restored to a point in time.
func (t *Table) Recovery(ctx context.Context) (bool, error) {
	out, err := t.api.Backups(ctx, &dynamodb.DescribeContinuousBackupsInput{TableName: &t.name})
	if err != nil {
		return false, t.failed("reading the backup settings of", err)
	}
	d := out.ContinuousBackupsDescription
	return d != nil && d.PointInTimeRecoveryDescription != nil &&
		d.PointInTimeRecoveryDescription.PointInTimeRecoveryStatus == types.PointInTimeRecoveryStatusEnabled, nil
}

// Expiry returns the attribute by which the table expires items, or an empty string if it expires none.
func (t *Table) Expiry(ctx context.Context) (string, error) {
	out, err := t.api.Expiry(ctx, &dynamodb.DescribeTimeToLiveInput{TableName: &t.name})
	if err != nil {
		return "", t.failed("reading the expiry settings of", err)
	}
	d := out.TimeToLiveDescription
	isOn := d != nil && (d.TimeToLiveStatus == types.TimeToLiveStatusEnabled || d.TimeToLiveStatus == types.TimeToLiveStatusEnabling)
	if !isOn {
		return "", nil
	}
	return aws.ToString(d.AttributeName), nil
}

func (t *Table) failed(doing string, err error) error {
	var code interface{ ErrorCode() string }
	if errors.As(err, &code) && code.ErrorCode() == "UnknownOperationException" {
		err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return fmt.Errorf("%s table %s: %w", doing, t.name, err)
}
