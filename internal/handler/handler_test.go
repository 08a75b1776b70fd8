package handler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/handler"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// outside stands in for EC2 and Converge, and records their calls.
type outside struct {
	mu       sync.Mutex
	looks    [][]facts.Ref
	requests map[string][]converge.Request
	errs     map[string]error
	outcomes map[string]converge.Outcome
	now      time.Time
	running  int
	most     int
}

func (o *outside) Describe(_ context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	o.looks = append(o.looks, refs)
	return map[facts.Ref]instance.Sighting{}
}

// Begin returns nothing: the requests of a batch share nothing here.
func (o *outside) Begin(context.Context, map[facts.Ref]instance.Sighting) *converge.Batch { return nil }

func (o *outside) Converge(_ context.Context, req converge.Request, _ instance.Sighting) (converge.Outcome, error) {
	o.mu.Lock()
	o.running++
	o.most = max(o.most, o.running)
	o.requests[req.ID] = append(o.requests[req.ID], req)
	err, outcome := o.errs[req.ID], o.outcomes[req.ID]
	o.mu.Unlock()
	time.Sleep(2 * time.Millisecond)
	o.mu.Lock()
	o.running--
	o.mu.Unlock()
	if errors.Is(err, errPanics) {
		panic(err)
	}
	if err != nil {
		return outcome, err
	}
	if outcome.Action != "" {
		return outcome, nil
	}
	return converge.Outcome{Action: converge.Provisioned, Profile: "a-worker", FQDN: "x.example"}, nil
}

var errPanics = errors.New("a damaged record")

type bench struct {
	*outside
	handler *handler.Handler
	log     bytes.Buffer
	metrics bytes.Buffer
}

func newBench() *bench {
	b := &bench{outside: &outside{requests: map[string][]converge.Request{}, errs: map[string]error{}, outcomes: map[string]converge.Outcome{}, now: time.Date(2026, 1, 2, 3, 4, 10, 0, time.UTC)}}
	b.handler = &handler.Handler{
		Name: "provision", Deployment: "d", Instances: b.outside, Converger: b.outside,
		Log: observe.NewLogger(&b.log, slog.LevelDebug), Metrics: &b.metrics, Now: func() time.Time { return b.now },
	}
	return b
}

func id(n int) string { return fmt.Sprintf("i-%08x", n) }

func body(id, state, at string) string {
	return fmt.Sprintf(`{"version":"0","source":"aws.ec2","detail-type":"EC2 Instance State-change Notification","account":"123456789012","region":"us-east-1","time":%q,"detail":{"instance-id":%q,"state":%q}}`, at, id, state)
}

// runs returns the bodies of running events of instances 0 to n-1.
func runs(n int) []string {
	var bodies []string
	for i := range n {
		bodies = append(bodies, body(id(i), "running", at))
	}
	return bodies
}

// wrote fails unless the metrics and the log together have all of these texts.
func (b *bench) wrote(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(b.metrics.String()+b.log.String(), text) {
			t.Errorf("want %s among the metrics and in the log:\n%s%s", text, b.metrics.String(), b.log.String())
		}
	}
}

const at = "2026-01-02T03:04:05Z"

// batch invokes with an SQS batch of the bodies and returns the IDs of the messages to deliver again. Message n has the ID m<n>.
func (b *bench) batch(ctx context.Context, t *testing.T, bodies ...string) []string {
	t.Helper()
	var records []map[string]string
	for n, body := range bodies {
		records = append(records, map[string]string{"messageId": fmt.Sprintf("m%d", n), "body": body})
	}
	payload, err := json.Marshal(map[string]any{"Records": records})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := b.handler.Invoke(ctx, payload)
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		BatchItemFailures []struct{ ItemIdentifier string }
	}
	if err := json.Unmarshal(answer, &out); err != nil || out.BatchItemFailures == nil {
		t.Fatalf("the answer %s names no list of failures: %v", answer, err)
	}
	var again []string
	for _, f := range out.BatchItemFailures {
		again = append(again, f.ItemIdentifier)
	}
	return again
}

