package integration

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const seeds = "alice_cluster/seeds"

// mountSeeds mounts a KV engine of version 1 for generic objects, once.
func mountSeeds(t *testing.T) {
	t.Helper()
	if all := vaultRead(t, "sys/mounts"); all[seeds+"/"] == nil {
		vaultWrite(t, "sys/mounts/"+seeds, map[string]any{"type": "kv", "options": map[string]any{"version": "1"}})
	}
}

// withSeed returns profiles whose workers have a generic object, too, and lines of their own. It prepares Vault for them.
func withSeed(t *testing.T, output, lines string, changes ...[3]string) string {
	t.Helper()
	dir := edited(t, append(changes, [3]string{"worker/profile.yaml", "outputs:\n", lines + "outputs:\n  - {name: seed, type: generic, path: seeds/nodes, template: seed.json.tmpl" + output + "}\n"})...)
	if err := os.WriteFile(filepath.Join(dir, "worker", "seed.json.tmpl"), []byte(`{"name": "{{ .FQDN }}", "secret": "made-by-the-template"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	mountSeeds(t)
	setUp(t, "-templates-dir", dir)
	return dir
}

// edit is an edit by hand of one object.
type edit struct {
	kind  grant.Kind
	path  string
	field string
	value any
}

// editsOf returns an edit of each kind of a worker's objects.
func editsOf(t *testing.T, i fleet.Instance) []edit {
	t.Helper()
	p := pathsOf(i.ID)
	text, _ := vaultRead(t, p.policy)["policy"].(string)
	return []edit{
		{grant.KindPolicy, p.policy, "policy", text + "\npath \"auth/token/revoke-self\" {\n  capabilities = [\"update\"]\n}\n"},
		{grant.KindPKIRole, p.kubelet, "max_ttl", "1h"},
		{grant.KindAuthRole, p.role, "token_ttl", "61s"},
		{grant.KindGeneric, seeds + "/nodes/" + i.ID + "-seed", "name", "by-hand"},
	}
}

// make changes one field of the object.
func (e edit) make(t *testing.T) {
	t.Helper()
	fields := map[string]any{e.field: e.value}
	if e.kind != grant.KindAuthRole && e.kind != grant.KindPolicy { // their writes merge, or have one field
		fields = vaultRead(t, e.path)
		fields[e.field] = e.value
	}
	vaultWrite(t, e.path, fields)
}

// Each kind in each mode, edited and then deleted by hand, in runs that repair.
func TestModes_EachKindEditedAndDeleted(t *testing.T) {
	for _, mode := range []grant.DriftMode{grant.DriftCorrect, grant.DriftDetect, grant.DriftIgnore} {
		t.Run(string(mode), func(t *testing.T) {
			dir := withSeed(t, "", fmt.Sprintf("reconcile: {policy: %[1]s, pki-role: %[1]s, ssh-role: %[1]s, auth-role: %[1]s, generic: %[1]s}\n", mode))
			f := variant(t, reconcile, map[string]string{"TEMPLATES_DIR": dir})
			i := launch(t, fleet.Spec{Role: "alice-worker"})
			in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{i.ID}}
			if a := runReconcile(t, f, in); a.Summary.Corrected != 1 {
				t.Fatalf("want the grant made, got %+v", a)
			}
			for _, hand := range []struct {
				reason rec.Reason
				spoil  func(edit)
			}{
				{rec.Changed, func(e edit) { e.make(t) }},
				{rec.Missing, func(e edit) { vaultDelete(t, e.path) }},
			} {
				edits := editsOf(t, i)
				spoiled := map[string]map[string]any{}
				for _, e := range edits {
					hand.spoil(e)
					spoiled[e.path] = vaultRead(t, e.path)
				}
				a := runReconcile(t, f, in)
				var shown []string
				for _, d := range a.Drift {
					shown = append(shown, fmt.Sprint(d.Object, " ", d.Reason, " ", d.Action))
				}
				var want []string
				for _, e := range edits {
					action := rec.None
					switch {
					case mode == grant.DriftIgnore:
						continue
					case mode == grant.DriftCorrect && hand.reason == rec.Changed:
						action = rec.Update
					case mode == grant.DriftCorrect:
						action = rec.Create
					}
					want = append(want, fmt.Sprint(e.kind, " ", hand.reason, " ", action))
				}
				slices.Sort(shown)
				slices.Sort(want)
				if !slices.Equal(shown, want) || a.Summary.Failed > 0 {
					t.Errorf("%s by hand: want the rows %q, got %q, %+v", hand.reason, want, shown, a)
				}
				for _, e := range edits {
					isLeft := maps.EqualFunc(vaultRead(t, e.path), spoiled[e.path], func(x, y any) bool { return fmt.Sprint(x) == fmt.Sprint(y) })
					if isLeft != (mode != grant.DriftCorrect) {
						t.Errorf("%s %s by hand: left is %v, got %v", e.kind, hand.reason, isLeft, vaultRead(t, e.path))
					}
				}
			}
			terminate(t, i)
			if a := runReconcile(t, f, in); a.Summary.Corrected != 1 || len(objects(t, i)) > 0 || vaultRead(t, seeds+"/nodes/"+i.ID+"-seed") != nil {
				t.Errorf("want the whole grant removed, got %+v, %v", a, objects(t, i))
			}
		})
	}
}

// One class is repaired, and the same run leaves the edits of two others. A deleted object of a softer class does not come back either.
func TestModes_RepairLeavesSofterKinds(t *testing.T) {
	dir := withSeed(t, "", "reconcile: {policy: detect, generic: ignore}\n")
	f := variant(t, reconcile, map[string]string{"TEMPLATES_DIR": dir})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{i.ID}}
	runReconcile(t, f, in)
	edits := editsOf(t, i)
	for _, e := range edits {
		e.make(t)
	}
	a := runReconcile(t, f, in)
	if a.Summary.Changed != 3 || a.Summary.Corrected != 2 || a.Summary.Failed > 0 {
		t.Fatalf("want two of three rows repaired, got %+v", a)
	}
	for _, e := range edits {
		text := fmt.Sprint(vaultRead(t, e.path)[e.field])
		isLeft := text == fmt.Sprint(e.value) || (e.kind == grant.KindPolicy && strings.Contains(text, "revoke-self"))
		if want := e.kind == grant.KindPolicy || e.kind == grant.KindGeneric; isLeft != want {
			t.Errorf("%s: want it left: %v, got %v", e.kind, want, text)
		}
	}
	// An event with the changed grant writes what changed, and the rest stays.
	byEvent := variant(t, provision, map[string]string{"TEMPLATES_DIR": dir})
	mustBy(t, byEvent, i, "running", "unchanged")
	if a, _ := explain(t, f, i.ID); a.Grant == nil || a.Grant.Modes[grant.KindPolicy] != grant.DriftDetect || a.Status != rec.Drifted || !strings.Contains(a.Summary, "only detects") {
		t.Errorf("want the modes explained, got %+v", a)
	}
}
