package converge_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
)

// woken is the provision queue: the events sent to it.
type woken struct{ events []event.Event }

func (q *woken) Send(_ context.Context, live []event.Event) []error {
	q.events = append(q.events, live...)
	return make([]error, len(live))
}

// take returns the IDs of the woken instances and empties the queue.
func (q *woken) take() (ids []string) {
	for _, e := range q.events {
		ids = append(ids, e.ID)
	}
	q.events = nil
	return ids
}

// wakes has a converger remember those that wait for a name, and wake them through q.
func (w *world) wakes(q converge.Queue) func(*converge.Options) {
	return func(o *converge.Options) {
		o.Waiters, _ = o.Ledger.(ledgertest.Client)
		o.Ledger = converge.Waker{Ledger: o.Ledger, Waiters: o.Waiters, Queue: q, Log: slog.New(slog.DiscardHandler), Now: w.clock}
	}
}

// contested returns a world in which instance A holds the names of instance B, which was refused for them; a function that
// makes, and one that removes; and their queue.
func contested(t *testing.T) (*world, *converge.Converger, *converge.Converger, *woken) {
	t.Helper()
	w, q := newWorld(t), &woken{}
	makes, removes := w.converger(mayMake, w.wakes(q)), w.converger(mayRemove, w.wakes(q))
	w.launch(idA, 4)
	w.must(makes, idA, facts.Running, converge.Provisioned)
	w.launch(idB, 4)
	w.wantFault(makes, w.event(idB, facts.Running), fault.Refuse, "instance A holds the names", idA)
	return w, makes, removes, q
}

func TestReleasedName_WakesTheRefused(t *testing.T) {
	for name, release := range map[string]func(w *world, makes, removes *converge.Converger){
		"the holder is terminated": func(w *world, _, removes *converge.Converger) { w.mustEnd(removes) },
		"its group terminates it": func(w *world, _, removes *converge.Converger) {
			req := w.event(idA, facts.Running)
			req.Leaving = true
			w.mustAt(removes, req, converge.Deprovisioned)
		},
		"the holder got another name and its certificates ended": func(w *world, makes, _ *converge.Converger) {
			w.launch(idA, 9)
			w.must(makes, idA, facts.Running, converge.Provisioned)
			w.pass(400 * 24 * time.Hour)
			w.show(idA, addAddress)
			w.must(makes, idA, facts.Running, converge.Provisioned)
		},
	} {
		w, makes, removes, q := contested(t)
		release(w, makes, removes)
		if got := q.take(); !slices.Equal(slices.Compact(got), []string{idB}) {
			t.Errorf("%s: want instance B woken, got %q", name, got)
		}
		req := w.event(idB, facts.Running)
		req.Verify = true
		w.mustAt(makes, req, converge.Provisioned)
		w.wantGranted(idB)
	}
}

func TestHeldName_WaitsForALaunchHook(t *testing.T) {
	w, makes, removes, q := contested(t)
	req := w.event(idB, facts.Running)
	req.AwaitNames = w.clock().Add(10 * time.Minute)
	w.wantFault(makes, req, fault.Retry, "a launch hook waits", idA, "a launch hook waits for it until")
	w.pass(10 * time.Minute)
	w.wantFault(makes, req, fault.Refuse, "the hook has waited long enough", idA)
	w.setState(facts.ShuttingDown)
	w.wantFault(makes, req, fault.Retry, "the holder is ending", "its removal is awaited")
	w.mustEnd(removes)
	if got := q.take(); !slices.Equal(got, []string{idB}) {
		t.Errorf("want instance B woken once, got %q", got)
	}
	w.mustAt(makes, req, converge.Provisioned)
}

// The holder ends between the refused claim and the note that instance B waits: no later release wakes it.
func TestHeldName_ReleasedMeanwhileIsClaimed(t *testing.T) {
	w, makes, removes, _ := contested(t)
	w.Waiters = map[string][]facts.Ref{}
	isFirst := true
	w.fail = func(call string) error {
		if isFirst && call == "ledger add waiting "+idA {
			isFirst = false
			w.Claims = ledgertest.New().Claims
		}
		return nil
	}
	w.must(makes, idB, facts.Running, converge.Provisioned)
	_ = removes
}

// Without the note no release would wake instance B: it is tried again, and the reason stays in the message.
func TestRefusal_IsTriedAgainWithoutTheNote(t *testing.T) {
	w, makes, _, _ := contested(t)
	w.failAt("ledger add waiting "+idA, errDown)
	w.wantFault(makes, w.event(idB, facts.Running), fault.Retry, "the note fails", "holds it and is running")
}

// A removal is done when its names are free, whether or not anybody could be woken.
func TestRemoval_IsDoneWhenTheQueueIsDown(t *testing.T) {
	for _, call := range []string{"ledger waiting", "queue"} {
		w, makes, _, _ := contested(t)
		down := queueDown{}
		removes := w.converger(mayRemove, w.wakes(down))
		if call != "queue" {
			w.failAt(call, errDown)
		}
		w.mustEnd(removes)
		w.fail = nil
		w.must(makes, idB, facts.Running, converge.Provisioned)
	}
}

type queueDown struct{}

func (queueDown) Send(_ context.Context, live []event.Event) []error {
	errs := make([]error, len(live))
	for i := range errs {
		errs[i] = errDown
	}
	return errs
}

func TestWaiting_IsBounded(t *testing.T) {
	var list []facts.Ref
	for n := range 30 {
		list = ledger.WithWaiting(list, facts.Ref{ID: string(rune('a' + n))})
	}
	if len(list) != 20 || list[19].ID != string(rune('a'+29)) || len(ledger.WithWaiting(list, list[3])) != 20 {
		t.Errorf("want the latest 20, each once, got %v", list)
	}
}
