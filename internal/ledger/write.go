package ledger

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

// Write is one change of a record.
type Write struct {
	// Old is the record that was read, or nil if there was none. The write fails if the record has changed since.
	Old *Record
	// New is the record to write. The ledger sets its version, write ID, lease, expiry and the times of creation, update and
	// deletion.
	New Record
	// Owner is the writing run. The write fails if another run holds the lease.
	Owner string
	// KeepLease takes or prolongs the lease. Without it the write returns the lease.
	KeepLease bool
	// Claims are claimed in the same transaction, all or none. Claims and Release are at most grant.MaxClaims together.
	Claims []Name
	// Release are released in the same transaction. A name that the instance does not hold is left out.
	Release []Name
}

// Becomes returns the record as the write leaves it at a time, without its write ID.
func (w Write) Becomes(now time.Time) Record {
	r := w.New
	r.Version, r.UpdatedAt, r.Program = 1, now, version.Version()
	if w.Old != nil {
		r.Version = w.Old.Version + 1
		r.CreatedAt = w.Old.CreatedAt
	}
	if r.CreatedAt.IsZero() {
		r.CreatedAt = now
	}
	r.setReleased(w, now)
	r.setLease(w, now)
	r.setExpiry(w, now)
	return r
}

// Put makes a write and returns the record as written. The error wraps ErrChanged if the record has changed or another run
// holds its lease, and ErrClaimed if another instance holds one of the names. It is of kind fault.Refuse for too many names.
func (l *Ledger) Put(ctx context.Context, w Write) (*Record, error) {
	now := l.now()
	r := w.Becomes(now)
	r.WriteID = newID()
	item, err := marshal(RecordKey(r.InstanceID), r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	condition, values := w.condition(now)
	put := types.Put{
		TableName: &l.table, Item: item, ConditionExpression: &condition, ExpressionAttributeValues: values,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	}
	if n := len(w.Claims) + len(w.Release); n > grant.MaxClaims {
		return nil, fault.Refusef("writing the record of instance %s: %d names and addresses to claim or release, and one transaction takes %d", r.InstanceID, n, grant.MaxClaims)
	}
	if len(w.Claims) == 0 && len(w.Release) == 0 {
		err = l.putRecord(ctx, put, r.WriteID)
	} else {
		err = l.putWithClaims(ctx, put, w, r)
	}
	var notHeld *notHeldError
	if errors.As(err, &notHeld) {
		w.Release = slices.DeleteFunc(slices.Clone(w.Release), func(n Name) bool { return slices.Contains(notHeld.names, n) })
		return l.Put(ctx, w)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the record of instance %s (%s) to table %s: %w", r.InstanceID, r.State, l.table, err)
	}
	return &r, nil
}

func (l *Ledger) putRecord(ctx context.Context, put types.Put, writeID string) error {
	_, err := l.api.Put(ctx, &dynamodb.PutItemInput{
		TableName: put.TableName, Item: put.Item, ConditionExpression: put.ConditionExpression,
		ExpressionAttributeValues:           put.ExpressionAttributeValues,
		ReturnValuesOnConditionCheckFailure: put.ReturnValuesOnConditionCheckFailure,
	})
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		return conditionError(failed.Item, writeID)
	}
	return err
}

// conditionError returns the error of a write whose condition failed on an item. It returns nil if that item is the write's
// own: the answer was lost, and the SDK repeated the write.
func conditionError(item map[string]types.AttributeValue, writeID string) error {
	if id, ok := item["write_id"].(*types.AttributeValueMemberS); ok && id.Value == writeID {
		return nil
	}
	return fault.New(fault.Retry, ErrChanged)
}

// notHeldError names the names to release that the instance does not hold.
type notHeldError struct{ names []Name }

func (e *notHeldError) Error() string { return fmt.Sprintf("the names %v are not held", e.names) }

// putWithClaims writes a record with its claims in one transaction.
func (l *Ledger) putWithClaims(ctx context.Context, put types.Put, w Write, r Record) error {
	items := []types.TransactWriteItem{{Put: &put}}
	own := map[string]types.AttributeValue{":id": stringValue(r.InstanceID)}
	freeOrOwn := aws.String("attribute_not_exists(pk) OR instance_id = :id")
	for _, name := range w.Claims {
		claim, err := marshal(ClaimKey(name), Claim{InstanceID: r.InstanceID, Account: r.Account, Region: r.Region})
		if err != nil {
			return err
		}
		items = append(items, types.TransactWriteItem{Put: &types.Put{
			TableName: &l.table, Item: claim, ConditionExpression: freeOrOwn, ExpressionAttributeValues: own,
		}})
	}
	for _, name := range w.Release {
		items = append(items, types.TransactWriteItem{Delete: &types.Delete{
			TableName: &l.table, Key: keyOf(ClaimKey(name)), ConditionExpression: freeOrOwn, ExpressionAttributeValues: own,
		}})
	}
	// With the token, a repetition by the SDK is the same transaction: it succeeds once.
	_, err := l.api.Transact(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: items, ClientRequestToken: &r.WriteID})
	var cancelled *types.TransactionCanceledException
	if !errors.As(err, &cancelled) {
		return err
	}
	const failed = "ConditionalCheckFailed"
	notHeld := &notHeldError{}
	for i, reason := range cancelled.CancellationReasons {
		switch {
		case aws.ToString(reason.Code) != failed:
		case i == 0:
			return conditionError(reason.Item, r.WriteID)
		case i <= len(w.Claims):
			return &ClaimedError{Name: w.Claims[i-1]}
		default:
			notHeld.names = append(notHeld.names, w.Release[i-1-len(w.Claims)])
		}
	}
	if len(notHeld.names) > 0 {
		return notHeld
	}
	return err
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read does not fail
	return hex.EncodeToString(b[:])
}
