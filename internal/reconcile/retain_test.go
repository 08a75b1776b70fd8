package reconcile

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const retainedSeed = "  - {name: seed, type: generic, path: kv/nodes, template: seed.json.tmpl, on_removal: retain}\n"

func seedOf(n int) string { return "alice_cluster/kv/nodes/" + id(n) + "-seed" }

// retaining returns a fleet whose seeds outlive their instances.
func retaining(t *testing.T, n int) *world {
	t.Helper()
	w := newWorldBy(t, withOutputs(t, seedAlone, ""), n) // before the profile retained it
	w.profiles = withOutputs(t, retainedSeed, "")
	w.Objects["sys/internal/ui/mounts/alice_cluster/kv/nodes"] = map[string]any{"type": "kv"}
	a := w.reconcile(Input{Mode: Detect})
	if a.Summary != (Summary{Changed: n}) || a.Drift[0].Object != KindRecord || !slices.Equal(a.Drift[0].Fields, []string{"on_removal"}) || !strings.Contains(a.Drift[0].Diff, seedOf(0)) {
		t.Fatalf("want a row for each record that does not say so yet, got %+v", a)
	}
	if a := w.reconcile(Input{Mode: Correct}); a.Summary.Corrected != n || a.Summary.Failed > 0 {
		t.Fatalf("want each record changed, got %+v", a)
	}
	w.pass(time.Hour)
	if a := w.reconcile(Input{Mode: Correct}); len(a.Drift) > 0 {
		t.Fatalf("want no drift left, got %+v", a.Drift)
	}
	return w
}

// pass lets time pass.
func (w *world) pass(d time.Duration) { w.now = w.now.Add(d) }

func TestRetained_IsNoOrphan(t *testing.T) {
	w := retaining(t, 8)
	w.terminate(0)
	delete(w.ec2, id(1))
	w.launch(noRole(worker(2)))
	if a := w.reconcile(Input{Mode: Correct}); a.Summary.Corrected != 3 || a.Summary.Failed > 0 {
		t.Fatalf("want three grants removed, got %+v", a)
	}
	w.pass(time.Hour)
	w.launch(func() facts.Instance { // no run compares a stopped one
		f := noRole(worker(2))
		f.State = facts.Stopped
		return f
	}())
	delete(w.ec2, id(0)) // EC2 forgets it
	w.calls = map[string]int{}
	for range 2 {
		for _, in := range []Input{{Mode: Correct}, {Mode: Correct, NamesOnly: true}, {Mode: Correct, Force: true}} {
			if a := w.reconcile(in); len(a.Drift) > 0 || a.Blocked {
				t.Errorf("%+v: want the seeds neither orphaned nor untracked, got %+v", in, a)
			}
		}
		w.pass(40 * 24 * time.Hour)
	}
	for n := range 3 {
		if r := w.Records[id(n)]; w.Objects[seedOf(n)] == nil || !r.Retains(seedOf(n)) || r.ExpiresAt != 0 {
			t.Errorf("instance %d: want its seed and the proof, got %v, %+v", n, w.Objects[seedOf(n)], r)
		}
	}
	for path := range w.Objects {
		for n := range 3 {
			if strings.Contains(path, id(n)) && path != seedOf(n) {
				t.Errorf("%s is left", path)
			}
		}
	}
}

func TestRetained_LostObjectEndsItsTombstone(t *testing.T) {
	w := retaining(t, 7)
	w.terminate(0)
	w.reconcile(Input{Mode: Correct})
	w.pass(time.Hour)
	delete(w.Objects, seedOf(0))
	a := w.reconcile(Input{Mode: Correct})
	if a.Summary != (Summary{Orphaned: 1, Corrected: 1}) || !strings.Contains(a.Drift[0].Diff, seedOf(0)) {
		t.Fatalf("want the tombstone closed, got %+v", a)
	}
	if r := w.Records[id(0)]; r.Retains(seedOf(0)) || r.ExpiresAt == 0 {
		t.Errorf("want a tombstone that expires, got %+v", r)
	}
	if w.pass(time.Hour); len(w.reconcile(Input{Mode: Correct}).Drift) > 0 {
		t.Error("want no row left")
	}
}

