package reconcile

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// tearDown runs a teardown with the real converger.
func (w *world) tearDown(in Input) Answer {
	w.t.Helper()
	in.Mode = Teardown
	return w.reconciler().TearDown(w.t.Context(), in, w.converger(both, false), silent)
}

// live returns the instances with a record that is no tombstone.
func (w *world) live() []string {
	var ids []string
	for id, r := range w.Records {
		if r.State != ledger.Deleted {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func TestTeardown_RemovesAllOursWhileRunning(t *testing.T) {
	w := newWorld(t, 30)
	delete(w.Records, id(3)) // its record was lost: its markers prove the owner
	w.terminate(4)
	orphan := worker(31) // in Vault with our marker, and in no record
	w.makeObjects(orphan, w.realm)
	a := w.tearDown(Input{})
	if a.Blocked || a.Summary.Failed > 0 || a.Summary.Corrected != 31 || a.Cursor != nil {
		t.Errorf("want 31 instances removed, got %+v", a)
	}
	if len(w.Objects) > 0 || len(w.live()) > 0 {
		t.Errorf("want none of our objects left, got %v in Vault and the records %v", w.Objects, w.live())
	}
	if again := w.tearDown(Input{}); again.Summary != (Summary{}) || again.Blocked {
		t.Errorf("want nothing left to do the second time, got %+v", again)
	}
}

func TestTeardown_LeavesForeignObjects(t *testing.T) {
	w := newWorld(t, 3)
	other := grant.Realm{Deployment: "other", AuthMount: "aws"}
	w.makeObjects(worker(1), other) // adopted by another deployment, with a record of ours
	w.makeObjects(worker(7), other)
	w.Objects["sys/policies/acl/ec2-"+id(8)+"-node"] = map[string]any{"policy": "# by hand\n"}
	w.Objects["alice_cluster/pki/k8s/roles/"+id(9)+"-kubelet"] = map[string]any{} // of an unknown owner
	var theirs []string
	for _, n := range []int{1, 7, 8, 9} {
		theirs = append(theirs, w.under(id(n))...)
	}
	slices.Sort(theirs)
	a := w.tearDown(Input{})
	if left := slices.Sorted(maps.Keys(w.Objects)); !slices.Equal(left, theirs) {
		t.Errorf("want exactly the objects of other owners left\n%q\ngot\n%q", theirs, left)
	}
	if a.Summary.Conflicting != 1 || a.Summary.Failed != 0 || a.Summary.Corrected != 2 || !strings.Contains(a.Drift[1].Error+a.Drift[0].Error+a.Drift[2].Error, "deployment other") {
		t.Errorf("want one conflicting row, of the instance with a record of ours, that names the owner, got %+v", a)
	}
}

func TestTeardown_RemovesNothingAfterAFailedCall(t *testing.T) {
	for _, call := range []string{"list sys/policies/acl", "list auth/aws/role", "scan", "tear down"} {
		w := newWorld(t, 3)
		w.fail[call] = errStorage
		a := w.tearDown(Input{})
		if !a.Blocked || !strings.Contains(a.BlockedReason, errStorage.Error()) || len(w.deleted) > 0 || len(w.live()) != 3 {
			t.Errorf("%s fails: want nothing removed and the reason, got %+v, deleted %q", call, a, w.deleted)
		}
	}
}

func TestTornDown_IsNotRepaired(t *testing.T) {
	w := newWorld(t, 3)
	w.tearDown(Input{})
	if a := w.reconcile(Input{Mode: Correct}); !a.Blocked || !strings.Contains(a.BlockedReason, "torn down") || len(w.Objects) > 0 {
		t.Errorf("want nothing made again, and the reason, got %+v, %v", a, w.Objects)
	}
	if a := w.reconcile(Input{Mode: Detect}); a.Blocked || a.Summary.Missing == 0 {
		t.Errorf("want missing rows in mode detect, got %+v", a)
	}
	w.Teardown, w.now = nil, w.now.Add(time.Minute) // the item is deleted by hand
	if a := w.reconcile(Input{Mode: Correct}); a.Blocked || len(w.live()) != 3 {
		t.Errorf("want all grants made again once the deployment is taken up, got %+v", a)
	}
}

func TestTeardown_ContinuesAtItsCursor(t *testing.T) {
	w := newWorld(t, 240)
	w.tick["delete"] = 900 * time.Millisecond
	in, invocations := Input{}, 0
	var last Answer
	for ; invocations < 20; invocations++ {
		last = w.tearDown(in)
		if last.Cursor == nil {
			break
		}
		if in.Cursor != nil && last.Cursor.After <= in.Cursor.After {
			t.Fatalf("want the cursor to move on, got %s, then %s", in.Cursor.After, last.Cursor.After)
		}
		in.Cursor = last.Cursor
	}
	if invocations == 0 || last.Summary.Corrected != 240 || len(w.live()) > 0 || len(w.Objects) > 0 {
		t.Errorf("want 240 removed over several invocations, got %+v after %d, left %v", last.Summary, invocations, w.live())
	}
}

func TestTeardown_OfSomeInstancesNeedsOneOfAll(t *testing.T) {
	w := newWorld(t, 2)
	if a := w.tearDown(Input{InstanceIDs: []string{id(0)}}); !a.Blocked || len(w.live()) != 2 {
		t.Errorf("want nothing removed, got %+v", a)
	}
	for in, says := range map[*Input]string{
		{Mode: Teardown, Force: true}: "force", {Mode: Teardown, Profile: "x"}: "profile", {Mode: Correct, Confirm: "x"}: "confirm",
	} {
		if err := CheckInput(*in); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: want a refusal that names %s, got %v", *in, says, err)
		}
	}
}
