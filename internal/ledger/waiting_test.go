package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// A test of infra/lab has the same writes on DynamoDB. Here another run writes between a read and its write.
func TestAddWaiting_LosesNoInstance(t *testing.T) {
	var item map[string]types.AttributeValue
	var between func()
	api := ledger.API{
		Get: func(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
			read := item
			if f := between; f != nil {
				between = nil
				f()
			}
			return &dynamodb.GetItemOutput{Item: read}, nil
		},
		Put: func(_ context.Context, in *dynamodb.PutItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
			asRead := (*in.ConditionExpression == "attribute_not_exists(pk)" && item == nil) ||
				(*in.ConditionExpression == "version = :version" && item != nil && fmt.Sprint(in.ExpressionAttributeValues[":version"]) == fmt.Sprint(item["version"]))
			if !asRead {
				return nil, &types.ConditionalCheckFailedException{}
			}
			item = in.Item
			return &dynamodb.PutItemOutput{}, nil
		},
	}
	l := ledger.New(api, "t", time.Now)
	instance := func(n int) facts.Ref {
		return facts.Ref{ID: fmt.Sprintf("i-%08x", n), Place: facts.Place{Account: "123456789012", Region: "us-east-1"}}
	}
	add := func(n int) error { return l.AddWaiting(t.Context(), "i-holder", instance(n)) }
	for n := range 2 {
		between = func() {
			if err := add(10 + n); err != nil {
				t.Error(err)
			}
		}
		if err := add(n); !errors.Is(err, ledger.ErrChanged) || fault.KindOf(err) != fault.Retry {
			t.Errorf("want a lost race tried again, got %v", err)
		}
		if err := add(n); err != nil {
			t.Error(err)
		}
	}
	list, err := l.Waiting(t.Context(), "i-holder")
	if err != nil || fmt.Sprint(list) != fmt.Sprint([]facts.Ref{instance(10), instance(0), instance(11), instance(1)}) {
		t.Errorf("got %v, %v", list, err)
	}
	if key, _ := item["pk"].(*types.AttributeValueMemberS); key == nil || key.Value != "waiting#i-holder" || item[ledger.ExpiresAt] == nil {
		t.Errorf("want an item of the holder that expires, got %v", item)
	}
}
