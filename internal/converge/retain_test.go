package converge_test

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const (
	seedA      = "alice_cluster/kv/nodes/" + idA + "-seed"
	seedsMount = "sys/internal/ui/mounts/alice_cluster/kv/nodes"
)

// retaining returns everyKind with a seed that outlives its instance, and lines of its own.
func retaining(lines string) fstest.MapFS { return withRemoval("retain", lines) }

func withRemoval(onRemoval, lines string) fstest.MapFS {
	files := everyKind(lines)
	text := strings.Replace(string(files["worker/profile.yaml"].Data), "template: seed.json.tmpl", "template: seed.json.tmpl, on_removal: "+onRemoval, 1)
	files["worker/profile.yaml"] = &fstest.MapFile{Data: []byte(text)}
	return files
}

// withoutSeed returns everyKind without its generic object.
func withoutSeed() fstest.MapFS {
	files := everyKind("")
	text := strings.Replace(string(files["worker/profile.yaml"].Data), "  - {name: seed, type: generic, path: kv/nodes, template: seed.json.tmpl}\n", "", 1)
	files["worker/profile.yaml"] = &fstest.MapFile{Data: []byte(text)}
	return files
}

// seeded returns a world in which instance A has a grant with a retained seed.
func seeded(t *testing.T, lines string) (*world, *converge.Converger) {
	t.Helper()
	w, c := launched(t, both, by(t, retaining(lines)))
	w.Objects[seedsMount] = map[string]any{"type": "kv"}
	w.must(c, idA, facts.Running, converge.Provisioned)
	if r := w.Records[idA]; !r.RetainsNow(seedA) {
		t.Fatalf("want the record to say that the seed is retained, got %+v", r.Objects)
	}
	return w, c
}

// wantSeedAlone fails unless the seed is all that is left of instance A, and its tombstone proves whose it is.
func (w *world) wantSeedAlone(out converge.Outcome) {
	w.t.Helper()
	for path := range w.Objects {
		if strings.Contains(path, idA) && path != seedA {
			w.t.Errorf("%s is left in Vault", path)
		}
	}
	r := w.Records[idA]
	if w.Objects[seedA] == nil || r.State != ledger.Deleted || len(r.Objects) > 0 || !r.Retains(seedA) || r.ExpiresAt != 0 || w.hasTokens(idA) || len(r.Names()) > 0 {
		w.t.Errorf("want the seed and a lasting tombstone, got %v and %+v", w.Objects[seedA], r)
	}
	if !slices.Equal(out.Retained, []string{seedA}) || slices.Contains(out.Paths, seedA) {
		w.t.Errorf("want the outcome to say that the seed is retained, got %+v", out)
	}
}

func TestRetained_OutlivesEveryRemoval(t *testing.T) {
	for name, end := range map[string]func(*world, *converge.Converger) converge.Outcome{
		"terminated": func(w *world, c *converge.Converger) converge.Outcome {
			w.setState(facts.Terminated)
			return w.must(c, idA, facts.Terminated, converge.Deprovisioned)
		},
		"no profile fits": func(w *world, c *converge.Converger) converge.Outcome {
			w.unmatch()
			out := w.must(c, idA, facts.Running, converge.Deprovisioned)
			w.setState(facts.Terminated)
			w.must(c, idA, facts.Terminated, converge.Unchanged) // its names are released
			return out
		},
		"torn down": func(w *world, c *converge.Converger) converge.Outcome {
			req := w.event(idA, "")
			req.Teardown = true
			return w.mustAt(c, req, converge.Deprovisioned)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, c := seeded(t, "")
			w.wantSeedAlone(end(w, c))
			w.setState(facts.Terminated)
			w.must(c, idA, facts.Terminated, converge.Unchanged)
			if w.Objects[seedA] == nil {
				t.Error("a second event removed the seed")
			}
		})
	}
}

