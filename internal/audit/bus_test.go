package audit_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
)

func TestBus_RejectedEventHasItsOwnError(t *testing.T) {
	var sent []types.PutEventsRequestEntry
	put := func(_ context.Context, in *eventbridge.PutEventsInput, _ ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error) {
		sent = in.Entries
		return &eventbridge.PutEventsOutput{FailedEntryCount: 1, Entries: []types.PutEventsResultEntry{
			{EventId: aws.String("1")}, {ErrorCode: aws.String("ThrottlingException"), ErrorMessage: aws.String("slow down")},
		}}, nil
	}
	errs := audit.NewEventBridge(put, "audit").Put(t.Context(), []audit.Event{
		{Type: "Vault Access Granted", Time: time.Unix(1, 0), Detail: audit.Detail{InstanceID: "i-1"}}, {Type: "Vault Access Removed"},
	})
	if len(errs) != 1 || !strings.Contains(errs[0].Error(), "ThrottlingException") || !strings.Contains(errs[0].Error(), "audit") {
		t.Errorf("want one error that names the bus and the code, got %v", errs)
	}
	if len(sent) != 2 || *sent[0].Source != audit.Source || *sent[0].DetailType != "Vault Access Granted" || *sent[0].EventBusName != "audit" ||
		!strings.Contains(*sent[0].Detail, `"instanceId":"i-1"`) || !sent[0].Time.Equal(time.Unix(1, 0)) {
		t.Errorf("got the entries %+v", sent)
	}
}

func TestBus_FailedCallLosesAllItsEvents(t *testing.T) {
	put := func(context.Context, *eventbridge.PutEventsInput, ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error) {
		return nil, errors.New("no route")
	}
	if errs := audit.NewEventBridge(put, "audit").Put(t.Context(), make([]audit.Event, 3)); len(errs) != 3 {
		t.Errorf("want one error for each of 3 events, got %v", errs)
	}
}
