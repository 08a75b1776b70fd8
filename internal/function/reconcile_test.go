package function_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/function"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// empty is an account without an instance, and a Vault and a ledger without an object; each listing takes its time.
type empty struct {
	bench *bench
	took  time.Duration
	own   []string
}

func (e *empty) Read(context.Context, string) (map[string]any, error)       { return nil, nil }
func (e *empty) List(context.Context, string) ([]string, error)             { return []string{"default"}, nil }
func (e *empty) Aliases(context.Context, string) ([]vault.Alias, error)     { return nil, nil }
func (e *empty) Scan(context.Context, ledger.Visitor) error                 { return nil }
func (e *empty) Get(context.Context, string) (*ledger.Record, error)        { return nil, nil }
func (e *empty) Holder(context.Context, ledger.Name) (*ledger.Claim, error) { return nil, nil }
func (e *empty) Account(context.Context) (string, error)                    { return "123456789012", nil }
func (e *empty) Examine(context.Context) doctor.Report {
	return doctor.Report{Mode: "doctor", OK: true}
}
func (e *empty) SendBody(_ context.Context, body []byte, _ time.Duration) error {
	e.own = append(e.own, string(body))
	return nil
}
func (e *empty) Look(context.Context, []instance.Ref) map[instance.Ref]instance.Sighting { return nil }

type ec2 struct{ *empty }

func (e ec2) List(context.Context, instance.Place, []string, func([]instance.Sighting) error) error {
	e.bench.now = e.bench.now.Add(e.took)
	return nil
}

func newReconcile() (*function.ReconcileHandler, *empty) {
	b := newBench()
	e := &empty{bench: b}
	h := &function.ReconcileHandler{Handler: *b.handler, Doctor: e, Own: e}
	h.Reconciler = &reconcile.Reconciler{Options: reconcile.Options{
		Profiles: &grant.Set{}, Vault: e, Ledger: e, Instances: ec2{e}, Regions: []string{"us-east-1"}, Now: h.Now,
	}}
	return h, e
}

func TestEachFormOfInputIsTakenForWhatItIs(t *testing.T) {
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

func TestARunThatNobodyWaitsForGoesOnByItsQueueAndOneByHandByItsAnswer(t *testing.T) {
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
		if byQueue && strings.Contains(payload, "force") && !strings.Contains(e.own[0], `"force":true`) {
			t.Errorf("want the rest of the run to be as forced as its beginning, got %s", e.own[0])
		}
	}
	h, e := newReconcile()
	e.took, h.Own = time.Hour, nil
	if _, err := h.Invoke(t.Context(), []byte(`{"detail-type":"Scheduled Event"}`)); err == nil || !strings.Contains(err.Error(), "RECONCILE_QUEUE_URL") {
		t.Errorf("without a queue: want the unfinished run told as an error that says what to set, got %v", err)
	}
}

func TestARunIsCountedOnceItHasEndedAndABlockedOneApart(t *testing.T) {
	h, e := newReconcile()
	if _, err := h.Invoke(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if m := e.bench.metrics.String(); !strings.Contains(m, `"Reconciled":1`) || !strings.Contains(m, `"DriftMissing":0`) || strings.Contains(m, "Blocked") {
		t.Errorf("want the run counted, and no drift told as such, got %s", m)
	}
	h, e = newReconcile()
	h.Reconciler.Ledger = failing{e}
	if _, err := h.Invoke(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if m := e.bench.metrics.String(); !strings.Contains(m, `"Blocked":1`) {
		t.Errorf("want the blocked run counted, got %s", m)
	}
}

type failing struct{ *empty }

func (failing) Scan(context.Context, ledger.Visitor) error { return errors.New("the table is away") }
