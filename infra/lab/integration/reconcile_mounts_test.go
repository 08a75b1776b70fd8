package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const ghost = "alice_cluster/ghost/things"

// withGhost returns the lab's profiles with an output of etcd's profile below a path where nothing is mounted.
func withGhost(t *testing.T) string {
	t.Helper()
	dir := edited(t, [3]string{"etcd/profile.yaml", "outputs:\n", "outputs:\n  - {name: thing, type: generic, path: ghost/things, template: thing.json.tmpl}\n"})
	if err := os.WriteFile(filepath.Join(dir, "etcd", "thing.json.tmpl"), []byte(`{"name": "{{ .FQDN }}"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// folderIn returns the trouble of the folder in an answer.
func folderIn(a rec.Answer) *rec.PlaceTrouble {
	for _, p := range a.Places {
		if p.Folder == ghost {
			return &p
		}
	}
	return nil
}

// TestUnmountedPath_HoldsUpNoOther has one profile with an output where nothing is mounted: first before the Vault setup knows the
// path (403), and then after it (404). The rest of the fleet is repaired, removed and torn down.
func TestUnmountedPath_HoldsUpNoOther(t *testing.T) {
	const region = "ca-west-1"
	d := deploy(t, "ghostly", region)
	all := d.grant(t, region, 4)
	d = d.with(t, map[string]string{"TEMPLATES_DIR": withGhost(t)})
	in := rec.Input{Mode: rec.Correct}

	terminate(t, all[0])
	vaultDelete(t, pathsOf(all[1].ID).policy)
	a := runReconcile(t, d.comparing, in)
	if trouble := folderIn(a); trouble == nil || !strings.Contains(trouble.Error, "403") || trouble.Recorded != 0 || trouble.Withholds {
		t.Errorf("want the folder named without a right to list it, got %+v", a.Places)
	}
	if len(objects(t, all[0])) > 0 || len(objects(t, all[1])) == 0 || a.Summary.Corrected != 2 || a.Blocked {
		t.Errorf("want one removed and one repaired beside the folder, got %+v", a)
	}

	setUp(t, "-templates-dir", d.env["TEMPLATES_DIR"])
	terminate(t, all[1])
	vaultDelete(t, pathsOf(all[2].ID).policy)
	etcd := launch(t, fleet.Spec{Role: "alice-etcd", Region: region})
	a = runReconcile(t, d.comparing, in)
	if trouble := folderIn(a); trouble == nil || !strings.Contains(trouble.Error, "nothing is mounted there: mount the engine") || trouble.Withholds {
		t.Errorf("want the folder without a mount named with its remedy, got %+v", a.Places)
	}
	if len(objects(t, all[1])) > 0 || len(objects(t, all[2])) == 0 || a.Summary.Corrected != 2 || a.Blocked {
		t.Errorf("want one removed and one repaired beside the path without a mount, got %+v", a)
	}
	if a.Summary.Failed != 1 {
		t.Errorf("want the grant of %s alone to fail, got %+v", etcd.ID, a)
	}

	a = runReconcile(t, d.comparing, rec.Input{Mode: rec.Teardown, Confirm: "ghostly"})
	if a.Blocked || a.Summary.Failed > 0 || withObjects(t, append(all, etcd)) > 0 {
		t.Errorf("want all removed by the teardown, also the half-made grant, got %+v", a)
	}
	if again := runReconcile(t, d.comparing, rec.Input{Mode: rec.Teardown, Confirm: "ghostly"}); again.Summary != (rec.Summary{}) || again.Blocked {
		t.Errorf("want nothing left, got %+v", again)
	}
}
