// Package ledger keeps in a DynamoDB table which objects were made for each instance, and which instance holds each name.
// A record names every path before the object is made in Vault, so that a later run finds whatever a crash leaves behind.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/singleflight"
)

// Errors of a write that lost against another run or instance. Every other error of the ledger is an outage, of kind
// fault.Retry.
var (
	// ErrChanged: another run wrote the record since it was read, or holds its lease. It is of kind fault.Retry.
	ErrChanged = errors.New("another run changed the record, or holds its lease")
	// ErrClaimed: another instance holds a name. The error is a *ClaimedError.
	ErrClaimed = errors.New("the name is held by another instance")
)

// ClaimedError is an ErrClaimed that names the first claim held by another instance.
type ClaimedError struct{ Name Name }

func (e *ClaimedError) Error() string { return fmt.Sprintf("claiming %s: %v", e.Name, ErrClaimed) }

// Unwrap returns ErrClaimed.
func (e *ClaimedError) Unwrap() error { return ErrClaimed }

// callTimeout bounds a call to DynamoDB that reads or writes single items.
const callTimeout = 5 * time.Second

// API is the part of DynamoDB that the ledger uses, as functions for the reason in docs/decisions/binary-size.md.
type API struct {
	BatchGet func(context.Context, *dynamodb.BatchGetItemInput, ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error)
	Get      func(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	Put      func(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	Transact func(context.Context, *dynamodb.TransactWriteItemsInput, ...func(*dynamodb.Options)) (*dynamodb.TransactWriteItemsOutput, error)
	Scan     func(context.Context, *dynamodb.ScanInput, ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error)
}

// NewAPI returns the API of a client.
func NewAPI(c *dynamodb.Client) API {
	return API{BatchGet: c.BatchGetItem, Get: c.GetItem, Put: c.PutItem, Transact: c.TransactWriteItems, Scan: c.Scan}
}

// Ledger reads and writes the table. It is safe for concurrent use.
type Ledger struct {
	api   API
	table string
	now   func() time.Time

	teardownReads singleflight.Group
	mu            sync.Mutex
	openAt        time.Time // when the table was last read and had no teardown item
}

// New returns a Ledger on a table. now is time.Now outside tests.
func New(api API, table string, now func() time.Time) *Ledger {
	return &Ledger{api: api, table: table, now: func() time.Time { return now().Round(0).UTC() }}
}

// Get returns the record of an instance by a consistent read, or nil if there is none.
func (l *Ledger) Get(ctx context.Context, instanceID string) (*Record, error) {
	var r Record
	found, err := l.get(ctx, RecordKey(instanceID), &r)
	if err != nil || !found {
		return nil, err
	}
	return &r, nil
}

// maxBatch is the largest number of items that DynamoDB reads in one call.
// https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html
const maxBatch = 100

// GetSome returns the records of instances by consistent reads of many items each; nil for an instance that has none. An instance
// that is missing in the answer is unknown: DynamoDB did not process its key, or its item is not one of this program's. Get reads it
// alone. With an error the answer has the records read before.
func (l *Ledger) GetSome(ctx context.Context, instanceIDs []string) (map[string]*Record, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	known := map[string]*Record{}
	for ids := range slices.Chunk(instanceIDs, maxBatch) {
		keys := make([]map[string]types.AttributeValue, len(ids))
		for i, id := range ids {
			keys[i] = keyOf(RecordKey(id))
		}
		out, err := l.api.BatchGet(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
			l.table: {Keys: keys, ConsistentRead: aws.Bool(true)},
		}})
		if err != nil {
			return known, fmt.Errorf("reading the records of %d instances from table %s: %w", len(ids), l.table, err)
		}
		for _, id := range ids {
			known[id] = nil
		}
		for _, key := range out.UnprocessedKeys[l.table].Keys {
			delete(known, idOf(key))
		}
		for _, fields := range out.Responses[l.table] {
			i, err := decode(fields, Visitor{})
			if err != nil {
				delete(known, idOf(fields))
				continue
			}
			known[idOf(fields)] = i.record
		}
	}
	return known, nil
}

// idOf returns the instance of a record's item or key; empty for another item.
func idOf(fields map[string]types.AttributeValue) string {
	key, _ := fields[keyAttribute].(*types.AttributeValueMemberS)
	if key == nil {
		return ""
	}
	id, _ := SplitRecordKey(key.Value)
	return id
}

// Holder returns the claim on a name, or nil if no instance holds it.
func (l *Ledger) Holder(ctx context.Context, name Name) (*Claim, error) {
	var c Claim
	found, err := l.get(ctx, ClaimKey(name), &c)
	if err != nil || !found {
		return nil, err
	}
	return &c, nil
}

// get reads the item with a key and reports whether there is one.
func (l *Ledger) get(ctx context.Context, key string, into any) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := l.api.Get(ctx, &dynamodb.GetItemInput{TableName: &l.table, ConsistentRead: aws.Bool(true), Key: keyOf(key)})
	if err != nil {
		return false, fmt.Errorf("reading %s from table %s: %w", key, l.table, err)
	}
	if len(out.Item) == 0 {
		return false, nil
	}
	if err := attributevalue.UnmarshalMap(out.Item, into); err != nil {
		return false, fmt.Errorf("reading %s from table %s: the item is not one of this program's: %w", key, l.table, err)
	}
	return true, nil
}

// marshal returns a value as an item with a key.
func marshal(key string, value any) (map[string]types.AttributeValue, error) {
	item, err := attributevalue.MarshalMap(value)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", key, err)
	}
	item[keyAttribute] = stringValue(key)
	return item, nil
}

func keyOf(key string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{keyAttribute: stringValue(key)}
}

func stringValue(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }
