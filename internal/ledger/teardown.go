package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const (
	// teardownKey is the item that says that the deployment is taken away: nothing is granted while it stands.
	teardownKey = "teardown"
	// openKept is for how long the answer that it does not stand is good.
	openKept = 10 * time.Second
	// TeardownTime is how long after TearDown an intent that was begun before may still be written: the answer that was
	// kept, and the call that writes the intent.
	TeardownTime = openKept + callTimeout + 5*time.Second
)

type teardown struct {
	StartedAt time.Time `dynamodbav:"started_at"`
}

// TearDown notes that nothing is to be granted any more, and gives when that was first noted.
func (l *Ledger) TearDown(ctx context.Context) (time.Time, error) {
	item, err := attributevalue.MarshalMap(teardown{StartedAt: l.now()})
	if err != nil {
		return time.Time{}, fmt.Errorf("noting the teardown: %w", err)
	}
	item["pk"] = &types.AttributeValueMemberS{Value: teardownKey}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = l.api.Put(call, &dynamodb.PutItemInput{TableName: &l.table, Item: item, ConditionExpression: aws.String("attribute_not_exists(pk)")})
	var stands *types.ConditionalCheckFailedException
	if err != nil && !errors.As(err, &stands) {
		return time.Time{}, fmt.Errorf("noting the teardown in table %s: %w", l.table, err)
	}
	since, err := l.tornDown(ctx)
	if err == nil && since == nil {
		err = fmt.Errorf("the item %s of table %s was written and is not there", teardownKey, l.table)
	}
	if err != nil {
		return time.Time{}, err
	}
	return *since, nil
}

// TornDown gives since when nothing is to be granted any more; nil while grants are made. That answer is kept for some
// seconds: it is asked for before every grant.
func (l *Ledger) TornDown(ctx context.Context) (*time.Time, error) {
	now := l.now()
	l.mu.Lock()
	age := now.Sub(l.openAt)
	l.mu.Unlock()
	if age >= 0 && age < openKept {
		return nil, nil //nolint:nilnil // no time: it is not torn down
	}
	// A batch asks for many instances at once; one call answers them all.
	since, err, _ := l.asked.Do(teardownKey, func() (any, error) {
		since, err := l.tornDown(ctx)
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

func (l *Ledger) tornDown(ctx context.Context) (*time.Time, error) {
	var t teardown
	found, err := l.get(ctx, teardownKey, &t)
	if err != nil || !found {
		return nil, err
	}
	return &t.StartedAt, nil
}
