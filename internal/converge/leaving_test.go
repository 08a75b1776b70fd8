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

// leave has Auto Scaling terminate the first instance, which EC2 still shows as running.
func (w *world) leave(c *converge.Converger) (converge.Outcome, error) {
	w.t.Helper()
	t := trigger(idA, facts.Running, w.clock())
	t.Leaving = true
	return w.handleAt(c, t)
}

// restart has the first instance stopped and started.
func (w *world) restart() {
	f := w.ec2[idA]
	f.LaunchTime = w.clock()
	w.ec2[idA] = f
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func TestALeavingInstanceLosesAllWhileItRunsAndGetsNothingAgain(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.logIn(idA)
	w.pass(time.Minute)
	if o, err := w.leave(c); err != nil || o.Action != converge.Deprovisioned || o.Cut != 1 {
		t.Fatalf("want the running instance's grant removed and its tokens cut, got %+v, %v", o, err)
	}
	if err := w.nothing(idA); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	for _, state := range []facts.State{facts.Running, facts.Pending} {
		w.must(c, idA, state, converge.LeftAlone)
	}
	again := trigger(idA, facts.Running, w.clock())
	again.Verify = true // as reconcile hands it on, which sees it run
	if o, err := w.handleAt(c, again); err != nil || o.Action != converge.LeftAlone {
		t.Errorf("want an instance on its way out left without a grant, got %+v, %v", o, err)
	}
	if err := w.nothing(idA); err != nil {
		t.Error(err)
	}
	w.setState(facts.Terminated)
	w.must(c, idA, facts.Terminated, converge.Unchanged)
}

func TestALeavingInstanceThatWasStoppedAndStartedIsGrantedAnew(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	if _, err := w.leave(c); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	w.restart()
	w.pass(time.Second)
	w.must(c, idA, facts.Running, converge.Provisioned)
	if err := w.granted(idA); err != nil || w.Records[idA].LeavingSince != nil {
		t.Errorf("want a whole grant and the mark gone, got %+v, %v", w.Records[idA], err)
	}
}

func TestAnInstanceThatLeavesBeforeItsGrantIsMadeGetsNone(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	c := w.converger(both)
	if o, err := w.leave(c); err != nil || o.Action != converge.Unchanged {
		t.Fatalf("want a tombstone and nothing else, got %+v, %v", o, err)
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

func TestOnlyWhoMayRemoveAndOnlyFromItsOwnPlaceLetsAnInstanceLeave(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.must(w.converger(both), idA, facts.Running, converge.Provisioned)
	if o, err := w.leave(w.converger(converge.Duties{Make: true})); err != nil || o.Action != converge.LeftAlone {
		t.Errorf("want a function that may not remove to leave it, got %+v, %v", o, err)
	}
	elsewhere := trigger(idA, facts.Running, w.clock())
	elsewhere.Leaving, elsewhere.Region = true, "eu-central-1"
	if _, err := w.converger(both).Converge(t.Context(), elsewhere, sighting(w.ec2[idA])); err == nil || fault.KindOf(err) != fault.Refuse {
		t.Errorf("want an end told from another region refused, got %v", err)
	}
	for path, o := range w.Objects {
		if text, ok := o["policy"].(string); ok {
			w.Objects[path]["policy"] = strings.Replace(text, "# deployment: vault-ec2\n", "# deployment: another\n", 1)
		}
	}
	if _, err := w.leave(w.converger(both)); err == nil || fault.KindOf(err) != fault.Conflict || len(w.Objects) != 4 {
		t.Errorf("want what another deployment has taken over left alone, got %v, %v", err, w.Objects)
	}
}

func TestARemovalOfALeavingInstanceThatFailedHalfwayGoesOnAndNothingIsMadeMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.fail = func(_ int, call string) (error, bool) {
		if strings.HasPrefix(call, "vault delete sys/policies") {
			return errDown, false
		}
		return nil, false
	}
	if _, err := w.leave(c); err == nil || fault.KindOf(err) != fault.Retry {
		t.Fatalf("want it tried again, got %v", err)
	}
	w.fail = nil
	w.pass(2 * time.Minute)
	w.must(w.converger(converge.Duties{Make: true}), idA, facts.Running, converge.LeftAlone)
	w.must(c, idA, facts.Running, converge.Deprovisioned) // whoever may remove takes the broken-off removal up
	if err := w.nothing(idA); err != nil {
		t.Error(err)
	}
	w.must(c, idA, facts.Running, converge.LeftAlone)
}

// An instance that its group retained, stopped and started has a new life, and a second end: what no grant of the new
// life has cleared is the mark of the first.
func TestASecondLeavingIsMarkedAnew(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
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
	if err := w.nothing(idA); err != nil {
		t.Errorf("want an instance that leaves a second time left without a grant: %v", err)
	}
}

// Its successor may come before it is gone from EC2: a launch hook of that one waits and is not given up.
func TestTheNameOfAnInstanceThatLeavesIsAwaitedAndNotRefused(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	b := w.launch(idB, 5)
	b.PrivateDNSName = w.ec2[idA].PrivateDNSName
	w.ec2[idB] = b
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.fail = func(_ int, call string) (error, bool) {
		if strings.HasPrefix(call, "vault delete sys/policies") {
			return errDown, false
		}
		return nil, false
	}
	if _, err := w.leave(c); err == nil {
		t.Fatal("want the removal broken off")
	}
	w.fail = nil
	provision := w.converger(converge.Duties{Make: true})
	if _, err := w.handle(provision, idB, facts.Running); fault.KindOf(err) != fault.Retry || err == nil {
		t.Errorf("the holder is on its way out: want its successor to wait, got %v", err)
	}
	if _, err := w.leave(c); err != nil {
		t.Fatal(err)
	}
	w.must(provision, idB, facts.Running, converge.Provisioned)
}
