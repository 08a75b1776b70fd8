package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// order carries out an order about the n-th instance.
func (w *world) order(mode Mode, n int) OrderAnswer {
	in := Input{Mode: mode, InstanceIDs: []string{id(n)}, By: "alice", Reason: "a strange login"}
	return w.reconciler().Order(w.t.Context(), in, w.converger(both, false))
}

// wantQuarantined fails unless an order cuts instance 1 off.
func (w *world) wantQuarantined() {
	w.t.Helper()
	a := w.order(Quarantine, 1)
	o := a.Instances[0]
	if !a.OK || o.Status != IsQuarantined || o.Error != "" || o.Quarantine == nil || o.Quarantine.By != "alice" || !strings.Contains(o.Next, "vault-ec2 release") {
		w.t.Fatalf("want the instance in quarantine, got %+v", a)
	}
	if left := w.under(id(1)); len(left) > 0 {
		w.t.Errorf("want nothing of the instance in Vault, got %v", left)
	}
}

func TestQuarantine_IsShownAndIsNoDrift(t *testing.T) {
	w := newWorld(t, 3)
	w.wantQuarantined()
	for _, after := range []time.Duration{0, time.Hour, 60 * 24 * time.Hour} {
		w.now = w.now.Add(after)
		for _, in := range []Input{{Mode: Detect}, {Mode: Correct}, {Mode: Correct, NamesOnly: true}, {Mode: Correct, Force: true, InstanceIDs: []string{id(1)}}} {
			a := w.wantNoDrift(in, "in quarantine")
			if len(a.Quarantined) != 1 || a.Quarantined[0].InstanceID != id(1) || a.Quarantined[0].Reason != "a strange login" {
				t.Errorf("want the instance shown as in quarantine, got %+v", a.Quarantined)
			}
		}
	}
	if a := w.run(w.reconciler(), Input{Mode: Detect, InstanceIDs: []string{id(2)}}); len(a.Quarantined) > 0 {
		t.Errorf("want only what was asked for, got %+v", a.Quarantined)
	}
	if left := w.under(id(1)); len(left) > 0 {
		t.Errorf("want nothing granted, got %v", left)
	}
}

func TestQuarantine_BrokenOffIsFinishedPastTheDeleteLimit(t *testing.T) {
	w := newWorld(t, 20)
	w.fail["delete"] = errStorage
	const many = 12 // more than the limit of 20 percent and of 5 instances
	for n := range many {
		if a := w.order(Quarantine, n); a.OK || a.Instances[0].Status != IsMarked || a.Instances[0].Error == "" || len(a.Unfinished) != 1 {
			t.Fatalf("want the mark, and the removal open, got %+v", a)
		}
	}
	delete(w.fail, "delete")
	w.now = w.now.Add(time.Hour)
	if a := w.reconcile(Input{Mode: Correct}); a.Blocked || a.Summary.Orphaned != many || a.Summary.Corrected != many {
		t.Errorf("want %d removals finished, got %+v\n%s", many, a.Summary, answerText(a))
	}
	w.wantNoDrift(Input{Mode: Correct}, "after that")
	if left := w.under(id(1)); len(left) > 0 {
		t.Errorf("want nothing left, got %v", left)
	}
}

// A record that was lost says nothing of the objects: the order finds them in Vault's lists.
func TestQuarantine_CutsObjectsOfALostRecord(t *testing.T) {
	w := newWorld(t, 3)
	w.forgetRecord(1)
	w.now = w.now.Add(time.Hour)
	w.wantQuarantined()
}

// An object that appears later, such as by an older program, is removed.
func TestQuarantine_LeftoverIsRemoved(t *testing.T) {
	w := newWorld(t, 3)
	kept := w.Objects[grant.AuthRolePath("aws", id(1))]
	policy := grant.PolicyPath(grant.PolicyName(id(1), "node"))
	keptPolicy := w.Objects[policy]
	w.wantQuarantined()
	w.Objects[grant.AuthRolePath("aws", id(1))], w.Objects[policy] = kept, keptPolicy
	w.now = w.now.Add(time.Hour)
	if a := w.reconcile(Input{Mode: Correct}); a.Summary.Orphaned == 0 || a.Summary.Corrected != a.Summary.Orphaned {
		t.Errorf("want the objects removed, got %s", answerText(a))
	}
	if left := w.under(id(1)); len(left) > 0 {
		t.Errorf("want nothing left, got %v", left)
	}
}

