package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// TestRepair_ToGrantNeverRemoves has EC2 show no role in the second look, so that no profile fits. Removals were not in
// the plan, and no limit was applied to them.
func TestRepair_ToGrantNeverRemoves(t *testing.T) {
	for name, doubt := range map[string]error{"all could be read": nil, "a list failed": errStorage} {
		w := newWorld(t, 2*alwaysDeleted)
		spoiled := w.spoil(1)
		w.fail["list auth/aws/role"] = doubt
		before := maps.Clone(w.Objects)
		a := w.reconcile(Input{Mode: Correct}, w.seeing(noRole))
		w.wantUntouched(before, name, a) // only a planned removal is limited
		if a.Blocked != (doubt != nil) || a.Summary != (Summary{Missing: spoiled, Failed: spoiled}) || !strings.Contains(a.Drift[0].Error, "left to the next run") {
			t.Errorf("%s: want each row left to the next run, got\n%s", name, answerText(a))
		}
	}
}

// A run that began before other profiles became active must not remove what those grant. What has ended is removed all the same.
func TestOtherProfiles_StopRemovalsOfLiveInstances(t *testing.T) {
	w := newWorld(t, 2)
	w.launch(noRole(w.ec2[id(0)]))
	w.terminate(1)
	became := errors.New("other profiles became active")
	check := func(o *Options) { o.CheckProfiles = func(context.Context) error { return became } }
	a := w.reconcile(Input{Mode: Correct}, check)
	if len(w.under(id(0))) == 0 || !strings.Contains(answerText(a), "other profiles became active: left to the next run") {
		t.Errorf("no profile of this run fits a live instance: want its grant left to the next run, got\n%s", answerText(a))
	}
	w.wantRemoved(id(1), "it has ended", a)
	became = nil
	w.wantRemoved(id(0), "the profiles are the active ones", w.reconcile(Input{Mode: Correct}, check))
}

// TestDeleteLimit_CoversUnmatchedInstances has both looks at EC2 show no role.
func TestDeleteLimit_CoversUnmatchedInstances(t *testing.T) {
	for n, blocked := range map[int]bool{alwaysDeleted: false, alwaysDeleted + 1: true} {
		w := newWorld(t, n)
		for _, f := range w.ec2 {
			w.launch(noRole(f))
		}
		before := maps.Clone(w.Objects)
		a := w.reconcile(Input{Mode: Correct})
		if a.Blocked != blocked {
			t.Errorf("%d of %d instances: want removals blocked: %v, got\n%s", n, n, blocked, answerText(a))
		}
		if blocked {
			w.wantUntouched(before, "a wrong answer of AWS about a whole fleet", a)
			continue
		}
		for id := range w.ec2 {
			w.wantRemoved(id, "one of few", a)
		}
	}
}

// TestDeleteLimit_CoversTakeOvers has names pass from ended instances to new ones. That removes the holders, so the
// limit applies.
func TestDeleteLimit_CoversTakeOvers(t *testing.T) {
	w := newWorld(t, 12)
	const taken = alwaysDeleted + 1
	for n := range taken {
		w.launchAs(n, id(100+n))
		delete(w.ec2, id(n))
	}
	before := maps.Clone(w.Objects)
	a := w.reconcile(Input{Mode: Correct})
	if touched := w.touched(before); !a.Blocked || len(touched)+len(w.cut) > 0 {
		t.Errorf("want %d removals of 12 blocked in every way, touched %q, cut %q\n%s", taken, touched, w.cut, answerText(a))
	}
	a = w.reconcile(Input{Mode: Correct, Force: true})
	for n := range taken {
		if err := w.granted(id(100 + n)); err != nil || len(w.under(id(n))) > 0 {
			t.Errorf("forced: want the successor granted and its predecessor removed, left are %q: %v\n%s", w.under(id(n)), err, answerText(a))
		}
	}
}

// TestName_PassesToItsSuccessorInOneRun has the removal of a name's holder and the grant of its successor in one plan.
func TestName_PassesToItsSuccessorInOneRun(t *testing.T) {
	for _, successor := range []string{id(3), "i-00000000000000000"} { // after the holder in the order of IDs, and before
		for range 10 {
			w := newWorld(t, 3)
			f := w.launchAs(2, successor)
			delete(w.ec2, id(2))
			a := w.reconcile(Input{Mode: Correct})
			if err := w.granted(f.ID); err != nil || a.Summary != (Summary{Missing: 1, Orphaned: 1, Corrected: 2}) {
				t.Fatalf("want the holder removed and its successor granted in one run: %v\n%s", err, answerText(a))
			}
		}
	}
}

