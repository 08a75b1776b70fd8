package queue

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Batches returns all finished batches, oldest first.
func (p *Poller) Batches() []Batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.batches)
}

// WaitFor waits for a finished batch with a matching record, and returns the record
// and its batch. It also searches the batches that finished before the call.
func (p *Poller) WaitFor(ctx context.Context, match func(Record) bool) (Record, Batch, error) {
	for seen := 0; ; {
		p.mu.Lock()
		batches, changed := p.batches[seen:], p.changed
		seen = len(p.batches)
		p.mu.Unlock()
		for _, b := range batches {
			if i := slices.IndexFunc(b.Records, match); i >= 0 {
				return b.Records[i], b, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Record{}, Batch{}, fmt.Errorf("waiting for a record of %s, none in %d batches: %w", p.opts.QueueURL, seen, ctx.Err())
		}
	}
}

// Depth is the number of messages in a queue.
type Depth struct{ Visible, InFlight, Delayed int }

// Depth returns the number of messages in the poller's queue.
func (p *Poller) Depth(ctx context.Context) (Depth, error) {
	return DepthOf(ctx, p.opts.Client, p.opts.QueueURL)
}

// DepthOf returns the number of messages in any queue, for example a dead-letter queue.
func DepthOf(ctx context.Context, client *sqs.Client, url string) (Depth, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	names := []sqstypes.QueueAttributeName{
		sqstypes.QueueAttributeNameApproximateNumberOfMessages,
		sqstypes.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		sqstypes.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	}
	out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: names})
	if err != nil {
		return Depth{}, fmt.Errorf("reading the depth of queue %s: %w", url, err)
	}
	var counts [3]int
	for i, name := range names {
		if counts[i], err = strconv.Atoi(out.Attributes[string(name)]); err != nil {
			return Depth{}, fmt.Errorf("reading %s of queue %s: %w", name, url, err)
		}
	}
	return Depth{Visible: counts[0], InFlight: counts[1], Delayed: counts[2]}, nil
}

// Drained waits until the queue is empty and every received batch is finished.
// Messages that keep failing delay it until they reach the dead-letter queue.
func (p *Poller) Drained(ctx context.Context) error {
	for {
		depth, err := p.Depth(ctx)
		if err != nil {
			return err
		}
		p.mu.Lock()
		held := p.held
		p.mu.Unlock()
		if depth == (Depth{}) && held == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for queue %s to drain, it holds %+v and the lab %d: %w", p.opts.QueueURL, depth, held, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