func TestQuarantine_EndsWithTheInstance(t *testing.T) {
	w := newWorld(t, 3)
	w.wantQuarantined()
	w.now = w.now.Add(time.Hour)
	delete(w.ec2, id(1))
	if a := w.reconcile(Input{Mode: Correct}); a.Summary.Orphaned != 1 || a.Summary.Corrected != 1 {
		t.Errorf("want the names given up, got %s", answerText(a))
	}
	if r := w.Records[id(1)]; r.ExpiresAt == 0 || r.Quarantine == nil || len(r.Names()) > 0 {
		t.Errorf("want a tombstone that expires and has the mark, got %+v", r)
	}
	if a := w.wantNoDrift(Input{Mode: Correct}, "after that"); len(a.Quarantined) > 0 {
		t.Errorf("want no instance in quarantine any more, got %+v", a.Quarantined)
	}
	// One that had no grant holds no name. Its record would stay for ever.
	f := w.ec2[id(2)]
	f.ID = id(7)
	w.launch(f)
	if a := w.order(Quarantine, 7); !a.OK {
		t.Fatalf("got %+v", a)
	}
	delete(w.ec2, id(7))
	w.now = w.now.Add(time.Hour)
	if a := w.reconcile(Input{Mode: Correct}); a.Summary.Corrected != 1 || w.Records[id(7)].ExpiresAt == 0 {
		t.Errorf("want the record to expire, got %s\n%+v", answerText(a), w.Records[id(7)])
	}
}

func TestRelease_GrantsAtOnce(t *testing.T) {
	w := newWorld(t, 3)
	w.wantQuarantined()
	w.now = w.now.Add(time.Hour)
	w.tick["describe"] = time.Second // EC2 is asked again after the release
	a := w.order(Release, 1)
	if o := a.Instances[0]; !a.OK || o.Status != IsReleased || len(o.Objects) == 0 || o.Quarantine.ReleasedAt == nil {
		t.Fatalf("want the instance released and granted, got %+v", a)
	}
	if err := w.granted(id(1)); err != nil {
		t.Error(err)
	}
	w.now = w.now.Add(time.Hour)
	w.wantNoDrift(Input{Mode: Correct}, "after the release")
	if a := w.order(Release, 1); a.OK || a.Instances[0].Status != IsRefused || !strings.Contains(a.Instances[0].Error, "not in quarantine") {
		t.Errorf("want a second release refused, got %+v", a)
	}
	if a := w.order(Quarantine, 99); a.OK || a.Instances[0].Status != IsRefused || w.Records[id(99)].InstanceID != "" {
		t.Errorf("want an unknown instance refused, got %+v", a)
	}
}

func TestQuarantine_IsExplained(t *testing.T) {
	w := newWorld(t, 3)
	a := w.order(Quarantine, 0)
	if !a.OK {
		t.Fatalf("got %+v", a)
	}
	for _, state := range []facts.State{facts.Running, facts.Stopped} {
		w.setState(state)
		e := w.explain()
		if e.Status != InQuarantine || e.OK || !strings.Contains(e.Summary, "a strange login") || !strings.Contains(e.Next, "vault-ec2 release") || e.Record.Quarantine == nil {
			t.Errorf("%s: want the quarantine and the next step, got %+v", state, e.Verdict)
		}
	}
}

func TestOrder_InputIsChecked(t *testing.T) {
	good := Input{Mode: Quarantine, InstanceIDs: []string{id(1)}, By: "alice", Reason: "a strange login"}
	if err := CheckInput(good); err != nil {
		t.Fatal(err)
	}
	for says, change := range map[string]func(*Input){
		"never means the whole fleet": func(in *Input) { in.InstanceIDs = nil },
		"needs 1 to 50":               func(in *Input) { in.InstanceIDs = make([]string, 51) },
		"twice":                       func(in *Input) { in.InstanceIDs = []string{id(1), id(1)} },
		"not the ID":                  func(in *Input) { in.InstanceIDs = []string{"i-*"} },
		"needs a reason":              func(in *Input) { in.Reason = "" },
		"needs by":                    func(in *Input) { in.By = "" },
		"not printable":               func(in *Input) { in.Reason = "a\nb" },
		"at most 300":                 func(in *Input) { in.Reason = strings.Repeat("x", 301) },
		"by has a character":          func(in *Input) { in.By = "\x1b[2J" },
		"leave profile":               func(in *Input) { in.Profile = "p" },
		"force":                       func(in *Input) { in.Force = true },
		"names and current":           func(in *Input) { in.Names = []string{"web-1"} },
		"go together":                 func(in *Input) { in.Account = "123456789012" },
		"by and reason are for":       func(in *Input) { in.Mode = Correct },
	} {
		in := good
		change(&in)
		if err := CheckInput(in); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error that says %q, got %v", says, err)
		}
	}
	good.Mode, good.Reason = Release, ""
	if err := CheckInput(good); err != nil {
		t.Errorf("a release needs no reason: %v", err)
	}
}

func TestQuarantine_RecordStaysInTheInventory(t *testing.T) {
	held := &inventory{listing: &listing{roster: newRoster()}, inFolder: map[string]int{}, limit: 10}
	held.addRecord(ledger.Record{InstanceID: id(1), State: ledger.Deleted, Quarantine: &ledger.Quarantine{By: "alice"}})
	if held.recordOf(id(1)) == nil || len(held.quarantined(Input{})) != 1 {
		t.Error("want the record of an instance in quarantine kept: without it the instance would be granted")
	}
}
