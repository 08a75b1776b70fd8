package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
)

const (
	receiveMax  = 10 // SQS's limit for one receive
	callLimit   = 10 * time.Second
	closeLimit  = 5 * time.Second
	gatherPause = 50 * time.Millisecond
)

// Invoker runs a function with one event; sandbox.Function implements it.
type Invoker interface {
	Invoke(ctx context.Context, payload []byte) (sandbox.Result, error)
}

// Options describe a mapping.
type Options struct {
	Client                  *sqs.Client
	QueueURL, QueueARN      string
	Function                Invoker
	BatchSize               int           // 10
	Window                  time.Duration // time to gather after the first message
	ReportBatchItemFailures bool
	MaximumConcurrency      int                              // 2
	OnBatch                 func(Batch)                      // called after each batch; may be nil
	Logf                    func(format string, args ...any) // receives faults of the polling; may be nil
}

// Batch is one finished invocation.
type Batch struct {
	Records       []Record
	Failures      int    // records left in the queue
	FunctionError string // the failure of the whole batch; empty for none
	RequestID     string
	Started       time.Time
	Duration      time.Duration
}

// Record is one message of a batch and its result.
type Record struct {
	MessageID, Body string
	ReceiveCount    int
	Handled         bool // deleted from the queue
}

// Poller is the only reader of a queue.
type Poller struct {
	opts     Options
	slots    chan struct{}
	receive  context.Context // its end stops the receiving
	stop     context.CancelFunc
	work     context.Context // its end stops running invocations
	abort    context.CancelFunc
	finished chan struct{} // closed when the loop has ended
	running  sync.WaitGroup

	mu      sync.Mutex
	resumed *sync.Cond
	paused  bool
	parked  bool // the loop waits for Resume
	held    int  // messages received, whose batch is not finished
	batches []Batch
	changed chan struct{} // closed and replaced at every finished batch
}

// Start starts a poller. Close ends it.
func Start(o Options) *Poller {
	o.BatchSize = cmp.Or(o.BatchSize, receiveMax)
	o.MaximumConcurrency = cmp.Or(o.MaximumConcurrency, 2)
	if o.Logf == nil {
		o.Logf = func(string, ...any) {}
	}
	p := &Poller{opts: o, slots: make(chan struct{}, o.MaximumConcurrency), finished: make(chan struct{}), changed: make(chan struct{})}
	p.resumed = sync.NewCond(&p.mu)
	p.receive, p.stop = context.WithCancel(context.Background())
	p.work, p.abort = context.WithCancel(context.Background())
	go p.loop()
	return p
}

// Close stops receiving, waits a few seconds for running invocations, and ends them.
func (p *Poller) Close() error {
	p.stop()
	p.Resume()
	<-p.finished
	ended := make(chan struct{})
	go func() { p.running.Wait(); close(ended) }()
	defer p.abort()
	select {
	case <-ended:
		return nil
	case <-time.After(closeLimit):
	}
	p.abort()
	select {
	case <-ended:
		return nil
	case <-time.After(closeLimit):
		return fmt.Errorf("closing the poller of %s: an invocation does not end", p.opts.QueueURL)
	}
}

// Pause stops receiving until Resume, so that a test can build up a backlog or
// change the queue. It returns when no receive is in flight.
func (p *Poller) Pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = true
	for !p.parked && p.receive.Err() == nil {
		p.resumed.Wait()
	}
}

// Resume starts receiving again.
func (p *Poller) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = false
	p.resumed.Broadcast()
}

func (p *Poller) loop() {
	defer close(p.finished)
	for p.receive.Err() == nil {
		// A slot first, so that no received message waits for one.
		select {
		case p.slots <- struct{}{}:
		case <-p.receive.Done():
			return
		}
		p.mu.Lock()
		for p.paused {
			p.parked = true
			p.resumed.Broadcast()
			p.resumed.Wait()
		}
		p.parked = false
		p.mu.Unlock()
		messages := p.gather()
		if len(messages) == 0 {
			<-p.slots
			continue
		}
		p.running.Go(func() {
			defer func() { <-p.slots }()
			p.handle(messages)
		})
	}
}