// A folder that could not be listed proves nothing of its objects.
func TestRetained_UnlistedFolderForgetsNothing(t *testing.T) {
	w := retaining(t, 7)
	w.terminate(0)
	w.reconcile(Input{Mode: Correct})
	w.pass(time.Hour)
	delete(w.Objects, seedOf(0))
	w.fail["list alice_cluster/kv/nodes"] = errStorage
	w.reconcile(Input{Mode: Correct})
	if r := w.Records[id(0)]; !r.Retains(seedOf(0)) {
		t.Errorf("want the proof kept, got %+v", r)
	}
}

func TestRetained_OtherObjectsBesideAreStillFound(t *testing.T) {
	w := retaining(t, 7)
	w.terminate(0)
	w.reconcile(Input{Mode: Correct})
	w.pass(time.Hour)
	policy := grant.PolicyPath(grant.PolicyName(id(0), "late"))
	w.Objects[policy] = map[string]any{"policy": grant.Marker{Deployment: "vault-ec2", InstanceID: id(0), Profile: "a-b"}.String()}
	a := w.reconcile(Input{Mode: Correct})
	if a.Summary.Corrected != 1 || w.Objects[policy] != nil || w.Objects[seedOf(0)] == nil {
		t.Errorf("want the late policy removed and the seed left, got %+v", a)
	}
	if r := w.Records[id(0)]; !r.Retains(seedOf(0)) || r.ExpiresAt != 0 {
		t.Errorf("want the proof kept, got %+v", r)
	}
}

func TestTeardown_LeavesAndNamesRetained(t *testing.T) {
	w := retaining(t, 3)
	for run := range 2 { // the second finds the tombstones alone
		a := w.reconciler().TearDown(t.Context(), Input{Mode: Teardown}, w.converger(both, false), silent)
		var paths []string
		for _, r := range a.Retained {
			paths = append(paths, r.Path)
		}
		slices.Sort(paths)
		if !slices.Equal(paths, []string{seedOf(0), seedOf(1), seedOf(2)}) || a.RetainedCount != 3 || a.Blocked || a.Summary.Failed+a.Summary.Conflicting > 0 || (run == 1 && a.Summary.Orphaned > 0) {
			t.Errorf("run %d: want the seeds named and nothing else left, got %+v", run, a)
		}
	}
	for path := range w.Objects {
		if strings.Contains(path, "/i-") && !strings.HasSuffix(path, "-seed") {
			t.Errorf("%s is left", path)
		}
	}
}

func TestExplain_ShowsWhatIsRetained(t *testing.T) {
	w := retaining(t, 1)
	if e := w.explain(); e.Grant == nil || !slices.Equal(e.Grant.Retained, []string{"seed"}) {
		t.Errorf("want the output named, got %+v", e.Grant)
	}
	w.terminate(0)
	w.reconcile(Input{Mode: Correct, Force: true})
	w.pass(time.Hour)
	e := w.explain()
	if len(e.Objects) != 1 || e.Objects[0].Path != seedOf(0) || !e.Objects[0].Retained || e.Objects[0].InVault != Yes {
		t.Errorf("want the seed as the one object, retained and in Vault, got %+v", e.Objects)
	}
	if e.Status != Removed || !e.OK || !strings.Contains(e.Summary, "retains in Vault: 1") {
		t.Errorf("want a removed grant with a retained object, got %+v", e.Verdict)
	}
	w.edit(id(0), func(r *ledger.Record) { r.Retained = nil })
	if e := w.explain(); e.OK {
		t.Errorf("without its proof: want the seed shown as no object of ours, got %+v", e.Verdict)
	}
}

// An output that is dropped from the profile leaves its object, and the row does not say that it is deleted.
func TestRetained_OfADroppedOutputIsNoOrphan(t *testing.T) {
	w := retaining(t, 1)
	w.profiles = withOutputs(t, "", "")
	a := w.reconcile(Input{Mode: Correct})
	if a.Summary != (Summary{Changed: 1, Corrected: 1}) || a.Drift[0].Object != KindRecord || w.Objects[seedOf(0)] == nil {
		t.Errorf("want the record's row alone, got %+v", a)
	}
	if a := w.reconcile(Input{Mode: Correct}); len(a.Drift) > 0 {
		t.Errorf("want no row left, got %+v", a.Drift)
	}
}