// Each call may fail: no order of calls removes the seed, or leaves it without its proof.
func TestRetained_OutlivesARemovalThatBreaksOff(t *testing.T) {
	for _, at := range []string{"vault delete " + roleA, "vault cut", "vault delete sys/policies", "ledger put"} {
		w, c := seeded(t, "")
		w.setState(facts.Terminated)
		w.breakOff(c, w.event(idA, facts.Terminated), at, errDown)
		w.pass(2 * time.Minute)
		w.wantSeedAlone(w.must(c, idA, facts.Terminated, converge.Deprovisioned))
	}
}

func TestRetained_NeedsAKeyValueEngine(t *testing.T) {
	for _, mount := range []map[string]any{{"type": "ssh"}, {"type": "database"}, {}, nil} {
		w, c := launched(t, both, by(t, retaining("")))
		if mount != nil {
			w.Objects[seedsMount] = mount
		}
		w.wantFault(c, w.event(idA, facts.Running), fault.Refuse, "another engine could let something in", seedA, "may not be retained", "key-value engine")
		for path := range w.Objects {
			if strings.Contains(path, idA) {
				t.Errorf("engine %v: %s was made", mount, path)
			}
		}
	}
	w, c := launched(t, both, by(t, retaining("")))
	w.failAt("vault read "+seedsMount, errDown)
	w.wantFault(c, w.event(idA, facts.Running), fault.Retry, "the engine is not known")
}

// The last word of the profile that reached the record counts.
func TestRetained_FollowsTheProfile(t *testing.T) {
	w, _ := seeded(t, "")
	deleting := w.converger(both, by(t, withRemoval("delete", "")))
	w.must(deleting, idA, facts.Running, converge.Provisioned)
	w.setState(facts.Terminated)
	if out := w.must(deleting, idA, facts.Terminated, converge.Deprovisioned); w.Objects[seedA] != nil || len(out.Retained) > 0 {
		t.Errorf("from retain to delete: want the seed removed, got %+v", out)
	}

	w, _ = seeded(t, "")
	w.setState(facts.Terminated)
	if w.must(w.converger(both, by(t, withRemoval("delete", ""))), idA, facts.Terminated, converge.Deprovisioned); w.Objects[seedA] == nil {
		t.Error("changed after the last comparison: want the seed kept, as the record says")
	}

	w, c := seeded(t, "")
	dropped := w.converger(both, by(t, withoutSeed()))
	w.must(dropped, idA, facts.Running, converge.Provisioned)
	if r := w.Records[idA]; w.Objects[seedA] == nil || !r.Retains(seedA) || r.Has(seedA) {
		t.Errorf("dropped from the profile: want the seed kept and recorded as retained, got %+v", r)
	}
	w.must(dropped, idA, facts.Running, converge.Unchanged)
	w.must(c, idA, facts.Running, converge.Provisioned) // it is in the profile again
	if r := w.Records[idA]; r.Retains(seedA) || !r.Has(seedA) {
		t.Errorf("in the profile again: want the seed granted, got %+v", r)
	}
	w.must(dropped, idA, facts.Running, converge.Provisioned)
	w.setState(facts.Terminated)
	w.must(dropped, idA, facts.Terminated, converge.Deprovisioned)
	if r := w.Records[idA]; w.Objects[seedA] == nil || !r.Retains(seedA) {
		t.Errorf("want it retained past the end, got %+v", r)
	}
}

// An instance that gets a grant again takes its seed over: no conflict, and no word of the seed is lost that the modes leave.
func TestRetained_IsTakenOverByTheNextGrant(t *testing.T) {
	for lines, want := range map[string]string{"": "ip-10-1-1-4.ec2.internal", "reconcile: {generic: ignore}\n": "by hand"} {
		w, c := seeded(t, lines)
		role := w.ec2[idA].IAMRoleARN
		w.unmatch()
		w.must(c, idA, facts.Running, converge.Deprovisioned)
		w.Objects[seedA] = map[string]any{"name": "by hand", "address": "10.1.1.4"}
		w.pass(time.Hour)
		w.show(idA, func(f *facts.Instance) { f.IAMRoleARN = role })
		w.must(c, idA, facts.Running, converge.Provisioned)
		if r := w.Records[idA]; w.Objects[seedA]["name"] != want || !r.Has(seedA) || r.Retains(seedA) || r.ExpiresAt != 0 {
			t.Errorf("%q: want the seed with the name %q in the grant, got %v and %+v", lines, want, w.Objects[seedA], r)
		}
	}

	// Without the proof it is foreign.
	w, c := seeded(t, "")
	role := w.ec2[idA].IAMRoleARN
	w.unmatch()
	w.must(c, idA, facts.Running, converge.Deprovisioned)
	delete(w.Records, idA)
	clear(w.Claims)
	w.pass(time.Hour)
	w.show(idA, func(f *facts.Instance) { f.IAMRoleARN = role })
	w.wantFault(c, w.event(idA, facts.Running), fault.Conflict, "nothing shows whose it is", "not made by this deployment", seedA)

	// One that was deleted meanwhile is made, whatever the mode.
	w, c = seeded(t, "reconcile: {generic: ignore}\n")
	w.unmatch()
	w.must(c, idA, facts.Running, converge.Deprovisioned)
	delete(w.Objects, seedA)
	w.pass(time.Hour)
	w.show(idA, func(f *facts.Instance) { f.IAMRoleARN = role })
	w.must(c, idA, facts.Running, converge.Provisioned)
	if w.Objects[seedA] == nil {
		t.Error("want the seed made")
	}
}

// The record is lost: the profile says what stays.
func TestRetained_OfALostRecordStays(t *testing.T) {
	w, c := seeded(t, "")
	record := w.Records[idA]
	var untracked []string
	for _, o := range record.Objects {
		untracked = append(untracked, o.Path)
	}
	delete(w.Records, idA)
	clear(w.Claims)
	w.setState(facts.Terminated)
	req := w.event(idA, facts.Terminated)
	req.Untracked, req.Verify = untracked, true
	w.wantSeedAlone(w.mustAt(c, req, converge.Deprovisioned))
}

// A mark in the ledger's table has no role or policy retained.
func TestRetained_MarkKeepsNoAccess(t *testing.T) {
	w, c := seeded(t, "")
	w.edit(func(r *ledger.Record) {
		for i := range r.Objects {
			r.Objects[i].Retain = true
		}
		r.Retained = append(r.Retained, ledger.Object{Kind: grant.KindGeneric, Path: "alice_cluster/kv/nodes/" + idA + "-x"})
	})
	w.setState(facts.Terminated)
	w.must(c, idA, facts.Terminated, converge.Deprovisioned)
	for path := range w.Objects {
		if strings.Contains(path, idA) && path != seedA {
			t.Errorf("%s is left in Vault", path)
		}
	}
}

// A tombstone does not outlast the objects for which it is kept.
func TestRetained_TombstoneEndsWithItsObjects(t *testing.T) {
	w, c := seeded(t, "")
	w.setState(facts.Terminated)
	w.must(c, idA, facts.Terminated, converge.Deprovisioned)
	req := w.event(idA, facts.Terminated)
	req.Verify = true
	w.mustAt(c, req, converge.Unchanged)
	if r := w.Records[idA]; !r.Retains(seedA) {
		t.Fatalf("want the proof kept while the seed exists, got %+v", r)
	}
	delete(w.Objects, seedA)
	w.must(c, idA, facts.Terminated, converge.Unchanged) // an event does not look
	w.mustAt(c, req, converge.Unchanged)
	if r := w.Records[idA]; r.Retains(seedA) || r.ExpiresAt == 0 {
		t.Errorf("want a tombstone that expires, got %+v", r)
	}
}

// A caller that takes the seed for untracked has it not removed, whatever the profiles say by now.
func TestRetained_IsNeverUntracked(t *testing.T) {
	w, c := seeded(t, "")
	w.setState(facts.Terminated)
	w.must(c, idA, facts.Terminated, converge.Deprovisioned)
	w.pass(time.Hour)
	req := w.event(idA, facts.Terminated)
	req.Untracked = []string{seedA}
	w.mustAt(w.converger(both, by(t, withoutSeed())), req, converge.Unchanged)
	if r := w.Records[idA]; w.Objects[seedA] == nil || !r.Retains(seedA) {
		t.Errorf("want the seed and its proof, got %+v", r)
	}
}
