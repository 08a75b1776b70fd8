package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	ebtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

const detailType = "EC2 Instance State-change Notification"

// Announce sends EC2's state-change event. In the home account and region the
// event goes through EventBridge and the stack's rules (real AWS refuses the
// source aws.ec2 from other senders; moto does not). In another account or region
// it goes directly to the queues of the rules.
func (f *Fleet) Announce(ctx context.Context, i Instance, state string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if i.AccountID != f.opts.AccountID || i.Region != f.opts.AWS.Region {
		return f.Deliver(ctx, state, Event(i, state, time.Now()))
	}
	detail, err := json.Marshal(map[string]string{"instance-id": i.ID, "state": state})
	if err != nil {
		return fmt.Errorf("writing the event of %s: %w", i.ID, err)
	}
	out, err := eventbridge.NewFromConfig(f.opts.AWS).PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []ebtypes.PutEventsRequestEntry{{
		Source: aws.String("aws.ec2"), DetailType: aws.String(detailType), Time: aws.Time(time.Now()),
		Resources: []string{i.ARN()}, Detail: aws.String(string(detail)),
	}}})
	if err == nil && out.FailedEntryCount > 0 {
		err = fmt.Errorf("EventBridge refused it: %s", aws.ToString(out.Entries[0].ErrorMessage))
	}
	if err != nil {
		return fmt.Errorf("announcing %s of %s: %w", state, i.ID, err)
	}
	return nil
}

// Deliver puts an event's body into the queues that receive this state.
func (f *Fleet) Deliver(ctx context.Context, state string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	client := sqs.NewFromConfig(f.opts.AWS)
	var errs []error
	for _, url := range f.opts.QueuesFor(state) {
		if _, err := client.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String(string(body))}); err != nil {
			errs = append(errs, fmt.Errorf("sending an event to %s: %w", url, err))
		}
	}
	return errors.Join(errs...)
}

// Event returns a state-change event as EventBridge delivers it.
func Event(i Instance, state string, at time.Time) []byte {
	body, _ := json.Marshal(map[string]any{ // strings only: cannot fail
		"version": "0", "id": strings.ToLower(rand.Text()), "detail-type": detailType, "source": "aws.ec2",
		"account": i.AccountID, "time": at.UTC().Format(time.RFC3339), "region": i.Region,
		"resources": []string{i.ARN()},
		"detail":    map[string]string{"instance-id": i.ID, "state": state},
	})
	return body
}

// Hook is a wait of an instance's group: the hook's name, the action's token, and LAUNCHING or TERMINATING.
type Hook struct{ Name, Token, Transition string }

// HookDetail returns the detail of a hook's event.
func HookDetail(i Instance, h Hook) map[string]string {
	return map[string]string{
		"LifecycleActionToken": h.Token, "AutoScalingGroupName": "workers", "LifecycleHookName": h.Name, "EC2InstanceId": i.ID,
		"LifecycleTransition": "autoscaling:EC2_INSTANCE_" + h.Transition, "Origin": "EC2", "Destination": "AutoScalingGroup",
	}
}

// HookEvent returns the event of a lifecycle hook as EventBridge delivers it.
func HookEvent(i Instance, h Hook, at time.Time) []byte {
	kind := map[string]string{"LAUNCHING": "launch", "TERMINATING": "terminate"}[h.Transition]
	body, _ := json.Marshal(map[string]any{ // strings only: cannot fail
		"version": "0", "id": "h", "source": "aws.autoscaling", "detail-type": "EC2 Instance-" + kind + " Lifecycle Action",
		"account": i.AccountID, "region": i.Region, "time": at.UTC().Format(time.RFC3339), "detail": HookDetail(i, h),
	})
	return body
}

func tagList(tags map[string]string) []ec2types.Tag {
	list := make([]ec2types.Tag, 0, len(tags))
	for key, value := range tags {
		list = append(list, ec2types.Tag{Key: aws.String(key), Value: aws.String(value)})
	}
	slices.SortFunc(list, func(a, b ec2types.Tag) int { return cmp.Compare(*a.Key, *b.Key) })
	return list
}

// nameOf returns the last part of an IAM ARN.
func nameOf(arn string) string { return arn[strings.LastIndex(arn, "/")+1:] }
