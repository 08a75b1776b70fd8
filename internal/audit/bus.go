package audit

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
)

// API is the call of EventBridge that a bus makes, as a function and not a client: docs/decisions/binary-size.md says why.
type API func(context.Context, *eventbridge.PutEventsInput, ...func(*eventbridge.Options)) (*eventbridge.PutEventsOutput, error)

// EventBridge is an event bus. It is safe for concurrent use.
type EventBridge struct {
	put  API
	name string
}

// NewEventBridge makes an EventBridge; name is the bus's name or ARN.
func NewEventBridge(put API, name string) *EventBridge { return &EventBridge{put: put, name: name} }

// Put sends events in one call. EventBridge may accept only some of them; Put returns one error for each rejected event.
func (b *EventBridge) Put(ctx context.Context, events []Event) []error {
	input := &eventbridge.PutEventsInput{}
	var errs []error
	for _, e := range events {
		detail, err := json.Marshal(e.Detail)
		if err != nil {
			errs = append(errs, fmt.Errorf("writing the event of instance %s: %w", e.Detail.InstanceID, err))
			continue
		}
		input.Entries = append(input.Entries, types.PutEventsRequestEntry{
			EventBusName: &b.name, Source: aws.String(Source), DetailType: &e.Type, Detail: aws.String(string(detail)), Time: &e.Time,
		})
	}
	out, err := b.put(ctx, input)
	if err != nil {
		for range input.Entries {
			errs = append(errs, fmt.Errorf("sending %d events to the bus %s: %w", len(input.Entries), b.name, err))
		}
		return errs
	}
	for _, r := range out.Entries {
		if r.ErrorCode != nil {
			errs = append(errs, fmt.Errorf("sending an event to the bus %s: %s: %s", b.name, *r.ErrorCode, aws.ToString(r.ErrorMessage)))
		}
	}
	return errs
}
