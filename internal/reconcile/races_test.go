package reconcile

import (
	"context"
	"log/slog"
	"maps"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// TestWhatEndsBetweenVaultsListsAndTheLedgersIsNoDrift has the lists of Vault say one thing and the ledger, read a
// moment later, another, with all in order.
func TestWhatEndsBetweenVaultsListsAndTheLedgersIsNoDrift(t *testing.T) {
	for name, happens := range map[string]func(w *world) (between func()){
		"an instance is granted": func(w *world) func() {
			f := w.launch(worker(9))
			return func() { w.provision(f) }
		},
		"an instance is removed that EC2 still shows": func(w *world) func() {
			w.terminate(1)
			w.Add(alias(id(1)), id(1))
			return func() { w.remove(id(1)) }
		},
		"an instance is removed that EC2 shows no more": func(w *world) func() {
			delete(w.ec2, id(1))
			return func() { w.remove(id(1)) }
		},
	} {
		w := newWorld(t, 3)
		between := happens(w)
		var before map[string]map[string]any
		a := w.reconcile(Input{Mode: Correct}, func(o *Options) {
			o.Ledger = interrupted{Client: w.ledger(), before: func() {
				between()
				before = maps.Clone(w.Objects)
			}}
		})
		if len(a.Drift) > 0 || a.Blocked || len(w.touched(before))+len(w.cut) > 0 {
			t.Errorf("%s: want no row and nothing done about what is in order, touched %q, cut %q\n%s", name, w.touched(before), w.cut, told(a))
		}
	}
}

// TestTwoRunsAtOnceLeaveNoDrift has both repair and remove the same instances. One may find the other's lease; the next
// run mends what is left.
func TestTwoRunsAtOnceLeaveNoDrift(t *testing.T) {
	for range 6 {
		w := newWorld(t, 16)
		w.spoil(2)
		for n := range 4 {
			w.terminate(n)
		}
		done := make(chan Answer, 2)
		for range 2 {
			go func() { done <- w.reconcile(Input{Mode: Correct}) }()
		}
		first, second := <-done, <-done
		w.now = w.now.Add(2 * time.Minute) // past every lease
		third := w.reconcile(Input{Mode: Correct})
		if a := w.reconcile(Input{Mode: Detect}); len(a.Drift) > 0 {
			t.Fatalf("want no drift after one more run, got\n%s\nthe runs before:\n%s\n%s\n%s", told(a), told(first), told(second), told(third))
		}
		for n := range 4 {
			if err := w.removed(id(n)); err != nil {
				t.Fatalf("want what ended removed: %v", err)
			}
		}
	}
}

// TestWhatWaitsLongForItsRepairIsLookedAtOnceMore has a slow Vault: lifecycle makes no grant from a look at EC2 that is
// older than half a minute, and the last of those that were looked at together come later than that.
func TestWhatWaitsLongForItsRepairIsLookedAtOnceMore(t *testing.T) {
	w := newWorld(t, chunk)
	spoiled := w.spoil(1)
	slow := slowly{w.converger(both, false), w}
	a := w.reconciler().Run(t.Context(), Input{Mode: Correct}, slow, Observer{Log: slog.New(slog.DiscardHandler)})
	if a.Summary != (Summary{Missing: spoiled, Corrected: spoiled}) {
		t.Errorf("want all %d repaired however long the first take, got\n%s", spoiled, told(a))
	}
}

// slowly is lifecycle with a Vault that takes its time.
type slowly struct {
	*converge.Converger
	w *world
}

func (s slowly) Converge(ctx context.Context, t converge.Request, i instance.Sighting) (converge.Outcome, error) {
	s.w.mu.Lock()
	s.w.now = s.w.now.Add(700 * time.Millisecond)
	s.w.mu.Unlock()
	return s.Converger.Converge(ctx, t, i)
}

// TestRecord_HidesNoInstanceByItsTimes has records written by hand that would have every run wait for ever.
func TestRecord_HidesNoInstanceByItsTimes(t *testing.T) {
	far := start.Add(24 * time.Hour)
	for name, forge := range map[string]func(*ledger.Record){
		"a lease":        func(r *ledger.Record) { r.LeaseOwner, r.LeaseExpiresAt = "nobody", far.UnixMilli() },
		"a quiet time":   func(r *ledger.Record) { r.QuietUntil = &far },
		"its last write": func(r *ledger.Record) { r.UpdatedAt = far },
	} {
		for _, gone := range []bool{false, true} {
			w := newWorld(t, 3)
			w.loosen(grant.AuthRolePath("aws", id(1)), "auth_type", "iam")
			if gone {
				delete(w.ec2, id(1))
			}
			r := w.Records[id(1)]
			forge(&r)
			w.Records[id(1)] = r
			if a := w.run(w.reconciler(), Input{Mode: Detect}); len(a.Drift) == 0 || a.Drift[0].InstanceID != id(1) {
				t.Errorf("%s far ahead, instance gone: %v: want its drift told, got\n%s", name, gone, told(a))
			}
		}
	}
}
