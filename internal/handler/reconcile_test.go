package handler_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/handler"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// empty is an account without an instance, and a Vault and a ledger without an object; each listing takes its time.
type empty struct {
	bench  *bench
	took   time.Duration
	own    []string
	delays []time.Duration
	refuse error // the error of its own queue
}

func (e *empty) Read(context.Context, string) (map[string]any, error)   { return nil, nil }
func (e *empty) List(context.Context, string) ([]string, error)         { return []string{"default"}, nil }
func (e *empty) Aliases(context.Context, string) ([]vault.Alias, error) { return nil, nil }
func (e *empty) LoginMount(context.Context, string) (vault.LoginMount, error) {
	return vault.LoginMount{}, nil
}
func (e *empty) Entity(context.Context, vault.LoginMount, string) (string, error) { return "", nil }
func (e *empty) Scan(context.Context, ledger.Visitor) error                       { return nil }
func (e *empty) Get(context.Context, string) (*ledger.Record, error)              { return nil, nil }
func (e *empty) Holder(context.Context, ledger.Name) (*ledger.Claim, error)       { return nil, nil }
func (e *empty) TearDown(context.Context) (time.Time, error)                      { return time.Time{}, nil }
func (e *empty) TornDown(context.Context) (*time.Time, error)                     { return nil, nil }
func (e *empty) Account(context.Context) (string, error)                          { return "123456789012", nil }
func (e *empty) Examine(context.Context) doctor.Report {
	return doctor.Report{Mode: "doctor", OK: true}
}
func (e *empty) SendBody(_ context.Context, body []byte, delay time.Duration) error {
	e.own, e.delays = append(e.own, string(body)), append(e.delays, delay)
	return e.refuse
}
func (e *empty) Describe(context.Context, []facts.Ref) map[facts.Ref]instance.Sighting { return nil }

type ec2 struct{ *empty }

func (e ec2) List(context.Context, facts.Place, []string, func([]instance.Sighting) error) error {
	e.bench.now = e.bench.now.Add(e.took)
	return nil
}

func newReconcile() (*handler.ReconcileHandler, *empty) {
	b := newBench()
	e := &empty{bench: b}
	h := &handler.ReconcileHandler{Handler: *b.handler, Doctor: e, Own: e}
	h.Reconciler = &reconcile.Reconciler{Options: reconcile.Options{
		Profiles: &grant.Set{}, Vault: e, Ledger: e, Teardowns: e, Instances: ec2{e}, Places: []facts.Place{{Region: "us-east-1"}}, Now: h.Now,
	}}
	return h, e
}

func TestReconcileInput_ReadsEachForm(t *testing.T) {
	for payload, mode := range map[string]string{
		``: "correct", `null`: "correct", `{}`: "correct", `{"mode":"detect"}`: "detect", `{"mode":"doctor"}`: "doctor",
		`{"mode":"detect","instanceIds":["i-0123456789abcdef0"],"profile":"a-b","force":true}`:           "detect",
		`{"version":"0","detail-type":"Scheduled Event","source":"aws.events","detail":{},"anything":1}`: "correct",
		`{"Records":[{"messageId":"1","body":"{\"mode\":\"detect\"}"}]}`:                                 "detect",
	} {
		h, _ := newReconcile()
		out, err := h.Invoke(t.Context(), []byte(payload))
		var a struct{ Mode string }
		if err != nil || json.Unmarshal(out, &a) != nil || a.Mode != mode {
			t.Errorf("%s: want mode %s, got %s, %v", payload, mode, out, err)
		}
	}
	for _, payload := range []string{
		`[]`, `{`, `{"mode":"fix"}`, `{"instanceID":["i-0123456789abcdef0"]}`, `{"instanceIds":["*"]}`, `{"force":"yes"}`, `{} {}`,
		`{"cursor":{"limit":0}}`, `{"Records":[{"body":"{}"},{"body":"{}"}]}`, `{"Records":[{"body":"x"}]}`,
	} {
		h, _ := newReconcile()
		if out, err := h.Invoke(t.Context(), []byte(payload)); err == nil {
			t.Errorf("%s: want it refused, got %s", payload, out)
		}
	}
}

// The rows' paths are relative to the namespace.
func TestReconcile_AnswerNamesTheNamespace(t *testing.T) {
	for _, namespace := range []string{"team/a", ""} {
		for _, payload := range []string{`{"mode":"detect"}`, `{"mode":"teardown","confirm":"d"}`} {
			h, _ := newReconcile()
			h.Namespace, h.Deployment = namespace, "d"
			out, err := h.Invoke(t.Context(), []byte(payload))
			var a map[string]any
			if err != nil || json.Unmarshal(out, &a) != nil {
				t.Fatalf("%s: %s, %v", payload, out, err)
			}
			if got, has := a["namespace"]; has != (namespace != "") || (has && got != namespace) {
				t.Errorf("%s: seen namespace %v in the answer, want %q, and no field for the root namespace", payload, got, namespace)
			}
		}
	}
}

