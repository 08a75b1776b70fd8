package ledger

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"golang.org/x/sync/singleflight"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// The reasons a write is not made. All else is an outage and of kind fault.Retry.
var (
	// ErrChanged: somebody else wrote the record since it was read, or holds its lease. Of kind fault.Retry.
	ErrChanged = errors.New("the record was changed by somebody else")
	// ErrClaimed: another instance holds a name. The error is a *ClaimedError.
	ErrClaimed = errors.New("the name is held by another instance")
)

// ClaimedError names the first claim that another instance holds.
type ClaimedError struct{ Name Name }

func (e *ClaimedError) Error() string { return fmt.Sprintf("claiming %s: %v", e.Name, ErrClaimed) }

// Unwrap makes it an ErrClaimed.
func (e *ClaimedError) Unwrap() error { return ErrClaimed }

// notHeldError: names to be given up are not the instance's any more, so there is nothing to give up.
type notHeldError struct{ names []Name }

func (e *notHeldError) Error() string { return fmt.Sprintf("the names %v are not held", e.names) }

const (
	callTimeout = 5 * time.Second
	// LeaseTime is how long a lease lasts. It is longer than a function may run, so that only a dead sandbox, or one
	// that was frozen, ever loses one.
	LeaseTime = 75 * time.Second
)

// API is what the ledger needs of DynamoDB. They are functions for the reason given in docs/decisions/binary-size.md.
type API struct {
	Get      func(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	Put      func(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	Transact func(context.Context, *dynamodb.TransactWriteItemsInput, ...func(*dynamodb.Options)) (*dynamodb.TransactWriteItemsOutput, error)
	Scan     func(context.Context, *dynamodb.ScanInput, ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error)
}

// NewAPI takes the functions from a client.
func NewAPI(c *dynamodb.Client) API {
	return API{Get: c.GetItem, Put: c.PutItem, Transact: c.TransactWriteItems, Scan: c.Scan}
}

// Ledger reads and writes the table. It is safe for concurrent use.
type Ledger struct {
	api   API
	table string
	now   func() time.Time

	asked  singleflight.Group // whether the deployment is torn down
	mu     sync.Mutex
	openAt time.Time // when the ledger last said that it is not
}

// New makes a Ledger on a table. now is time.Now outside tests.
func New(api API, table string, now func() time.Time) *Ledger {
	return &Ledger{api: api, table: table, now: func() time.Time { return now().Round(0).UTC() }}
}

// Get reads the record of an instance, consistently; nil when there is none.
func (l *Ledger) Get(ctx context.Context, instanceID string) (*Record, error) {
	var r Record
	found, err := l.get(ctx, RecordKey(instanceID), &r)
	if err != nil || !found {
		return nil, err
	}
	return &r, nil
}

// Holder reads who holds a name; nil when nobody does.
func (l *Ledger) Holder(ctx context.Context, name Name) (*Claim, error) {
	var c Claim
	found, err := l.get(ctx, ClaimKey(name), &c)
	if err != nil || !found {
		return nil, err
	}
	return &c, nil
}

func (l *Ledger) get(ctx context.Context, key string, into any) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := l.api.Get(ctx, &dynamodb.GetItemInput{
		TableName: &l.table, ConsistentRead: aws.Bool(true),
		Key: map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: key}},
	})
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