func TestBatch_ReturnsOnlyRetryableMessages(t *testing.T) {
	b := newBench()
	b.errs[id(1)] = fault.Refusef("no")
	b.errs[id(2)] = fault.Conflictf("no")
	b.errs[id(3)] = errors.New("down")
	again := b.batch(t.Context(), t, append(runs(4), "{")...)
	if fmt.Sprint(again) != "[m3]" {
		t.Errorf("got %v, want only m3", again)
	}
	b.wrote(t, `"Provisioned":1`, `"Refused":1`, `"Conflicting":1`, `"Retried":1`, `"Malformed":1`, `"TimeToReady":[5000]`)
	b.wrote(t, audit.Granted, audit.Refused, audit.Conflict)
}

func TestBatch_ConvergesAnInstanceOnceByTheLatest(t *testing.T) {
	b := newBench()
	b.errs[id(1)] = errors.New("down")
	again := b.batch(t.Context(), t,
		body(id(1), "running", "2026-01-02T03:04:06Z"), body(id(1), "terminated", "2026-01-02T03:04:09Z"), body(id(1), "pending", "2026-01-02T03:04:01Z"))
	if got := b.requests[id(1)]; len(got) != 1 || got[0].Told != "terminated" {
		t.Errorf("want one run by the latest event, got %+v", got)
	}
	if fmt.Sprint(again) != "[m0 m1 m2]" {
		t.Errorf("want all messages of the instance delivered again, got %v", again)
	}
	if len(b.looks) != 1 || len(b.looks[0]) != 1 {
		t.Errorf("want one look at one instance, got %v", b.looks)
	}
}

func TestLater_MostFinalStateWins(t *testing.T) {
	const early, late = "2026-01-02T03:04:01Z", "2026-01-02T03:05:00Z"
	for _, want := range []string{"terminated", "shutting-down"} {
		for _, other := range []string{"pending", "running", "stopping", "stopped", "shutting-down"} {
			if other == want {
				continue
			}
			for _, bodies := range [][]string{
				{body(id(1), want, early), body(id(1), other, late)},
				{body(id(1), other, late), body(id(1), want, early)},
			} {
				b := newBench()
				b.batch(t.Context(), t, bodies...)
				if got := b.requests[id(1)]; len(got) != 1 || string(got[0].Told) != want {
					t.Errorf("%s with a later %s: want one run as %s, got %+v", want, other, want, got)
				}
			}
		}
	}
}

// A time ahead of now would win over every real event, and converge would wait for a state that EC2 never shows.
func TestEventTime_AheadOfNowIsRefused(t *testing.T) {
	const ahead = "2027-01-01T00:00:00Z"
	for _, bodies := range [][]string{
		{body(id(1), "terminated", at), body(id(1), "running", ahead)},
		{body(id(1), "running", ahead), body(id(1), "terminated", at)},
		{body(id(1), "terminated", at), body(id(1), "terminated", ahead)},
	} {
		b := newBench()
		if again := b.batch(t.Context(), t, bodies...); len(again) != 0 {
			t.Errorf("want the refused message acknowledged, got %v", again)
		}
		got := b.requests[id(1)]
		if len(got) != 1 || got[0].Told != "terminated" || got[0].At.Year() != 2026 {
			t.Errorf("want one run by the real event, got %+v", got)
		}
		b.wrote(t, "the event of instance "+id(1), ahead, "ahead of now", `"Malformed":1`)
	}
	b := newBench()
	got, err := b.handler.Invoke(t.Context(), []byte(body(id(1), "running", ahead)))
	if err != nil || !strings.Contains(string(got), `"kind":"refuse"`) || !strings.Contains(string(got), "ahead of now") || len(b.requests) > 0 {
		t.Errorf("a bare event: want it refused, got %s, %v", got, err)
	}
	b = newBench()
	skewed := b.now.Add(time.Minute).Format(time.RFC3339)
	if b.batch(t.Context(), t, body(id(1), "running", skewed)); len(b.requests[id(1)]) != 1 {
		t.Errorf("want an event within the clock's skew handled: %s", b.log.String())
	}
}

// rounds stands in for Converge. Each run takes one second of the test's clock.
type rounds struct {
	*outside
	began []time.Time
}