// gather receives one batch, until it is full or the window after the first message
// has passed.
func (p *Poller) gather() []sqstypes.Message {
	var messages []sqstypes.Message
	var until time.Time
	for {
		wait := int32(1)
		if len(messages) > 0 {
			wait = 0
		}
		got, err := p.receiveSome(min(receiveMax, p.opts.BatchSize-len(messages)), wait)
		if err != nil && p.receive.Err() == nil {
			p.opts.Logf("receiving from %s: %v", p.opts.QueueURL, err)
			p.pause(200 * time.Millisecond)
		}
		p.mu.Lock()
		p.held += len(got)
		p.mu.Unlock()
		if len(messages) == 0 {
			if len(got) == 0 {
				return nil
			}
			until = time.Now().Add(p.opts.Window)
		}
		messages = append(messages, got...)
		if len(messages) >= p.opts.BatchSize || !time.Now().Before(until) || p.receive.Err() != nil {
			return messages
		}
		if len(got) < receiveMax {
			p.pause(min(gatherPause, time.Until(until)))
		}
	}
}

func (p *Poller) receiveSome(most int, wait int32) ([]sqstypes.Message, error) {
	ctx, cancel := context.WithTimeout(p.receive, callLimit)
	defer cancel()
	out, err := p.opts.Client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: &p.opts.QueueURL, MaxNumberOfMessages: int32(most), WaitTimeSeconds: wait,
		MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{sqstypes.MessageSystemAttributeNameAll},
		MessageAttributeNames:       []string{"All"},
	})
	if err != nil {
		return nil, err
	}
	return out.Messages, nil
}

func (p *Poller) pause(d time.Duration) {
	select {
	case <-p.receive.Done():
	case <-time.After(d):
	}
}

// handle invokes the function with a batch and deletes the handled messages.
func (p *Poller) handle(messages []sqstypes.Message) {
	b := Batch{Started: time.Now()}
	failed, result, err := p.invoke(messages)
	b.RequestID = result.RequestID
	var done []sqstypes.Message
	if err != nil {
		b.FunctionError = err.Error()
	} else {
		for _, m := range messages {
			if !failed[aws.ToString(m.MessageId)] {
				done = append(done, m)
			}
		}
	}
	gone, err := p.remove(done)
	if err != nil {
		p.opts.Logf("deleting handled messages from %s: %v", p.opts.QueueURL, err)
	}
	for _, m := range messages {
		id := aws.ToString(m.MessageId)
		count, _ := strconv.Atoi(m.Attributes[string(sqstypes.MessageSystemAttributeNameApproximateReceiveCount)])
		b.Records = append(b.Records, Record{MessageID: id, Body: aws.ToString(m.Body), ReceiveCount: count, Handled: gone[id]})
		if !gone[id] {
			b.Failures++
		}
	}
	b.Duration = time.Since(b.Started)

	p.mu.Lock()
	p.held -= len(messages)
	p.batches = append(p.batches, b)
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if p.opts.OnBatch != nil {
		p.opts.OnBatch(b)
	}
}

// invoke returns the IDs of the messages that must stay in the queue. An error means all of them.
func (p *Poller) invoke(messages []sqstypes.Message) (map[string]bool, sandbox.Result, error) {
	event, err := sqsEvent(messages, p.opts.QueueARN)
	if err != nil {
		return nil, sandbox.Result{}, err
	}
	result, err := p.opts.Function.Invoke(p.work, event)
	if err == nil {
		err = result.Err()
	}
	if err != nil || !p.opts.ReportBatchItemFailures {
		return nil, result, err
	}
	failed, err := failures(result.Payload, messages)
	return failed, result, err
}

// remove deletes messages and returns the IDs of the deleted ones.
func (p *Poller) remove(messages []sqstypes.Message) (map[string]bool, error) {
	gone := make(map[string]bool, len(messages))
	var errs []error
	for len(messages) > 0 {
		some := messages[:min(receiveMax, len(messages))]
		messages = messages[len(some):]
		in := &sqs.DeleteMessageBatchInput{QueueUrl: &p.opts.QueueURL}
		for i, m := range some {
			in.Entries = append(in.Entries, sqstypes.DeleteMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)), ReceiptHandle: m.ReceiptHandle})
		}
		ctx, cancel := context.WithTimeout(p.work, callLimit)
		out, err := p.opts.Client.DeleteMessageBatch(ctx, in)
		cancel()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, entry := range out.Successful {
			if i, err := strconv.Atoi(aws.ToString(entry.Id)); err == nil && i < len(some) {
				gone[aws.ToString(some[i].MessageId)] = true
			}
		}
		for _, entry := range out.Failed {
			errs = append(errs, fmt.Errorf("%s: %s", aws.ToString(entry.Code), aws.ToString(entry.Message)))
		}
	}
	return gone, errors.Join(errs...)
}