// TestBlockedDelete_KeepsStaleObjects has a missing policy and a recorded role that the profile does not make any more.
// One run of converge would make the one and delete the other.
func TestBlockedDelete_KeepsStaleObjects(t *testing.T) {
	w := newWorld(t, 3)
	stale := "alice_cluster/pki/k8s/roles/" + id(1) + "-old"
	w.edit(id(1), func(r *ledger.Record) {
		r.Objects = append(slices.Clone(r.Objects), ledger.Object{Kind: grant.KindPKIRole, Path: stale})
	})
	w.Objects[stale] = map[string]any{}
	delete(w.Objects, grant.PolicyPath(grant.PolicyName(id(1), "node")))
	w.fail["list auth/aws/role"] = errStorage
	before := maps.Clone(w.Objects)
	a := w.reconcile(Input{Mode: Correct})
	if touched := w.touched(before); !a.Blocked || len(touched) > 0 || a.Summary.Corrected > 0 {
		t.Errorf("want nothing touched while nothing may be deleted, touched %q\n%s", touched, answerText(a))
	}
	w.fail["list auth/aws/role"] = nil
	a = w.reconcile(Input{Mode: Correct})
	if err := w.granted(id(1)); err != nil || w.Objects[stale] != nil || a.Blocked {
		t.Errorf("want both done once deletes are allowed: the stale role exists: %v; %v\n%s", w.Objects[stale] != nil, err, answerText(a))
	}
}

// TestDeleteLimit_IgnoresLoginLeftovers has one instance to remove, and more login entities of former instances than
// the limit allows removals.
func TestDeleteLimit_IgnoresLoginLeftovers(t *testing.T) {
	w := newWorld(t, 20)
	for n := range 2 * alwaysDeleted {
		w.remove(id(n))
		delete(w.ec2, id(n))
		w.Add(alias(id(n)), id(n))
	}
	w.now = w.now.Add(24 * time.Hour)
	w.terminate(15)
	a := w.reconcile(Input{Mode: Correct})
	if err := w.removed(id(15)); err != nil || a.Blocked {
		t.Errorf("want one removal of ten recorded instances not held up by login leftovers: %v\n%s", err, answerText(a))
	}
	for n := range 2 * alwaysDeleted {
		if !slices.Contains(w.cut, id(n)) || len(w.Entities) > 0 {
			t.Fatalf("want the login leftovers of %s removed, cut %q", id(n), w.cut)
		}
	}
}

// TestSameNameStack_InstanceIsNeverRemoved has two stacks with one deployment name and one Vault, each with its
// own region and ledger. This one finds the other's instances marked as its own, without a record, and EC2 does not list them.
// Only their auth role names another region, and it is made last.
func TestSameNameStack_InstanceIsNeverRemoved(t *testing.T) {
	w := newWorld(t, 10)
	f := worker(50)
	f.Region = "eu-west-1"
	w.makeObjects(w.launch(f), w.realm)
	role := grant.AuthRolePath("aws", f.ID)
	w.Objects[role] = map[string]any{"auth_type": "ec2", "bound_account_id": []any{here.Account}, "bound_region": []any{f.Region}}
	before := maps.Clone(w.Objects)
	for name, arrange := range map[string]func(){"the whole grant is listed": func() {}, "the auth role is made after its list was read": func() { w.makeLate("auth/aws/role", f.ID) }} {
		arrange()
		a := w.reconcile(Input{Mode: Correct})
		w.wantUntouched(before, name, a)
	}
}

// TestHeldNames_EndWithTheInstance has an instance that loses its profile, keeps its names while it lives, and ends
// without an event.
func TestHeldNames_EndWithTheInstance(t *testing.T) {
	w := newWorld(t, 20)
	f := w.launch(noRole(w.ec2[id(3)]))
	run := func() Answer {
		w.now = w.now.Add(time.Hour)
		return w.reconcile(Input{Mode: Correct})
	}
	if a := run(); a.Summary != (Summary{Changed: 1, Corrected: 1}) {
		t.Fatalf("want the grant removed, got\n%s", answerText(a))
	}
	held := func() (n int) {
		for _, c := range w.Claims {
			if c.InstanceID == f.ID {
				n++
			}
		}
		return n
	}
	kept := held()
	if a := run(); len(a.Drift) > 0 || kept == 0 || held() != kept {
		t.Errorf("want no drift, and the names held while their certificates may be good, got %d and then %d held\n%s", kept, held(), answerText(a))
	}
	delete(w.ec2, f.ID)
	if a := run(); a.Summary != (Summary{Orphaned: 1, Corrected: 1}) || held() > 0 {
		t.Errorf("want the names released, as no other run would; %d held, got\n%s", held(), answerText(a))
	}
	if a := run(); len(a.Drift) > 0 {
		t.Errorf("want nothing left to do, got\n%s", answerText(a))
	}
}
