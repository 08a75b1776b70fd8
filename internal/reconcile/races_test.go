package reconcile

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// TestChangeBetweenLists_IsNoDrift has a correct change between the lists of Vault and the read of the
// ledger, which therefore differ.
func TestChangeBetweenLists_IsNoDrift(t *testing.T) {
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
		w.before = func(kind, _ string) {
			if kind == "scan" {
				between()
				before = maps.Clone(w.Objects)
			}
		}
		a := w.reconcile(Input{Mode: Correct})
		if len(a.Drift) > 0 || a.Blocked || len(w.touched(before))+len(w.cut) > 0 {
			t.Errorf("%s: want no row and nothing touched, touched %q, cut %q\n%s", name, w.touched(before), w.cut, answerText(a))
		}
	}
}

// By the time when the last instances of a large fleet are compared, the lists and the scan are minutes old. What was changed since, by
// an event, is no drift.
func TestOldReading_MakesNoRow(t *testing.T) {
	for name, happens := range map[string]func(w *world) (late func()){
		"an instance is granted": func(w *world) func() {
			return func() { w.provision(w.launch(worker(9))) }
		},
		"an instance gets another address": func(w *world) func() {
			return func() {
				f := w.ec2[id(1)]
				f.IPv4s = worker(77).IPv4s
				w.provision(w.launch(f))
				w.edit(id(1), func(r *ledger.Record) { r.Version = 2 })
			}
		},
		"an instance ends and is removed": func(w *world) func() {
			w.Add(alias(id(1)), id(1))
			return func() {
				delete(w.ec2, id(1))
				w.remove(id(1))
				delete(w.Entities, alias(id(1)))
			}
		},
		"untracked objects without a record are removed": func(w *world) func() {
			f := worker(9)
			f.State = facts.Terminated
			w.makeObjects(worker(9), w.realm)
			return func() {
				w.provision(w.launch(f))
				w.remove(f.ID)
			}
		},
		"an object of no record is deleted by its owner": func(w *world) func() {
			path := grant.PKIRolePath("alice_cluster/pki/k8s", grant.ObjectName(id(9), "theirs"))
			w.Objects[path] = map[string]any{}
			return func() { delete(w.Objects, path) }
		},
		"a name goes to another instance": func(w *world) func() {
			w.launchAs(1, id(9)) // waits for the name
			return func() {
				w.terminate(1)
				w.remove(id(1))
				w.provision(w.ec2[id(9)])
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 8)
			late := happens(w)
			var before map[string]map[string]any
			w.before = func(kind, _ string) {
				if kind == "list "+here.Region && before == nil {
					w.now = w.now.Add(8 * time.Minute)
					late()
					before = maps.Clone(w.Objects)
				}
			}
			a := w.reconcile(Input{Mode: Correct})
			if len(a.Drift) > 0 || a.Blocked || len(w.touched(before))+len(w.cut) > 0 {
				t.Errorf("want no row and nothing touched, touched %q, cut %q\n%s", w.touched(before), w.cut, answerText(a))
			}
		})
	}
}

// TestRuns_AtOnceLeaveNoDrift has two runs repair and remove the same instances. One may meet the other's lease; the next run
// repairs the rest.
func TestRuns_AtOnceLeaveNoDrift(t *testing.T) {
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
			t.Fatalf("want no drift after one more run, got\n%s\nthe runs before:\n%s\n%s\n%s", answerText(a), answerText(first), answerText(second), answerText(third))
		}
		for n := range 4 {
			w.wantRemoved(id(n), "it has ended", third)
		}
	}
}

// TestRepair_RefreshesStaleFacts has a slow Vault. Converge makes no grant by facts older than half a minute,
// and the last instances of a look have to wait longer than that.
func TestRepair_RefreshesStaleFacts(t *testing.T) {
	w := newWorld(t, chunk)
	spoiled := w.spoil(1)
	slow := slowly{w.converger(both, false), w}
	a := w.reconciler().Run(t.Context(), Input{Mode: Correct}, slow, silent)
	if a.Summary != (Summary{Missing: spoiled, Corrected: spoiled}) {
		t.Errorf("want all %d repaired, however long the first ones take, got\n%s", spoiled, answerText(a))
	}
}

// slowly is a converger with a slow Vault.
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

// TestRecord_FutureTimesHideNoDrift has records written by hand, with times for which a run could wait for ever.
func TestRecord_FutureTimesHideNoDrift(t *testing.T) {
	far := start.Add(24 * time.Hour)
	for name, forge := range map[string]func(*ledger.Record){
		"a lease":        func(r *ledger.Record) { r.LeaseOwner, r.LeaseExpiresAt = "another run", far.UnixMilli() },
		"a quiet time":   func(r *ledger.Record) { r.QuietUntil = &far },
		"its last write": func(r *ledger.Record) { r.UpdatedAt = far },
	} {
		for _, gone := range []bool{false, true} {
			w := newWorld(t, 3)
			w.loosen(grant.AuthRolePath("aws", id(1)), "auth_type", "iam")
			if gone {
				delete(w.ec2, id(1))
			}
			w.edit(id(1), forge)
			if a := w.run(w.reconciler(), Input{Mode: Detect}); len(a.Drift) == 0 || a.Drift[0].InstanceID != id(1) {
				t.Errorf("%s far ahead, instance gone: %v: want its drift reported, got\n%s", name, gone, answerText(a))
			}
		}
	}
}
