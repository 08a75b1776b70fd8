package ledger_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// failing returns a ledger whose every call fails with err.
func failing(err error) *ledger.Ledger {
	return ledger.New(ledger.API{
		Get: func(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
			return nil, err
		},
		Put: func(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
			return nil, err
		},
		Transact: func(context.Context, *dynamodb.TransactWriteItemsInput, ...func(*dynamodb.Options)) (*dynamodb.TransactWriteItemsOutput, error) {
			return nil, err
		},
		Scan: func(context.Context, *dynamodb.ScanInput, ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error) {
			return nil, err
		},
	}, "the-ledger", time.Now)
}

// The ledger marks no fault as final. DynamoDB may do at the next delivery what it cannot do now, and a message waits in the
// queue for faults that a person must repair. For a name that another instance holds (ErrClaimed), the caller decides.
func TestDynamoDBFault_IsAlwaysRetried(t *testing.T) {
	cancelled := func(codes ...string) error {
		e := &types.TransactionCanceledException{}
		for _, c := range codes {
			e.CancellationReasons = append(e.CancellationReasons, types.CancellationReason{Code: aws.String(c)})
		}
		return e
	}
	for name, row := range map[string]struct {
		err   error
		wraps error // the error that a write's wraps; nil for err itself
	}{
		"throttling":                 {&smithy.GenericAPIError{Code: "ThrottlingException"}, nil},
		"no such table":              {&types.ResourceNotFoundException{}, nil},
		"access denied":              {&smithy.GenericAPIError{Code: "AccessDeniedException"}, nil},
		"a transaction conflict":     {cancelled("TransactionConflict", "None"), nil},
		"a conflict about the claim": {cancelled("None", "TransactionConflict"), nil},
		"a throttled transaction":    {cancelled("ThrottlingError", "None"), nil},
		"cancelled without a reason": {cancelled(), nil},
		"a timeout":                  {context.DeadlineExceeded, nil},
		"an unknown error":           {errors.New("x"), nil},
		"the record changed":         {cancelled("ConditionalCheckFailed", "None"), ledger.ErrChanged},
		"the name is held":           {cancelled("None", "ConditionalCheckFailed"), ledger.ErrClaimed},
		"both: the record decides":   {cancelled("ConditionalCheckFailed", "ConditionalCheckFailed"), ledger.ErrChanged},
		"a conflict and a held name": {cancelled("TransactionConflict", "ConditionalCheckFailed"), ledger.ErrClaimed},
	} {
		t.Run(name, func(t *testing.T) {
			l := failing(row.err)
			claim := ledger.Name{Under: "base", Text: "a.example"}
			_, read := l.Get(t.Context(), "i-01234567")
			_, holder := l.Holder(t.Context(), claim)
			_, written := l.Put(t.Context(), ledger.Write{New: ledger.Record{InstanceID: "i-01234567"}, Claims: []ledger.Name{claim}})
			for doing, err := range map[string]error{"reading a record": read, "reading a claim": holder, "writing": written} {
				if err == nil || fault.KindOf(err) != fault.Retry {
					t.Errorf("%s: want an error of kind retry, so that the message is delivered again, got %v, %v", doing, err, fault.KindOf(err))
				}
			}
			want := row.err
			if row.wraps != nil {
				want = row.wraps
			}
			if !errors.Is(written, want) {
				t.Errorf("want the error of a write to wrap %v, got %v", want, written)
			}
			if known := errors.Is(written, ledger.ErrChanged) || errors.Is(written, ledger.ErrClaimed); known != (row.wraps != nil) {
				t.Errorf("want an outage to be no ErrChanged or ErrClaimed, got %v", written)
			}
		})
	}
}
