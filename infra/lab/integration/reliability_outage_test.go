package integration

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// convergeBound is the number of instances that one invocation converges at once.
const convergeBound = 8

// queues is a queue and its dead-letter queue, like the template's but with shorter times: an hour of outage passes in
// seconds.
type queues struct {
	client                     *sqs.Client
	url, arn, deadURL, deadARN string
}

// newQueues makes the queues with a visibility timeout in seconds and a number of receives before the dead-letter queue.
func newQueues(t *testing.T, visibility, receives string) queues {
	t.Helper()
	q := queues{client: sqs.NewFromConfig(world.AWS)}
	create := func(name string, attributes map[string]string) (url, arn string) {
		t.Helper()
		out, err := q.client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(out.QueueUrl), "arn:aws:sqs:" + world.Region + ":" + world.AccountID + ":" + name
	}
	name := fmt.Sprint("outage-", time.Now().UnixNano())
	q.deadURL, q.deadARN = create(name+"-dead", nil)
	q.url, q.arn = create(name, map[string]string{"VisibilityTimeout": visibility, "RedrivePolicy": q.deadAfter(receives)})
	return q
}

// deadAfter returns the redrive policy that moves a message to the dead-letter queue after a number of receives.
func (q queues) deadAfter(receives string) string {
	return fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%q}`, q.deadARN, receives)
}

func (q queues) send(t *testing.T, i fleet.Instance, at time.Time) {
	t.Helper()
	if _, err := q.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q.url, MessageBody: aws.String(string(fleet.Event(i, "running", at)))}); err != nil {
		t.Fatal(err)
	}
}

// dead returns the number of messages in the dead-letter queue.
func (q queues) dead(t *testing.T) int {
	t.Helper()
	depth, err := queue.DepthOf(t.Context(), q.client, q.deadURL)
	if err != nil {
		t.Fatal(err)
	}
	return depth.Visible + depth.InFlight
}

// redrive moves the messages of the dead-letter queue back, as AWS's console does and
//
//	aws sqs start-message-move-task --source-arn <ARN of the dead-letter queue>
//
// If SQS does not implement that call, as moto does not, redrive receives each message, sends it to its queue and then
// deletes it, in this order, so that an interruption leaves a duplicate and loses none. It returns the method.
func (q queues) redrive(t *testing.T) string {
	t.Helper()
	_, err := q.client.StartMessageMoveTask(t.Context(), &sqs.StartMessageMoveTaskInput{SourceArn: &q.deadARN})
	if err == nil {
		return "by StartMessageMoveTask"
	}
	failure := err
	for {
		out, err := q.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &q.deadURL, MaxNumberOfMessages: 10})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return fmt.Sprintf("by hand, since StartMessageMoveTask returned %.120s", failure)
		}
		for _, m := range out.Messages {
			if _, err := q.client.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &q.url, MessageBody: m.Body}); err != nil {
				t.Fatal(err)
			}
			if _, err := q.client.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &q.deadURL, ReceiptHandle: m.ReceiptHandle}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// span is the time of a call, or of the work on an instance.
type span struct{ from, to time.Time }

// mostAtOnce returns the greatest number of overlapping spans.
func mostAtOnce(spans []span) int {
	type edge struct {
		at   time.Time
		step int
	}
	var edges []edge
	for _, s := range spans {
		edges = append(edges, edge{s.from, 1}, edge{s.to, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(a.at.Compare(b.at), a.step-b.step) })
	now, most := 0, 0
	for _, e := range edges {
		now += e.step
		most = max(most, now)
	}
	return most
}

// load returns the greatest number of concurrent calls to Vault, and of instances between their first call and their
// last.
func load(calls []tap.Call, instances []fleet.Instance) (mostCalls, mostInstances int) {
	var each []span
	work := map[string]span{}
	for _, c := range calls {
		s := span{c.Time, c.Time.Add(c.Duration)}
		each = append(each, s)
		for _, i := range instances {
			if !strings.Contains(c.Path, i.ID) {
				continue
			}
			w, begun := work[i.ID]
			if !begun || s.from.Before(w.from) {
				w.from = s.from
			}
			if s.to.After(w.to) {
				w.to = s.to
			}
			work[i.ID] = w
		}
	}
	return mostAtOnce(each), mostAtOnce(slices.Collect(maps.Values(work)))
}

func launchAll(t *testing.T, n int) []fleet.Instance {
	t.Helper()
	var all []fleet.Instance
	for range n {
		all = append(all, launch(t, fleet.Spec{Role: "alice-worker"}))
	}
	return all
}

func TestVaultOutage_QueuesHoldAndThenConverge(t *testing.T) {
	t.Parallel()
	mapping, err := world.Stack.Mapping(provision)
	if err != nil {
		t.Fatal(err)
	}
	q := newQueues(t, "2", "3")
	l := line(t, lab.LineOptions{Functions: []string{provision}, Concurrency: mapping.MaximumConcurrency})
	early, late := launchAll(t, 8), launchAll(t, 32)
	var down atomic.Bool
	down.Store(true)
	l.Taps.Vault.SetFault(func(tap.Call) *tap.Fault {
		if down.Load() {
			return &tap.Fault{Status: 503, Body: []byte(`{"errors":["Vault is sealed"]}`)}
		}
		return &tap.Fault{Delay: 25 * time.Millisecond} // a network's delay, so that calls overlap
	})
	poller := queue.Start(queue.Options{
		Client: q.client, QueueURL: q.url, QueueARN: q.arn, Function: l.Functions[provision], Window: 200 * time.Millisecond,
		BatchSize:               8, // small, so that a short backlog keeps every sandbox busy
		ReportBatchItemFailures: mapping.ReportBatchItemFailures, MaximumConcurrency: mapping.MaximumConcurrency, Logf: t.Logf,
	})
	labtest.CloseLater(t, poller)

	// The outage lasts until the first events are in the dead-letter queue, and the others were received more than once.
	hourAgo := time.Now().Add(-time.Hour)
	for _, i := range early {
		q.send(t, i, hourAgo)
	}
	within := func(what string, limit time.Duration, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(limit); !ok(); time.Sleep(100 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within %s: %s\nlogs:\n%s", limit, what, lastOf(l.Functions[provision].Logs()))
			}
		}
	}
	within("the first events in the dead-letter queue", 2*time.Minute, func() bool { return q.dead(t) == len(early) })
	// As many receives as the template allows: these events stay in the queue to the end of the outage.
	if _, err := q.client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{
		QueueUrl: &q.url, Attributes: map[string]string{"RedrivePolicy": q.deadAfter("35")},
	}); err != nil {
		t.Fatal(err)
	}
	for _, i := range late {
		q.send(t, i, time.Now())
	}
	receives := func(i fleet.Instance) int {
		most := 0
		for _, b := range poller.Batches() {
			for _, r := range b.Records {
				if strings.Contains(r.Body, i.ID) {
					most = max(most, r.ReceiveCount)
				}
			}
		}
		return most
	}
	within("the other events received twice", 2*time.Minute, func() bool {
		return !slices.ContainsFunc(late, func(i fleet.Instance) bool { return receives(i) < 2 })
	})
	for _, i := range slices.Concat(early, late) {
		if left := objects(t, i); len(left) > 0 {
			t.Errorf("want nothing made during the outage, got %q", left)
		}
	}
	for _, b := range poller.Batches() {
		if b.FunctionError != "" || b.Failures != len(b.Records) {
			t.Errorf("want every message of the outage reported as failed, and no failed invocation, got %+v", b)
		}
	}

	// Vault is back, and the sandboxes have no token.
	if err := l.Functions[provision].Kill(); err != nil {
		t.Fatal(err)
	}
	l.Reset()
	down.Store(false)
	back := time.Now()
	drain := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if err := poller.Drained(ctx); err != nil {
			t.Fatalf("%v\nlogs:\n%s", err, lastOf(l.Functions[provision].Logs()))
		}
	}
	drain()
	took := time.Since(back)
	calls := l.Taps.Vault.Calls()
	held := q.dead(t)
	if held != len(early) {
		t.Errorf("want exactly the %d early events in the dead-letter queue, got %d", len(early), held)
	}
	how := q.redrive(t)
	drain()
	mostCalls, mostInstances := load(l.Taps.Vault.Calls(), slices.Concat(early, late))
	if n := q.dead(t); n != 0 {
		t.Errorf("want the dead-letter queue empty after the redrive, got %d", n)
	}
	for _, i := range slices.Concat(early, late) {
		wantGranted(t, i)
	}
	logins := 0
	for _, c := range calls {
		if strings.HasSuffix(c.Path, "/login") {
			logins++
		}
	}
	if logins > mapping.MaximumConcurrency {
		t.Errorf("want one login for each of %d sandboxes when Vault is back, got %d", mapping.MaximumConcurrency, logins)
	}
	// Each instance has at most as many concurrent calls as objects of its grant.
	if bound := mapping.MaximumConcurrency * convergeBound; mostInstances > bound || mostCalls > bound*len(grantOf("")) {
		t.Errorf("want at most %d concurrent instances (%d sandboxes, %d in each) when Vault is back, and at most %d calls for each, got %d instances, %d calls",
			bound, mapping.MaximumConcurrency, convergeBound, len(grantOf("")), mostInstances, mostCalls)
	}
	t.Logf("%d events during the outage: %d stayed in the queue and were done %s after it, %d went to the dead-letter queue and were redriven %s; at most %d concurrent instances with %d calls to Vault, %d logins",
		len(early)+len(late), len(early)+len(late)-held, took.Round(time.Millisecond), held, how, mostInstances, mostCalls, logins)
}
