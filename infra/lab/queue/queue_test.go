package queue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/awsclient"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
)

// scripted is an Invoker with the test's answers. The queue is real; the sandbox
// has its own tests.
type scripted struct {
	answer func(events.SQSEvent) (string, error)

	mu              sync.Mutex
	running, widest int
}

func (s *scripted) Invoke(_ context.Context, payload []byte) (sandbox.Result, error) {
	s.mu.Lock()
	s.running++
	s.widest = max(s.widest, s.running)
	s.mu.Unlock()
	defer func() { s.mu.Lock(); s.running--; s.mu.Unlock() }()
	var e events.SQSEvent
	if err := json.Unmarshal(payload, &e); err != nil {
		return sandbox.Result{}, err
	}
	answer, err := s.answer(e)
	if err != nil {
		return sandbox.Result{FunctionError: "Unhandled", ErrorType: "errorString", ErrorMessage: err.Error()}, nil
	}
	return sandbox.Result{Payload: []byte(answer)}, nil
}

type bench struct {
	client           *sqs.Client
	url, arn, dlqURL string
}

func newBench(t *testing.T, client *sqs.Client, visibility, receives string) bench {
	t.Helper()
	name := fmt.Sprintf("tried-%d", time.Now().UnixNano())
	b := bench{client: client}
	create := func(name string, attributes map[string]string) (string, string) {
		out, err := client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(out.QueueUrl), "arn:aws:sqs:us-east-1:123456789012:" + name
	}
	dlqURL, dlqARN := create(name+"-dlq", nil)
	b.dlqURL = dlqURL
	b.url, b.arn = create(name, map[string]string{
		"VisibilityTimeout": visibility,
		"RedrivePolicy":     fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%q}`, dlqARN, receives),
	})
	return b
}

func (b bench) send(t *testing.T, bodies ...string) {
	t.Helper()
	for _, body := range bodies {
		_, err := b.client.SendMessage(t.Context(), &sqs.SendMessageInput{
			QueueUrl: &b.url, MessageBody: &body,
			MessageAttributes: map[string]sqstypes.MessageAttributeValue{"kind": {DataType: aws.String("String"), StringValue: aws.String("tried")}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (b bench) poll(t *testing.T, o Options) *Poller {
	t.Helper()
	o.Client, o.QueueURL, o.QueueARN, o.Logf = b.client, b.url, b.arn, t.Logf
	p := Start(o)
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestPoller_ActsLikeLambda(t *testing.T) {
	client := sqs.NewFromConfig(awsclient.Config(partstest.Moto(t, partstest.Workspace(t)).URL, "us-east-1"))

	t.Run("a batch larger than one receive is gathered in the window and has Lambda's form", func(t *testing.T) {
		b := newBench(t, client, "30", "5")
		var bodies []string
		for i := range 23 {
			bodies = append(bodies, fmt.Sprintf("body %d", i))
		}
		b.send(t, bodies...)
		var seen events.SQSEvent
		f := &scripted{answer: func(e events.SQSEvent) (string, error) {
			if len(seen.Records) == 0 {
				seen = e
			}
			return `{"batchItemFailures":[]}`, nil
		}}
		p := b.poll(t, Options{Function: f, BatchSize: 20, Window: 2 * time.Second, MaximumConcurrency: 1, ReportBatchItemFailures: true})
		if err := p.Drained(within(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
		batches := p.Batches()
		if len(batches) != 2 || len(batches[0].Records) != 20 || len(batches[1].Records) != 3 {
			t.Fatalf("expected batches of 20 and 3, seen %v", batches)
		}
		r := seen.Records[0]
		if r.EventSource != "aws:sqs" || r.EventSourceARN != b.arn || r.AWSRegion != "us-east-1" || r.Md5OfBody == "" || r.ReceiptHandle == "" ||
			r.Attributes["ApproximateReceiveCount"] != "1" || r.Attributes["SentTimestamp"] == "" || aws.ToString(r.MessageAttributes["kind"].StringValue) != "tried" {
			t.Errorf("the record lacks a field that Lambda sends: %+v", r)
		}
	})

	t.Run("only the messages in the answer return and end in the dead-letter queue", func(t *testing.T) {
		b := newBench(t, client, "1", "2")
		b.send(t, "good", "bad")
		f := &scripted{answer: func(e events.SQSEvent) (string, error) {
			var failed []map[string]string
			for _, r := range e.Records {
				if r.Body == "bad" {
					failed = append(failed, map[string]string{"itemIdentifier": r.MessageId})
				}
			}
			answer, err := json.Marshal(map[string]any{"batchItemFailures": failed})
			return string(answer), err
		}}
		p := b.poll(t, Options{Function: f, ReportBatchItemFailures: true})
		r, batch, err := p.WaitFor(within(t, 10*time.Second), func(r Record) bool { return r.Body == "good" })
		if err != nil || !r.Handled || r.ReceiveCount != 1 || batch.FunctionError != "" {
			t.Errorf("expected the good one handled at its first receive: %+v, %+v, %v", r, batch, err)
		}
		if err := p.Drained(within(t, 15*time.Second)); err != nil {
			t.Fatal(err)
		}
		dead, err := DepthOf(t.Context(), client, b.dlqURL)
		if err != nil || dead.Visible != 1 {
			t.Errorf("expected the bad one in the dead-letter queue, seen %+v (%v)", dead, err)
		}
		tries := 0
		for _, batch := range p.Batches() {
			for _, r := range batch.Records {
				if r.Body == "bad" {
					tries++
				}
			}
		}
		if tries != 2 {
			t.Errorf("the bad one should have been tried twice, seen %d", tries)
		}
	})

	t.Run("an answer has the same effect as in Lambda", func(t *testing.T) {
		for name, c := range map[string]struct {
			answer  string
			err     error
			plain   bool
			handled bool
		}{
			"null is all done":                               {answer: "null", handled: true},
			"an empty body is all done":                      {answer: "", handled: true},
			"a null list is all done":                        {answer: `{"batchItemFailures":null}`, handled: true},
			"an empty identifier is a failed batch":          {answer: `{"batchItemFailures":[{"itemIdentifier":""}]}`},
			"a misspelt key is a failed batch":               {answer: `{"batchItemFailures":[{"itemIdentifer":"x"}]}`},
			"an unknown identifier is a failed batch":        {answer: `{"batchItemFailures":[{"itemIdentifier":"x"}]}`},
			"broken JSON is a failed batch":                  {answer: `{"batchItem`},
			"a function error is a failed batch":             {err: errors.New("no luck")},
			"without the setting the answer is not read":     {answer: `{"batchItemFailures":[{"itemIdentifier":"x"}]}`, plain: true, handled: true},
			"without the setting an error fails all as well": {err: errors.New("no luck"), plain: true},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t, client, "30", "5")
				b.send(t, "one")
				f := &scripted{answer: func(events.SQSEvent) (string, error) { return c.answer, c.err }}
				p := b.poll(t, Options{Function: f, ReportBatchItemFailures: !c.plain})
				r, batch, err := p.WaitFor(within(t, 20*time.Second), func(Record) bool { return true })
				if err != nil {
					t.Fatal(err)
				}
				if r.Handled != c.handled || (batch.FunctionError == "") != c.handled {
					t.Errorf("answer %q, error %v: expected handled=%v, seen %+v", c.answer, c.err, c.handled, batch)
				}
			})
		}
	})

	t.Run("at most the allowed number of invocations run side by side", func(t *testing.T) {
		b := newBench(t, client, "30", "5")
		b.send(t, "1", "2", "3", "4", "5", "6")
		f := &scripted{answer: func(events.SQSEvent) (string, error) { time.Sleep(150 * time.Millisecond); return "", nil }}
		p := b.poll(t, Options{Function: f, BatchSize: 1, MaximumConcurrency: 2})
		if err := p.Drained(within(t, 20*time.Second)); err != nil {
			t.Fatal(err)
		}
		if f.widest != 2 || len(p.Batches()) != 6 {
			t.Errorf("expected six batches, two at a time; seen %d batches, %d at a time", len(p.Batches()), f.widest)
		}
	})
}
