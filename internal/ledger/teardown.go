package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const (
	// teardownKey is the key of the teardown item. While it exists, nothing is granted.
	teardownKey = "teardown"
	// openKept is how long a Ledger remembers that there is no teardown item.
	openKept = 10 * time.Second
	// TeardownTime is how long after TearDown an earlier run may still write an intent: openKept, the call that writes the
	// intent, and a margin.
	TeardownTime = openKept + callTimeout + 5*time.Second
)

type teardown struct {
	StartedAt time.Time `dynamodbav:"started_at"`
}

// TearDown writes the teardown item, after which nothing is granted. It returns when that item was first written.
func (l *Ledger) TearDown(ctx context.Context) (time.Time, error) {
	item, err := marshal(teardownKey, teardown{StartedAt: l.now()})
	if err != nil {
		return time.Time{}, err
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = l.api.Put(call, &dynamodb.PutItemInput{TableName: &l.table, Item: item, ConditionExpression: aws.String("attribute_not_exists(pk)")})
	var exists *types.ConditionalCheckFailedException
	if err != nil && !errors.As(err, &exists) {
		return time.Time{}, fmt.Errorf("writing %s to table %s: %w", teardownKey, l.table, err)
	}
	since, err := l.readTeardown(ctx)
	if err == nil && since == nil {
		err = fmt.Errorf("%s was written to table %s and is missing there: check what else writes to the table", teardownKey, l.table)
	}
	if err != nil {
		return time.Time{}, err
	}
	return *since, nil
}

// TornDown returns when the teardown began, or nil if there is none. It is called before every grant, so it keeps the answer
// nil for some seconds. It keeps no other answer.
func (l *Ledger) TornDown(ctx context.Context) (*time.Time, error) {
	now := l.now()
	l.mu.Lock()
	age := now.Sub(l.openAt)
	l.mu.Unlock()
	if age >= 0 && age < openKept {
		return nil, nil
	}
	// A batch asks for many instances at once. One call answers all of them.
	since, err, _ := l.teardownReads.Do(teardownKey, func() (any, error) {
		since, err := l.readTeardown(ctx)
		if err == nil && since == nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.openAt = now
		}
		return since, err
	})
	at, _ := since.(*time.Time)
	return at, err
}

func (l *Ledger) readTeardown(ctx context.Context) (*time.Time, error) {
	var t teardown
	found, err := l.get(ctx, teardownKey, &t)
	if err != nil || !found {
		return nil, err
	}
	return &t.StartedAt, nil
}
