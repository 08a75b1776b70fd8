package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

const (
	// maxWaiting is the number of instances that are remembered for one holder: a group that launches refused instances again and
	// again would fill the item. The latest stay.
	maxWaiting = 20
	// waitingTime is how long they are remembered after the latest was added.
	waitingTime = 30 * 24 * time.Hour
)

// waiting is the item of the instances that wait for a name of one holder. It is apart from the holder's record, so that no
// waiting instance delays a run on the holder. Nothing is granted by it: it only says which instances to look at.
type waiting struct {
	Instances []waiter `dynamodbav:"instances"`
	Version   string   `dynamodbav:"version"` // new at each write
	ExpiresAt int64    `dynamodbav:"expires_at"`
}

type waiter struct {
	ID      string `dynamodbav:"instance_id"`
	Account string `dynamodbav:"account"`
	Region  string `dynamodbav:"region"`
}

// WithWaiting returns a list of waiting instances with one more at its end, and no more than are remembered.
func WithWaiting(list []facts.Ref, r facts.Ref) []facts.Ref {
	if slices.Contains(list, r) {
		return list
	}
	list = append(slices.Clone(list), r)
	return list[max(0, len(list)-maxWaiting):]
}

// AddWaiting remembers that an instance waits for a name of a holder. The error is of kind fault.Retry if another run added one
// at the same time.
func (l *Ledger) AddWaiting(ctx context.Context, holder string, r facts.Ref) error {
	old, list, err := l.readWaiting(ctx, holder)
	if err != nil || slices.Contains(list, r) {
		return err
	}
	next := waiting{Version: newID(), ExpiresAt: l.now().Add(waitingTime).Unix()}
	for _, w := range WithWaiting(list, r) {
		next.Instances = append(next.Instances, waiter{ID: w.ID, Account: w.Account, Region: w.Region})
	}
	item, err := marshal(WaitingKey(holder), next)
	if err != nil {
		return err
	}
	put := dynamodb.PutItemInput{TableName: &l.table, Item: item}
	condition := "attribute_not_exists(pk)"
	if old != nil {
		condition = "version = :version"
		put.ExpressionAttributeValues = map[string]types.AttributeValue{":version": stringValue(old.Version)}
	}
	put.ConditionExpression = &condition
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = l.api.Put(ctx, &put)
	var changed *types.ConditionalCheckFailedException
	if errors.As(err, &changed) {
		return fault.New(fault.Retry, fmt.Errorf("adding %s to those that wait for instance %s: %w", r.ID, holder, ErrChanged))
	}
	if err != nil {
		return fmt.Errorf("adding %s to those that wait for instance %s, in table %s: %w", r.ID, holder, l.table, err)
	}
	return nil
}

// Waiting returns the instances that wait, or waited, for a name of a holder.
func (l *Ledger) Waiting(ctx context.Context, holder string) ([]facts.Ref, error) {
	_, list, err := l.readWaiting(ctx, holder)
	return list, err
}

// readWaiting returns the item of a holder and its instances; nil if there is none.
func (l *Ledger) readWaiting(ctx context.Context, holder string) (*waiting, []facts.Ref, error) {
	var w waiting
	found, err := l.get(ctx, WaitingKey(holder), &w)
	if err != nil || !found {
		return nil, nil, err
	}
	var list []facts.Ref
	for _, i := range w.Instances {
		list = append(list, facts.Ref{ID: i.ID, Place: facts.Place{Account: i.Account, Region: i.Region}})
	}
	return &w, list, nil
}
