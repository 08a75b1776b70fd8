package ledger_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// table answers GetItem with item or err, and counts the calls.
type table struct {
	calls atomic.Int64
	item  map[string]types.AttributeValue
	err   error
}

func (t *table) get(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	t.calls.Add(1)
	time.Sleep(20 * time.Millisecond)
	return &dynamodb.GetItemOutput{Item: t.item}, t.err
}

func TestTornDown_IsAskedOnceInTenSeconds(t *testing.T) {
	answers, now := &table{}, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := ledger.New(ledger.API{Get: answers.get}, "t", func() time.Time { return now })
	ask := func() {
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				if since, err := l.TornDown(t.Context()); since != nil || err != nil {
					t.Errorf("want no teardown, got %v, %v", since, err)
				}
			})
		}
		group.Wait()
	}
	ask()
	now = now.Add(9 * time.Second)
	ask()
	if n := answers.calls.Load(); n != 1 {
		t.Errorf("want one call for 16 instances within ten seconds, got %d", n)
	}
	now = now.Add(2 * time.Second)
	ask()
	if n := answers.calls.Load(); n != 2 {
		t.Errorf("want a second call when the answer is eleven seconds old, got %d calls: a teardown waits no longer", n)
	}
	now = now.Add(-time.Minute) // the clock was set back
	ask()
	if n := answers.calls.Load(); n != 3 {
		t.Errorf("want a third call for an answer from the future, got %d calls", n)
	}
}

func TestTornDown_TrueOrUnknownIsNotCached(t *testing.T) {
	answers := &table{item: map[string]types.AttributeValue{"started_at": &types.AttributeValueMemberS{Value: "2026-01-02T03:04:05Z"}}}
	l := ledger.New(ledger.API{Get: answers.get}, "t", time.Now)
	if since, err := l.TornDown(t.Context()); err != nil || since == nil || since.Year() != 2026 {
		t.Errorf("want the time of the teardown, got %v, %v", since, err)
	}
	answers.item, answers.err = nil, errors.New("down")
	if _, err := l.TornDown(t.Context()); err == nil {
		t.Error("want an error if the table cannot be read: a guess would make grants during a teardown")
	}
	answers.err = nil
	if since, err := l.TornDown(t.Context()); since != nil || err != nil {
		t.Errorf("want the next call to read again, got %v, %v", since, err)
	}
}
