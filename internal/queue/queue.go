// Package queue sends messages to this program's own SQS queues: internal/reconcile sends repairs to the provision queue, and
// internal/handler sends requests back to reconcile's own.
package queue

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

const (
	callTimeout = 10 * time.Second
	// maxBatch is the maximum number of messages in one call,
	// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html
	maxBatch = 10
)

// API is the call of SQS that a Queue makes, as a function and not a client: docs/decisions/binary-size.md says why.
type API func(context.Context, *sqs.SendMessageBatchInput, ...func(*sqs.Options)) (*sqs.SendMessageBatchOutput, error)

// Queue sends to one queue. It is safe for concurrent use.
type Queue struct {
	send API
	url  string
}

// New makes a Queue that sends to the queue with this URL.
func New(send API, url string) *Queue { return &Queue{send: send, url: url} }

// Send sends the event of each live instance (event.Body). It returns one error for each, nil for those that SQS accepted.
func (q *Queue) Send(ctx context.Context, live []event.Event) []error {
	bodies := make([]string, len(live))
	errs := make([]error, len(live))
	for i, e := range live {
		body, err := event.Body(e)
		bodies[i], errs[i] = string(body), err
	}
	sent := 0
	for part := range slices.Chunk(bodies, maxBatch) {
		for i, err := range q.sendAll(ctx, part, 0) {
			if errs[sent+i] == nil {
				errs[sent+i] = err
			}
		}
		sent += len(part)
	}
	return errs
}

// SendBody sends one message with a delay, of whole seconds and at most fifteen minutes.
func (q *Queue) SendBody(ctx context.Context, body []byte, delay time.Duration) error {
	return q.sendAll(ctx, []string{string(body)}, delay)[0]
}

func (q *Queue) sendAll(ctx context.Context, bodies []string, delay time.Duration) []error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	input := &sqs.SendMessageBatchInput{QueueUrl: &q.url}
	for i, b := range bodies {
		input.Entries = append(input.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), MessageBody: &b, DelaySeconds: int32(delay / time.Second)})
	}
	errs := make([]error, len(bodies))
	out, err := q.send(ctx, input)
	if err != nil {
		for i := range errs {
			errs[i] = fmt.Errorf("sending %d messages to %s: %w", len(bodies), q.url, err)
		}
		return errs
	}
	for _, f := range out.Failed {
		if i, err := strconv.Atoi(aws.ToString(f.Id)); err == nil && i >= 0 && i < len(errs) {
			errs[i] = fault.Retryf("sending a message to %s: %s %s", q.url, aws.ToString(f.Code), aws.ToString(f.Message))
		}
	}
	return errs
}