func (r *rounds) Converge(context.Context, converge.Request, instance.Sighting) (converge.Outcome, error) {
	r.mu.Lock()
	r.began = append(r.began, time.Now())
	r.mu.Unlock()
	time.Sleep(time.Second)
	return converge.Outcome{}, nil
}

// A batch ends with its last round. Few instances in that round would leave the rest of the sandbox idle.
func TestBatch_LastRoundIsAsFullAsTheOthers(t *testing.T) {
	for n, want := range map[int][]int{
		1: {1}, 10: {10}, 11: {8, 3}, 12: {8, 4}, 25: {9, 9, 7}, 41: {9, 9, 9, 9, 5}, 50: {10, 10, 10, 10, 10},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench()
			r := &rounds{outside: b.outside}
			b.handler.Converger = r
			start := time.Now()
			b.batch(t.Context(), t, runs(n)...)
			got := make([]int, len(want))
			for _, began := range r.began {
				if round := int(began.Sub(start) / time.Second); round < len(got) {
					got[round]++
				}
			}
			if !slices.Equal(got, want) || time.Since(start) != time.Duration(len(want))*time.Second {
				t.Errorf("%d instances: %v began in each round of %s, want %v", n, got, time.Since(start), want)
			}
		})
	}
}

func TestBatch_ConvergesInParallelWithABound(t *testing.T) {
	b := newBench()
	if again := b.batch(t.Context(), t, runs(50)...); len(again) != 0 {
		t.Fatalf("got %v", again)
	}
	if b.most < 2 || b.most > 10 {
		t.Errorf("%d ran at once, want 2 to 10", b.most)
	}
	if len(b.looks) != 1 {
		t.Errorf("want one look for the whole batch, got %d", len(b.looks))
	}
}

func TestBatch_LateWorkReturnsToTheQueue(t *testing.T) {
	b := newBench()
	ctx, cancel := context.WithDeadline(t.Context(), b.now.Add(19*time.Second))
	defer cancel()
	if again := b.batch(ctx, t, body(id(0), "running", at)); fmt.Sprint(again) != "[m0]" || len(b.requests) != 0 {
		t.Errorf("with 19 s left nothing may begin, got %v, %v", again, b.requests)
	}
}

func TestBareEvent_AnswersOrFailsForRetry(t *testing.T) {
	b := newBench()
	b.errs[id(1)] = fault.Refusef("two profiles")
	b.errs[id(2)] = errors.New("down")
	for n, want := range map[int]string{
		0: `{"instanceId":"i-00000000","action":"provisioned","profile":"a-worker","fqdn":"x.example"}`,
		1: `{"instanceId":"i-00000001","kind":"refuse","error":"two profiles"}`,
	} {
		got, err := b.handler.Invoke(t.Context(), []byte(body(id(n), "running", at)))
		if err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
	if _, err := b.handler.Invoke(t.Context(), []byte(body(id(2), "running", at))); err == nil {
		t.Error("want an error, so that the invoker sees that nothing was done")
	}
	if _, err := b.handler.Invoke(t.Context(), []byte("[]")); err == nil {
		t.Error("want an error for a payload that is no event")
	}
}

func TestBatch_EmptyAsksEC2Nothing(t *testing.T) {
	b := newBench()
	if again := b.batch(t.Context(), t, "{", "{"); len(again) != 0 || len(b.looks) != 0 {
		t.Errorf("got %v, %v", again, b.looks)
	}
}

func TestBatch_PanicFailsOneInstanceOnly(t *testing.T) {
	b := newBench()
	b.errs[id(1)] = errPanics
	if again := b.batch(t.Context(), t, runs(2)...); fmt.Sprint(again) != "[m1]" {
		t.Errorf("got %v, want only m1", again)
	}
}

func TestBatch_AsksBothPlacesOfOneID(t *testing.T) {
	b := newBench()
	elsewhere := strings.Replace(body(id(0), "terminated", at), "us-east-1", "eu-central-1", 1)
	b.batch(t.Context(), t, body(id(0), "running", at), elsewhere)
	if len(b.looks) != 1 || len(b.looks[0]) != 2 || len(b.requests[id(0)]) != 2 {
		t.Errorf("want each place looked at and converged by its own event, got %v, %v", b.looks, b.requests)
	}
}
