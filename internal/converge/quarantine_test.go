package converge_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

func (w *world) quarantines(id string) converge.Request {
	req := w.event(id, "")
	req.Quarantine = &converge.Order{By: "alice", Reason: "a strange login", Source: ledger.ByCommand}
	return req
}

func (w *world) releases() converge.Request {
	req := w.event(idA, "")
	req.Release = &converge.Order{By: "bob", Reason: "a false alarm"}
	return req
}

func (w *world) findings(id string) converge.Request {
	req := w.quarantines(id)
	req.Quarantine.Source, req.Quarantine.LastSeen = ledger.ByFinding, w.clock()
	return req
}

// wantCut fails unless instance A is in quarantine without an object and a token, and holds its names.
func (w *world) wantCut(names int) {
	w.t.Helper()
	r := w.Records[idA]
	for path := range w.Objects {
		if strings.Contains(path, idA) {
			w.t.Errorf("want nothing of the instance in Vault, got %s", path)
		}
	}
	held := 0
	for _, c := range w.Claims {
		if c.InstanceID == idA {
			held++
		}
	}
	if !r.InQuarantine() || r.State != ledger.Deleted || r.ExpiresAt != 0 || held != names || w.hasTokens(idA) {
		w.t.Errorf("want a record in quarantine that never expires, %d names and no tokens, got %d names, %+v", names, held, r)
	}
}

func TestQuarantine_CutsAndNoTriggerGrantsAgain(t *testing.T) {
	w, c := provisioned(t, both)
	w.logIn(idA)
	names := len(w.Records[idA].Claims)
	w.pass(time.Minute)
	o := w.mustAt(c, w.quarantines(idA), converge.Deprovisioned)
	if o.Cut != 1 || o.Quarantined == nil || o.Quarantined.By != "alice" || o.Quarantined.Reason != "a strange login" {
		t.Errorf("want one entity cut and the mark, got %+v", o)
	}
	w.wantCut(names)
	leaving, volume := w.leaves(), w.event(idA, facts.Running)
	volume.Volume = converge.VolumeReplacing
	late := w.event(idA, facts.Running)
	for _, by := range []*converge.Converger{c, w.converger(mayMake), w.converger(mayRemove)} {
		for range 2 {
			w.pass(40 * 24 * time.Hour) // longer than a tombstone and a certificate
			for what, req := range map[string]converge.Request{
				"running": w.event(idA, facts.Running), "pending": w.event(idA, facts.Pending), "reconcile": verify(w, facts.Running),
				"terminating": leaving, "a volume": volume, "late": late, "again": w.quarantines(idA),
			} {
				if got, err := w.handleAt(by, req); err != nil || got.Quarantined != nil {
					t.Errorf("%s: want nothing done, got %+v, %v", what, got, err)
				}
				w.wantCut(names)
			}
		}
	}
	w.restart()
	w.must(c, idA, facts.Running, converge.InQuarantine)
	w.unmatch()
	w.must(c, idA, facts.Running, converge.Unmatched)
	w.wantCut(names)
}

func TestQuarantine_HoldsNamesUntilTheInstanceEnds(t *testing.T) {
	w, c := provisioned(t, both)
	w.mustAt(c, w.quarantines(idA), converge.Deprovisioned)
	w.pass(400 * 24 * time.Hour)
	w.launch(idB, 4) // the same name and address
	w.wantFault(c, w.event(idB, facts.Running), fault.Refuse, "its names are held", "in quarantine")
	w.setState(facts.Terminated)
	w.must(c, idA, facts.Terminated, converge.Unchanged)
	r := w.Records[idA]
	if r.Quarantine == nil || r.Quarantine.EndedAt == nil || r.ExpiresAt == 0 {
		t.Errorf("want a tombstone with the mark that expires, got %+v", r)
	}
	w.must(c, idB, facts.Running, converge.Provisioned)
}

// A wrong answer of EC2 about the end must not end a quarantine.
func TestQuarantine_OutlivesAnEndThatWasNone(t *testing.T) {
	w, c := provisioned(t, both)
	w.mustAt(c, w.quarantines(idA), converge.Deprovisioned)
	w.setState(facts.Terminated)
	w.must(c, idA, facts.Terminated, converge.Unchanged)
	w.setState(facts.Running)
	w.pass(time.Minute)
	w.must(w.converger(mayMake), idA, facts.Running, converge.InQuarantine)
	w.must(c, idA, facts.Running, converge.InQuarantine)
	w.wantCut(0)
}

func TestQuarantine_NeedsNoGrantAndNoRecord(t *testing.T) {
	w, c := launched(t, both)
	w.mustAt(c, w.quarantines(idA), converge.InQuarantine)
	w.pass(time.Minute)
	w.must(c, idA, facts.Running, converge.InQuarantine)
	w.wantCut(0)
}

