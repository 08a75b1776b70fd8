package converge_test

import (
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// leave converges instance A as leaving: Auto Scaling terminates it, and EC2 shows it as running.
func (w *world) leave(c *converge.Converger) (converge.Outcome, error) {
	w.t.Helper()
	req := request(idA, facts.Running, w.clock())
	req.Leaving = true
	return w.handleAt(c, req)
}

// restart stops and starts instance A.
func (w *world) restart() { w.show(idA, func(f *facts.Instance) { f.LaunchTime = w.clock() }) }

func TestLeaving_LosesAllAndRegainsNothing(t *testing.T) {
	w, c := provisioned(t, both)
	w.logIn(idA)
	w.pass(time.Minute)
	if o, err := w.leave(c); err != nil || o.Action != converge.Deprovisioned || o.Cut != 1 {
		t.Fatalf("want the running instance's grant removed and its tokens cut, got %+v, %v", o, err)
	}
	w.wantNothing(idA)
	w.pass(time.Minute)
	for _, state := range []facts.State{facts.Running, facts.Pending} {
		w.must(c, idA, state, converge.LeftAlone)
	}
	if o, err := w.handleAt(c, verify(w, facts.Running)); err != nil || o.Action != converge.LeftAlone { // by reconcile, which sees it run
		t.Errorf("want a leaving instance left without a grant, got %+v, %v", o, err)
	}
	w.wantNothing(idA)
	w.setState(facts.Terminated)
	w.must(c, idA, facts.Terminated, converge.Unchanged)
}

func TestLeaving_RestartIsGrantedAgain(t *testing.T) {
	w, c := provisioned(t, both)
	if _, err := w.leave(c); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	w.restart()
	w.pass(time.Second)
	w.must(c, idA, facts.Running, converge.Provisioned)
	if err := w.granted(idA); err != nil || w.Records[idA].LeavingSince != nil {
		t.Errorf("want a whole grant and no mark, got %+v, %v", w.Records[idA], err)
	}
}

func TestLeaving_BeforeItsGrantGetsNone(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	c := w.converger(both)
	if o, err := w.leave(c); err != nil || o.Action != converge.Unchanged {
		t.Fatalf("want a tombstone only, got %+v, %v", o, err)
	}
	w.pass(time.Minute)
	w.must(c, idA, facts.Running, converge.LeftAlone)
	if len(w.Objects) > 0 {
		t.Errorf("want nothing in Vault, got %v", w.Objects)
	}
	// A tombstone of an earlier removal is marked as well.
	w = newWorld(t)
	w.ec2[idA] = f
	w.Records[idA] = ledger.Record{InstanceID: idA, Account: f.Account, Region: f.Region, State: ledger.Deleted, Version: 1}
	c = w.converger(both)
	if _, err := w.leave(c); err != nil || w.Records[idA].LeavingSince == nil {
		t.Errorf("want the tombstone marked, got %+v, %v", w.Records[idA], err)
	}
}

func TestLeaving_NeedsRemoveDutyAndOwnPlace(t *testing.T) {
	w, _ := provisioned(t, both)
	if o, err := w.leave(w.converger(mayMake)); err != nil || o.Action != converge.LeftAlone {
		t.Errorf("want the grant left by a function that may not remove, got %+v, %v", o, err)
	}
	elsewhere := request(idA, facts.Running, w.clock())
	elsewhere.Leaving, elsewhere.Region = true, "eu-central-1"
	if _, err := w.converger(both).Converge(t.Context(), elsewhere, sighting(w.ec2[idA])); !isFault(err, fault.Refuse) {
		t.Errorf("want the end refused that another region reports, got %v", err)
	}
	for path, o := range w.Objects {
		if text, ok := o["policy"].(string); ok {
			w.Objects[path]["policy"] = strings.Replace(text, "# deployment: vault-ec2\n", "# deployment: another\n", 1)
		}
	}
	if _, err := w.leave(w.converger(both)); !isFault(err, fault.Conflict) || len(w.Objects) != 4 {
		t.Errorf("want an instance left alone that another deployment has adopted, got %v, %v", err, w.Objects)
	}
}

func TestLeaving_FailedRemovalGrantsNothing(t *testing.T) {
	w, c := provisioned(t, both)
	w.failAt("vault delete sys/policies", errDown)
	if _, err := w.leave(c); !isFault(err, fault.Retry) {
		t.Fatalf("want another try, got %v", err)
	}
	w.fail = nil
	w.pass(2 * time.Minute)
	w.must(w.converger(mayMake), idA, facts.Running, converge.LeftAlone)
	w.must(c, idA, facts.Running, converge.Deprovisioned) // a function that may remove continues
	w.wantNothing(idA)
	w.must(c, idA, facts.Running, converge.LeftAlone)
}

// An instance that its group retained, and that was stopped and started, has a second life and a second end. The mark of the
// first end is still there, unless a grant of the second life has cleared it.
func TestLeaving_SecondTimeIsMarkedAgain(t *testing.T) {
	w, c := provisioned(t, both)
	if _, err := w.leave(c); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Hour)
	w.restart()
	w.pass(time.Minute)
	if _, err := w.leave(c); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	w.must(c, idA, facts.Running, converge.LeftAlone)
	w.wantNothing(idA)
}

// A successor may come before EC2 shows the leaving instance as gone. Its launch hook waits, and is not abandoned.
func TestLeaving_SuccessorWaitsForTheName(t *testing.T) {
	w, c := provisioned(t, both)
	w.launch(idB, 5)
	w.show(idB, func(f *facts.Instance) { f.PrivateDNSName = w.ec2[idA].PrivateDNSName })
	w.failAt("vault delete sys/policies", errDown)
	if _, err := w.leave(c); err == nil {
		t.Fatal("want the removal broken off")
	}
	w.fail = nil
	provision := w.converger(mayMake)
	if _, err := w.handle(provision, idB, facts.Running); !isFault(err, fault.Retry) {
		t.Errorf("want the successor of a leaving holder to wait, got %v", err)
	}
	if _, err := w.leave(c); err != nil {
		t.Fatal(err)
	}
	w.must(provision, idB, facts.Running, converge.Provisioned)
}