func TestReconcile_ContinuesByQueueOrAnswer(t *testing.T) {
	for payload, byQueue := range map[string]bool{
		`{"mode":"detect"}`: false, `{"detail-type":"Scheduled Event"}`: true, `{"Records":[{"body":"{\"mode\":\"detect\",\"force\":true}"}]}`: true,
	} {
		h, e := newReconcile()
		e.took = time.Hour
		out, err := h.Invoke(t.Context(), []byte(payload))
		var a reconcile.Answer
		if err != nil || json.Unmarshal(out, &a) != nil || a.Cursor == nil || !a.Truncated {
			t.Fatalf("%s: want a cursor, got %s, %v", payload, out, err)
		}
		if (len(e.own) == 1) != byQueue {
			t.Errorf("%s: sent to the queue %q, want it there: %v", payload, e.own, byQueue)
		}
		if byQueue && e.delays[0] != 0 {
			t.Errorf("%s: want the rest of the run begun at once, got a delay of %s", payload, e.delays[0])
		}
		if byQueue && strings.Contains(payload, "force") && !strings.Contains(e.own[0], `"force":true`) {
			t.Errorf("want the rest of the run to be as forced as its beginning, got %s", e.own[0])
		}
	}
	h, e := newReconcile()
	e.took, h.Own = time.Hour, nil
	if _, err := h.Invoke(t.Context(), []byte(`{"detail-type":"Scheduled Event"}`)); err == nil || !strings.Contains(err.Error(), "RECONCILE_QUEUE_URL") {
		t.Errorf("without a queue: want an error that says what to set, got %v", err)
	}
}

