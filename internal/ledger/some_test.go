package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// A test of infra/lab reads records from DynamoDB. Here it leaves keys unprocessed, and an item is damaged.
func TestGetSome_KnowsOnlyWhatTheAnswerShows(t *testing.T) {
	key := func(id string) map[string]types.AttributeValue {
		return map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: ledger.RecordKey(id)}}
	}
	const held, none, damaged, unprocessed = "i-00000001", "i-00000002", "i-00000003", "i-00000004"
	l := ledger.New(ledger.API{BatchGet: func(_ context.Context, in *dynamodb.BatchGetItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error) {
		if of := in.RequestItems["t"]; len(of.Keys) != 4 || of.ConsistentRead == nil || !*of.ConsistentRead {
			t.Errorf("want four keys and a consistent read: another would show the state before the last write, got %+v", of)
		}
		good, bad := key(held), key(damaged)
		good["instance_id"] = &types.AttributeValueMemberS{Value: held}
		bad["objects"] = &types.AttributeValueMemberS{Value: "no list"}
		return &dynamodb.BatchGetItemOutput{
			Responses:       map[string][]map[string]types.AttributeValue{"t": {good, bad}},
			UnprocessedKeys: map[string]types.KeysAndAttributes{"t": {Keys: []map[string]types.AttributeValue{key(unprocessed)}}},
		}, nil
	}}, "t", time.Now)
	got, err := l.GetSome(t.Context(), []string{held, none, damaged, unprocessed})
	absent, isKnown := got[none]
	if err != nil || len(got) != 2 || got[held] == nil || got[held].InstanceID != held || absent != nil || !isKnown {
		t.Errorf("want the record of %s, none of %s, and nothing about a damaged and an unprocessed one, got %v, %v", held, none, got, err)
	}
}

// DynamoDB takes 100 keys in a call. After an error what was read before is known.
func TestGetSome_ReadsInParts(t *testing.T) {
	var calls []int
	l := ledger.New(ledger.API{BatchGet: func(_ context.Context, in *dynamodb.BatchGetItemInput, _ ...func(*dynamodb.Options)) (*dynamodb.BatchGetItemOutput, error) {
		calls = append(calls, len(in.RequestItems["t"].Keys))
		if len(calls) == 2 {
			return nil, errors.New("throttled")
		}
		return &dynamodb.BatchGetItemOutput{}, nil
	}}, "t", time.Now)
	var ids []string
	for n := range 101 {
		ids = append(ids, fmt.Sprintf("i-%08x", n))
	}
	got, err := l.GetSome(t.Context(), ids)
	if err == nil || len(got) != 100 || fmt.Sprint(calls) != "[100 1]" {
		t.Errorf("want calls of 100 and 1 keys, the first 100 records and the error of the second call, got calls %v, %d records, %v", calls, len(got), err)
	}
}