func TestQuarantine_MarksBeforeVaultIsTouched(t *testing.T) {
	for _, prefix := range []string{"vault", "ec2", "vault delete auth", "vault cut", "vault delete sys", "vault delete alice"} {
		w, c := provisioned(t, both)
		w.logIn(idA)
		names := len(w.Records[idA].Claims)
		w.failAt(prefix, errors.New("away"))
		done, err := w.handleAt(c, w.quarantines(idA))
		if (err == nil && prefix != "ec2") || done.Quarantined == nil {
			t.Fatalf("%s fails: want the mark and an error, got %+v, %v", prefix, done, err)
		}
		for _, retry := range []converge.Request{w.event(idA, facts.Running), w.quarantines(idA)} {
			if o, _ := w.handleAt(w.converger(mayMake), retry); o.Action == converge.Provisioned {
				t.Errorf("%s fails: want no grant after the mark, got %+v", prefix, o)
			}
		}
		w.fail = nil
		w.pass(ledger.LeaseTime + time.Second)
		if _, err := w.handleAt(c, verify(w, facts.Running)); err != nil { // as reconcile does
			t.Errorf("%s fails: %v", prefix, err)
		}
		w.wantCut(names)
	}
}

// The run is killed at each call: it writes nothing after that.
func TestQuarantine_SurvivesKillAtAnyCall(t *testing.T) {
	for n := 1; ; n++ {
		w, c := provisioned(t, both)
		w.logIn(idA)
		names := len(w.Records[idA].Claims)
		calls := 0
		w.fail = func(string) error {
			if calls++; calls >= n {
				return errors.New("killed")
			}
			return nil
		}
		_, err := w.handleAt(c, w.quarantines(idA))
		w.fail = nil
		if err == nil && calls < n {
			break
		}
		marked := w.Records[idA]
		w.pass(ledger.LeaseTime + time.Second)
		if marked.InQuarantine() {
			w.handleAndIgnore(w.converger(mayMake), w.event(idA, facts.Running))
			w.handleAndIgnore(c, verify(w, facts.Running))
		}
		w.pass(ledger.LeaseTime + time.Second)
		w.handleAndIgnore(c, w.quarantines(idA))
		w.wantCut(names)
		if t.Failed() {
			t.Fatalf("killed at call %d", n)
		}
	}
}

func (w *world) handleAndIgnore(c *converge.Converger, req converge.Request) {
	_, _ = w.handleAt(c, req)
}

// Provision is killed, or paused, between any two of its calls, and the instance is put into quarantine there.
func TestQuarantine_WinsAgainstAProvisionRunMidway(t *testing.T) {
	for n := 1; ; n++ {
		w, c := launched(t, both)
		maker := w.converger(mayMake, func(o *converge.Options) { o.NewOwner = func() string { return "the provision run" } })
		calls, ordered := 0, error(nil)
		inside := false
		w.fail = func(string) error {
			if inside {
				return nil
			}
			if calls++; calls == n {
				inside = true
				w.mu.Unlock()
				_, ordered = w.handleAt(c, w.quarantines(idA))
				w.mu.Lock()
				inside = false
			}
			return nil
		}
		got, _ := w.handleAt(maker, w.event(idA, facts.Running))
		w.fail = nil
		if calls < n {
			break
		}
		marked := w.Records[idA]
		switch {
		case ordered != nil && !errors.Is(ordered, ledger.ErrChanged):
			t.Errorf("call %d: want the order done or busy, got %v", n, ordered)
		case marked.InQuarantine() && got.Action == converge.Provisioned && ordered == nil:
			t.Errorf("call %d: want no grant after the mark, got %+v", n, got)
		}
		w.pass(time.Second)
		w.handleAndIgnore(c, w.quarantines(idA))
		if w.wantCutOrHeld(); t.Failed() {
			t.Fatalf("quarantined at call %d", n)
		}
	}
}

// wantCutOrHeld is wantCut for any number of names.
func (w *world) wantCutOrHeld() {
	w.t.Helper()
	n := 0
	for _, c := range w.Claims {
		if c.InstanceID == idA {
			n++
		}
	}
	w.wantCut(n)
}

func TestQuarantine_OfConflictKeepsMarkAndTriesAgain(t *testing.T) {
	w, c := provisioned(t, both)
	w.pass(10 * time.Minute)
	w.Objects[policyA]["policy"] = "path \"x\" {}"
	done, err := w.handleAt(c, w.quarantines(idA))
	if !isFault(err, fault.Conflict) || done.Quarantined == nil {
		t.Fatalf("want the mark and a conflict, got %+v, %v", done, err)
	}
	w.wantFault(c, w.releases(), fault.Conflict, "a removal that is not done is not released")
	delete(w.Objects, policyA)
	w.pass(time.Minute)
	w.mustAt(c, verify(w, facts.Running), converge.Deprovisioned)
	w.wantCutOrHeld()
}