func TestReconcile_CountsEndedAndBlockedRuns(t *testing.T) {
	h, e := newReconcile()
	if _, err := h.Invoke(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	e.bench.wrote(t, `"Reconciled":1`, `"DriftMissing":0`, `"Blocked":0`)
	h, e = newReconcile()
	h.Reconciler.Ledger = failing{e}
	if _, err := h.Invoke(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	e.bench.wrote(t, `"Blocked":1`)
}

type failing struct{ *empty }

func (failing) Scan(context.Context, ledger.Visitor) error { return errors.New("the table is away") }

// gone is a ledger of n active records of instances that EC2 does not show.
type gone struct {
	*empty
	n int
}

func (g gone) Scan(_ context.Context, v ledger.Visitor) error {
	for n := range g.n {
		v.Record(*g.record(id(n)))
	}
	return nil
}

func (g gone) Get(_ context.Context, instanceID string) (*ledger.Record, error) {
	return g.record(instanceID), nil
}

func (g gone) record(instanceID string) *ledger.Record {
	return &ledger.Record{InstanceID: instanceID, State: ledger.Active, Account: "123456789012", Region: "us-east-1", Version: 1}
}

// settling has n removals, each of which a later run finishes.
func settling(n int) (*handler.ReconcileHandler, *empty) {
	h, e := newReconcile()
	h.Reconciler.Ledger = gone{e, n}
	for i := range n {
		e.bench.errs[id(i)] = fault.New(fault.Retry, converge.ErrUnfinished)
	}
	return h, e
}

// TestSecondCut_IsSentToReconcilesQueue has more of them than one message names.
func TestSecondCut_IsSentToReconcilesQueue(t *testing.T) {
	const n = 201
	h, e := settling(n)
	if _, err := h.Invoke(t.Context(), []byte(`{"force":true}`)); err != nil {
		t.Fatal(err)
	}
	var named []string
	for i, body := range e.own {
		// Vault ends a login 95 seconds after it began; SQS keeps a message back for 15 minutes at most.
		if e.delays[i] <= 95*time.Second || e.delays[i] > 15*time.Minute {
			t.Errorf("want the second token cut when no login can be in flight, and no sooner, got it after %s", e.delays[i])
		}
		var in reconcile.Input
		if err := json.Unmarshal([]byte(body), &in); err != nil {
			t.Fatal(err)
		}
		named = append(named, in.InstanceIDs...)
		in.InstanceIDs = nil
		if want := (reconcile.Input{Mode: reconcile.Correct, Force: true}); !reflect.DeepEqual(in, want) {
			t.Errorf("want a run that removes whatever the settings and the delete limit say, since the limit allowed these removals, got %s", body)
		}
		payload, err := json.Marshal(map[string]any{"Records": []map[string]string{{"messageId": "1", "body": body}}})
		if err != nil {
			t.Fatal(err)
		}
		again, _ := newReconcile()
		if _, err := again.Invoke(t.Context(), payload); err != nil {
			t.Errorf("want the message taken by the next invocation, got %v", err)
		}
	}
	var want []string
	for i := range n {
		want = append(want, id(i))
	}
	if slices.Sort(named); !slices.Equal(named, want) || len(e.own) != 2 {
		t.Errorf("want each of %d instances named once, in two messages, got %d in %d: %q", n, len(named), len(e.own), named)
	}
}

// TestSecondCut_UnsentIsOnlyLogged has no queue, or one that refuses the message. The
// removals are done, and the next run makes the second cut.
func TestSecondCut_UnsentIsOnlyLogged(t *testing.T) {
	for says, change := range map[string]func(*handler.ReconcileHandler, *empty){
		"RECONCILE_QUEUE_URL": func(h *handler.ReconcileHandler, _ *empty) { h.Own = nil },
		"the queue is away":   func(_ *handler.ReconcileHandler, e *empty) { e.refuse = errors.New("the queue is away") },
	} {
		h, e := settling(2)
		change(h, e)
		out, err := h.Invoke(t.Context(), nil)
		var a reconcile.Answer
		if err != nil || json.Unmarshal(out, &a) != nil || a.Summary.Corrected != 2 || a.Summary.Failed > 0 || a.Blocked {
			t.Errorf("%s: want the run to end without an error after two removals, got %s, %v", says, out, err)
		}
		log := e.bench.log.String()
		if strings.Count(log, "second token cut of these removals is late") != 1 || !strings.Contains(log, says) || strings.Contains(log, `"level":"ERROR"`) {
			t.Errorf("%s: want a warning that says why, got %s", says, log)
		}
	}
}

// refusing is EC2 that refuses to answer about any instance. The function runs in another account than theirs: in its own, no
// refusal counts.
type refusing struct{ ec2 }

func (refusing) Account(context.Context) (string, error) { return "210987654321", nil }

func (refusing) Describe(_ context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	out := map[facts.Ref]instance.Sighting{}
	for _, ref := range refs {
		out[ref] = instance.Sighting{Err: fault.Refusef("the account is not allowed")}
	}
	return out
}

// Without the word in its message, the second cut could not remove an instance that EC2 cannot be asked about.
func TestSecondCut_KeepsTheOperatorsWord(t *testing.T) {
	h, e := settling(3)
	h.Reconciler.Instances = refusing{ec2{e}}
	out, err := h.Invoke(t.Context(), []byte(`{"mode":"correct","force":true,"gone":{"accounts":["123456789012"],"atMost":3}}`))
	var a reconcile.Answer
	if err != nil || json.Unmarshal(out, &a) != nil || a.Summary.Corrected != 3 || a.Blocked {
		t.Fatalf("want three removed, got %s, %v", out, err)
	}
	var in reconcile.Input
	if len(e.own) != 1 || json.Unmarshal([]byte(e.own[0]), &in) != nil || in.Gone == nil || len(in.Gone.InstanceIDs) != 3 || in.Gone.AtMost != 3 {
		t.Fatalf("want the word about the three in the queue, got %q", e.own)
	}
	if err := reconcile.CheckInput(in); err != nil {
		t.Errorf("want the message accepted, got %v", err)
	}
	if log := e.bench.log.String(); !strings.Contains(log, "an operator said that these are gone") || strings.Contains(log, `"Reconciled"`) {
		t.Errorf("want the word in the log, and no comparison counted, got %s", log)
	}
}

func TestSecondCut_NotNeededSendsNothing(t *testing.T) {
	h, e := newReconcile()
	h.Reconciler.Ledger = gone{e, 2}
	if _, err := h.Invoke(t.Context(), nil); err != nil || len(e.own) > 0 {
		t.Errorf("want no message after removals that are done, got %q, %v", e.own, err)
	}
}

func TestTeardown_NeedsTheDeploymentsName(t *testing.T) {
	for payload, begun := range map[string]bool{
		`{"mode":"teardown","confirm":"d"}`: true, `{"mode":"teardown"}`: false, `{"mode":"teardown","confirm":"D"}`: false,
		`{"mode":"teardown","confirm":"other"}`: false, `{"mode":"teardown","confirm":"d","force":true}`: false, `{"mode":"correct","confirm":"d"}`: false,
	} {
		h, e := newReconcile()
		h.Reconciler.Ledger = gone{e, 2}
		out, err := h.Invoke(t.Context(), []byte(payload))
		if (err == nil) != begun || (len(e.bench.requests) > 0) != begun {
			t.Errorf("%s: want it begun: %v, got %s, %v, %v", payload, begun, out, err, e.bench.requests)
		}
	}
}

func TestTeardown_SecondCutStaysATeardown(t *testing.T) {
	h, e := settling(3)
	out, err := h.Invoke(t.Context(), []byte(`{"mode":"teardown","confirm":"d"}`))
	var a reconcile.Answer
	if err != nil || json.Unmarshal(out, &a) != nil || a.Unsettled != 3 || a.Summary.Failed > 0 {
		t.Fatalf("want three removed and counted as unsettled, got %s, %v", out, err)
	}
	if len(e.own) != 1 || !strings.Contains(e.own[0], `"mode":"teardown"`) || !strings.Contains(e.own[0], `"confirm":"d"`) {
		t.Errorf("want the queue to continue the teardown, got %q", e.own)
	}
}
