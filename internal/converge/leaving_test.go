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

// leaves returns the request for instance A as leaving: Auto Scaling terminates it, and EC2 shows it as running.
func (w *world) leaves() converge.Request {
	req := w.event(idA, facts.Running)
	req.Leaving = true
	return req
}

// restart stops and starts instance A.
func (w *world) restart() { w.show(idA, func(f *facts.Instance) { f.LaunchTime = w.clock() }) }

func TestLeaving_LosesAllAndRegainsNothing(t *testing.T) {
	w, c := provisioned(t, both)
	w.logIn(idA)
	w.pass(time.Minute)
	if o := w.mustAt(c, w.leaves(), converge.Deprovisioned); o.Cut != 1 {
		t.Fatalf("want the running instance's tokens cut, got %+v", o)
	}
	w.wantNothing(idA)
	w.pass(time.Minute)
	for _, state := range []facts.State{facts.Running, facts.Pending} {
		w.must(c, idA, state, converge.LeftAlone)
	}
	w.mustAt(c, verify(w, facts.Running), converge.LeftAlone) // by reconcile, which sees it run
	w.wantNothing(idA)
	w.setState(facts.Terminated)
	w.must(c, idA, facts.Terminated, converge.Unchanged)
}

func TestLeaving_RestartIsGrantedAgain(t *testing.T) {
	w, c := provisioned(t, both)
	w.mustAt(c, w.leaves(), converge.Deprovisioned)
	w.pass(time.Minute)
	w.restart()
	w.pass(time.Second)
	w.must(c, idA, facts.Running, converge.Provisioned)
	if err := w.granted(idA); err != nil || w.Records[idA].LeavingSince != nil {
		t.Errorf("want a whole grant and no mark, got %+v, %v", w.Records[idA], err)
	}
}

func TestLeaving_BeforeItsGrantGetsNone(t *testing.T) {
	w, c := launched(t, both)
	w.mustAt(c, w.leaves(), converge.Unchanged) // with a tombstone only
	w.pass(time.Minute)
	w.must(c, idA, facts.Running, converge.LeftAlone)
	if len(w.Objects) > 0 {
		t.Errorf("want nothing in Vault, got %v", w.Objects)
	}
	// A tombstone of an earlier removal is marked as well.
	w, c = launched(t, both)
	w.Records[idA] = ledger.Record{InstanceID: idA, Account: "123456789012", Region: "us-east-1", State: ledger.Deleted, Version: 1}
	if w.mustAt(c, w.leaves(), converge.Unchanged); w.Records[idA].LeavingSince == nil {
		t.Errorf("want the tombstone marked, got %+v", w.Records[idA])
	}
}

func TestLeaving_NeedsRemoveDutyAndOwnPlace(t *testing.T) {
	w, c := provisioned(t, both)
	w.mustAt(w.converger(mayMake), w.leaves(), converge.LeftAlone)
	elsewhere := w.leaves()
	elsewhere.Region = "eu-central-1"
	if _, err := c.Converge(t.Context(), elsewhere, sighting(w.ec2[idA])); !isFault(err, fault.Refuse) {
		t.Errorf("want the end refused that another region reports, got %v", err)
	}
	for path, o := range w.Objects {
		if text, ok := o["policy"].(string); ok {
			w.Objects[path]["policy"] = strings.Replace(text, "# deployment: vault-ec2\n", "# deployment: another\n", 1)
		}
	}
	if w.wantFault(c, w.leaves(), fault.Conflict, "another deployment has adopted it"); len(w.Objects) != 4 {
		t.Errorf("want an instance left alone that another deployment has adopted, got %v", w.Objects)
	}
}

func TestLeaving_FailedRemovalGrantsNothing(t *testing.T) {
	w, c := provisioned(t, both)
	w.breakOff(c, w.leaves(), "vault delete sys/policies", errDown)
	w.pass(2 * time.Minute)
	w.must(w.converger(mayMake), idA, facts.Running, converge.LeftAlone)
	w.mustRemove(c) // a function that may remove continues
	w.must(c, idA, facts.Running, converge.LeftAlone)
}

// An instance that its group retained, and that was stopped and started, has a second life and a second end. The mark of the
// first end is still there, unless a grant of the second life has cleared it.
func TestLeaving_SecondTimeIsMarkedAgain(t *testing.T) {
	w, c := provisioned(t, both)
	w.mustAt(c, w.leaves(), converge.Deprovisioned)
	w.pass(time.Hour)
	w.restart()
	w.pass(time.Minute)
	w.mustAt(c, w.leaves(), converge.Unchanged)
	w.pass(time.Minute)
	w.must(c, idA, facts.Running, converge.LeftAlone)
	w.wantNothing(idA)
}

// A successor may come before EC2 shows the leaving instance as gone. Its launch hook waits, and is not abandoned.
func TestLeaving_SuccessorWaitsForTheName(t *testing.T) {
	w, c := provisioned(t, both)
	w.launch(idB, 5)
	w.show(idB, func(f *facts.Instance) { f.PrivateDNSName = w.ec2[idA].PrivateDNSName })
	w.breakOff(c, w.leaves(), "vault delete sys/policies", errDown)
	provision := w.converger(mayMake)
	w.wantFault(provision, w.event(idB, facts.Running), fault.Retry, "the successor of a leaving holder waits")
	w.mustAt(c, w.leaves(), converge.Deprovisioned)
	w.must(provision, idB, facts.Running, converge.Provisioned)
}

// A profile stopped fitting before the group terminated the instance: its names were held for its certificates, and by AWS's
// own word it ends. A successor would otherwise wait until EC2 shows it as gone.
func TestLeaving_ReleasesTheNamesOfATombstone(t *testing.T) {
	w, c := provisioned(t, both)
	w.unmatch()
	w.must(c, idA, facts.Running, converge.Deprovisioned)
	if len(w.Claims) == 0 {
		t.Fatal("want the names held for certificates that are still good")
	}
	w.pass(time.Minute)
	w.mustAt(c, w.leaves(), converge.Unchanged)
	if r := w.Records[idA]; len(w.Claims) > 0 || len(r.Names()) > 0 || r.LeavingSince == nil {
		t.Errorf("want the tombstone marked and its names free, got %+v, %v", r, w.Claims)
	}
}