func TestRelease_GrantsAsForANewStart(t *testing.T) {
	w, c := provisioned(t, both)
	w.logIn(idA)
	first := w.roleID()
	w.mustAt(c, w.quarantines(idA), converge.Deprovisioned)
	w.pass(time.Hour)
	o := w.mustAt(c, w.releases(), converge.InQuarantine)
	if o.Released == nil || o.Released.ReleasedBy != "bob" || o.Released.By != "alice" {
		t.Errorf("want the release with both persons, got %+v", o.Released)
	}
	if len(w.Objects) > 0 {
		t.Errorf("want no grant by the release itself, got %v", w.Objects)
	}
	w.pass(time.Second)
	w.must(c, idA, facts.Running, converge.Provisioned)
	if err := w.granted(idA); err != nil || w.roleID() == first {
		t.Errorf("want a grant with another role_id than %s, got %s, %v", first, w.roleID(), err)
	}
	if r := w.Records[idA]; r.InQuarantine() || r.Quarantine == nil {
		t.Errorf("want the mark kept as released, got %+v", r.Quarantine)
	}
	w.wantFault(c, w.releases(), fault.Refuse, "it is released", "not in quarantine")
}

func TestRelease_NeedsTheRemovalDone(t *testing.T) {
	w, c := provisioned(t, both)
	w.logIn(idA)
	w.failAt("vault", errors.New("away"))
	w.handleAndIgnore(c, w.quarantines(idA))
	w.wantFault(c, w.releases(), fault.Retry, "Vault is away")
	if r := w.Records[idA]; !r.InQuarantine() {
		t.Errorf("want the mark kept, got %+v", r.Quarantine)
	}
	w.fail = nil
	if o := w.mustAt(c, w.releases(), converge.Deprovisioned); o.Cut != 1 || o.Released == nil {
		t.Errorf("want the token cut before the release, got %+v", o)
	}
	if o, err := w.handleAt(w.converger(mayMake), w.releases()); err != nil || o.Released != nil {
		t.Errorf("want no release by a function that may not remove, got %+v, %v", o, err)
	}
}

func TestQuarantine_OrderFromElsewhereIsRefused(t *testing.T) {
	w, c := provisioned(t, both)
	for _, req := range []converge.Request{w.quarantines(idA), w.releases(), w.findings(idA)} {
		req.Region = "eu-central-1"
		w.wantFault(c, req, fault.Refuse, "it is recorded in another region")
	}
	if err := w.granted(idA); err != nil {
		t.Error(err)
	}
}

func TestQuarantine_RefusesInstancesThatAreGone(t *testing.T) {
	w, c := launched(t, both)
	w.wantFault(c, w.quarantines(idB), fault.Refuse, "EC2 does not show it")
	w.setState(facts.Terminated)
	if got, err := w.handleAt(c, w.quarantines(idA)); !isFault(err, fault.Refuse) || got.Quarantined != nil {
		t.Errorf("want a terminated instance refused, got %+v, %v", got, err)
	}
}

func TestFinding_FromBeforeAReleaseCountsForNothing(t *testing.T) {
	w, c := provisioned(t, both)
	old := w.findings(idA)
	w.pass(time.Minute)
	w.mustAt(c, w.findings(idA), converge.Deprovisioned)
	w.pass(time.Minute)
	w.mustAt(c, w.releases(), converge.InQuarantine)
	w.pass(time.Second)
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.mustAt(c, old, converge.LeftAlone)
	if err := w.granted(idA); err != nil {
		t.Error(err)
	}
	w.pass(time.Second)
	w.mustAt(c, w.findings(idA), converge.Deprovisioned)
	w.wantCutOrHeld()
}

func TestFinding_LeavesAloneWhatIsNotServed(t *testing.T) {
	w, c := launched(t, mayRemove)
	w.unmatch()
	w.mustAt(c, w.findings(idA), converge.LeftAlone)
	if len(w.Records) > 0 {
		t.Errorf("want no record of an instance that no profile fits, got %+v", w.Records)
	}
	gone := w.findings(idB)
	w.wantFault(c, gone, fault.Retry, "EC2 may not show it yet")
	w.pass(converge.Grace)
	w.mustAt(c, gone, converge.LeftAlone)
	w.launch(idA, 4)
	w.mustAt(c, w.findings(idA), converge.InQuarantine)
	w.wantCut(0)
}

// The event of the end may come in the same batch.
func TestFinding_WithTheEndInOneRequest(t *testing.T) {
	w, c := provisioned(t, both)
	req := w.findings(idA)
	req.Told = facts.Terminated
	w.wantFault(c, req, fault.Retry, "EC2 still shows it as running")
	w.wantCutOrHeld()
	w.setState(facts.Terminated)
	if _, err := w.handleAt(c, req); err != nil {
		t.Error(err)
	}
	w.wantNothing(idA)
	if r := w.Records[idA]; r.ExpiresAt == 0 || r.Quarantine.EndedAt == nil {
		t.Errorf("want a tombstone that expires, got %+v", r)
	}
}

func TestQuarantine_TeardownEndsIt(t *testing.T) {
	w, c := provisioned(t, both)
	w.mustAt(c, w.quarantines(idA), converge.Deprovisioned)
	req := w.event(idA, "")
	req.Teardown = true
	w.mustAt(c, req, converge.Unchanged)
	w.wantNothing(idA)
	if r := w.Records[idA]; r.ExpiresAt == 0 {
		t.Errorf("want a tombstone that expires, got %+v", r)
	}
}