// Put makes a write and gives the record as it now stands. The error wraps ErrChanged or ErrClaimed where one of
// them is the reason.
func (l *Ledger) Put(ctx context.Context, w Write) (*Record, error) {
	now := l.now()
	r := w.Becomes(now)
	r.WriteID = newID()
	item, err := attributevalue.MarshalMap(r)
	if err != nil {
		return nil, fmt.Errorf("writing the record of instance %s: %w", r.InstanceID, err)
	}
	item["pk"] = &types.AttributeValueMemberS{Value: RecordKey(r.InstanceID)}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	condition, values := l.condition(w, now)
	put := types.Put{
		TableName: &l.table, Item: item, ConditionExpression: &condition, ExpressionAttributeValues: values,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if n := len(w.Claims) + len(w.Release); n > grant.MaxClaims {
		return nil, fault.Refusef("writing the record of instance %s: %d names and addresses are to be claimed or given up, and one transaction takes %d", r.InstanceID, n, grant.MaxClaims)
	}
	if len(w.Claims) == 0 && len(w.Release) == 0 {
		err = l.putAlone(ctx, put, r.WriteID)
	} else {
		err = l.putWithClaims(ctx, put, w, r)
	}
	var lost *notHeldError
	if errors.As(err, &lost) {
		w.Release = slices.DeleteFunc(slices.Clone(w.Release), func(n Name) bool { return slices.Contains(lost.names, n) })
		return l.Put(ctx, w)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the record of instance %s (%s) to table %s: %w", r.InstanceID, r.State, l.table, err)
	}
	return &r, nil
}

// condition lets a write through if the record is as it was read and its lease is the writer's, free or run out.
func (l *Ledger) condition(w Write, now time.Time) (string, map[string]types.AttributeValue) {
	if w.Old == nil {
		return "attribute_not_exists(pk)", nil
	}
	number := func(n int64) types.AttributeValue {
		return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
	}
	return "version = :version AND (attribute_not_exists(lease_owner) OR lease_owner = :owner OR lease_expires_at < :now)",
		map[string]types.AttributeValue{
			":version": number(w.Old.Version),
			":owner":   &types.AttributeValueMemberS{Value: w.Owner},
			":now":     number(now.UnixMilli()),
		}
}

func (l *Ledger) putAlone(ctx context.Context, put types.Put, writeID string) error {
	_, err := l.api.Put(ctx, &dynamodb.PutItemInput{
		TableName: put.TableName, Item: put.Item, ConditionExpression: put.ConditionExpression,
		ExpressionAttributeValues:           put.ExpressionAttributeValues,
		ReturnValuesOnConditionCheckFailure: put.ReturnValuesOnConditionCheckFailure,
	})
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		return changed(failed.Item, writeID)
	}
	return err
}

// changed is nil when the item that stands in the way is our own write, whose answer was lost.
func changed(item map[string]types.AttributeValue, writeID string) error {
	if id, ok := item["write_id"].(*types.AttributeValueMemberS); ok && id.Value == writeID {
		return nil
	}
	return fault.New(fault.Retry, ErrChanged)
}

func (l *Ledger) putWithClaims(ctx context.Context, put types.Put, w Write, r Record) error {
	items := []types.TransactWriteItem{{Put: &put}}
	own := map[string]types.AttributeValue{":id": &types.AttributeValueMemberS{Value: r.InstanceID}}
	free := aws.String("attribute_not_exists(pk) OR instance_id = :id")
	for _, name := range w.Claims {
		claim, err := attributevalue.MarshalMap(Claim{InstanceID: r.InstanceID, Account: r.Account, Region: r.Region})
		if err != nil {
			return fmt.Errorf("claiming %s: %w", name, err)
		}
		claim["pk"] = &types.AttributeValueMemberS{Value: ClaimKey(name)}
		items = append(items, types.TransactWriteItem{Put: &types.Put{
			TableName: &l.table, Item: claim, ConditionExpression: free, ExpressionAttributeValues: own,
		}})
	}
	for _, name := range w.Release {
		items = append(items, types.TransactWriteItem{Delete: &types.Delete{
			TableName:           &l.table,
			Key:                 map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: ClaimKey(name)}},
			ConditionExpression: free, ExpressionAttributeValues: own,
		}})
	}
	// The token makes a repetition by the SDK the same transaction: it succeeds once and stays so.
	_, err := l.api.Transact(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: items, ClientRequestToken: &r.WriteID})
	var cancelled *types.TransactionCanceledException
	if !errors.As(err, &cancelled) {
		return err
	}
	const refused = "ConditionalCheckFailed"
	lost := &notHeldError{}
	for i, reason := range cancelled.CancellationReasons {
		switch {
		case aws.ToString(reason.Code) != refused:
		case i == 0:
			return changed(reason.Item, r.WriteID)
		case i <= len(w.Claims):
			return &ClaimedError{Name: w.Claims[i-1]}
		default:
			lost.names = append(lost.names, w.Release[i-1-len(w.Claims)])
		}
	}
	if len(lost.names) > 0 {
		return lost
	}
	return err
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read does not fail
	return hex.EncodeToString(b[:])
}
