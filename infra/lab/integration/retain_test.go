package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const retained = ", on_removal: retain"

func seedOf(i fleet.Instance) string { return seeds + "/nodes/" + i.ID + "-seed" }

// aged writes a record as of an hour ago: reconcile spares what was written a moment ago.
func (d deployment) aged(t *testing.T, i fleet.Instance) {
	t.Helper()
	old, err := d.ledger.Get(t.Context(), i.ID)
	if err == nil && old == nil {
		err = errors.New("no record")
	}
	if err == nil {
		past := ledger.New(ledger.NewAPI(world.Dynamo), d.env["TABLE_NAME"], func() time.Time { return time.Now().Add(-time.Hour) })
		_, err = past.Put(t.Context(), ledger.Write{Old: old, New: *old, Owner: "test"})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// wantSeedAlone fails unless the seed, as a person edited it, is all that is left of an instance.
func (d deployment) wantSeedAlone(t *testing.T, i fleet.Instance) {
	t.Helper()
	r, err := d.ledger.Get(t.Context(), i.ID)
	if err != nil || r == nil || r.State != ledger.Deleted || !r.Retains(seedOf(i)) || r.ExpiresAt != 0 {
		t.Errorf("want a tombstone that lasts with the seed, got %+v, %v", r, err)
	}
	if got := fmt.Sprint(vaultRead(t, seedOf(i))["secret"]); got != "by-hand" || len(objects(t, i)) > 0 {
		t.Errorf("want the seed alone left, got %q beside %v", got, objects(t, i))
	}
}

func TestRetained_OutlivesEndReconcileAndTeardown(t *testing.T) {
	const region = "eu-south-2"
	d := deploy(t, "retaining", region)
	d = d.with(t, map[string]string{"TEMPLATES_DIR": withSeed(t, retained, "reconcile: {generic: ignore}\n")})
	all := d.grant(t, region, 3)
	defer terminate(t, all[1:]...) // another test compares the region
	for _, i := range all {
		vaultWrite(t, seedOf(i), map[string]any{"name": "x", "secret": "by-hand"})
	}
	session := login(t, all[0])
	correct := rec.Input{Mode: rec.Correct, Force: true}

	terminate(t, all[0])
	if a := runReconcile(t, d.comparing, correct); a.Summary.Corrected != 1 || a.Summary.Failed > 0 {
		t.Fatalf("want the grant removed, got %+v", a)
	}
	d.wantSeedAlone(t, all[0])
	if tokenWorks(t, session) {
		t.Error("the token of the removed instance works")
	}
	d.aged(t, all[0])
	for _, in := range []rec.Input{correct, {Mode: rec.Correct, NamesOnly: true}} {
		a := runReconcile(t, d.comparing, in)
		isOfFleet := func(r rec.Drift) bool {
			return slices.ContainsFunc(all, func(i fleet.Instance) bool { return i.ID == r.InstanceID })
		}
		if slices.ContainsFunc(a.Drift, isOfFleet) || a.Summary.Orphaned > 0 || a.Blocked { // rows of others are other tests'
			t.Errorf("want the seed neither orphaned nor untracked, got %+v", a)
		}
	}
	d.wantSeedAlone(t, all[0])
	if e, _ := explain(t, d.comparing, all[0].ID); e.Status != rec.Removed || len(e.Objects) != 1 || !e.Objects[0].Retained {
		t.Errorf("want the seed explained, got %+v, %+v", e.Verdict, e.Objects)
	}

	// No profile fits an instance any more, and then one does again: it takes its seed over as it is.
	without := d.with(t, map[string]string{"TEMPLATES_DIR": withSeed(t, retained, "", [3]string{"worker/profile.yaml", "role/alice-worker", "role/other-worker"}, [3]string{"worker/profile.yaml", "role/*/alice-worker", "role/*/other-worker"})})
	one := rec.Input{Mode: rec.Correct, Force: true, InstanceIDs: []string{all[1].ID}}
	if a := runReconcile(t, without.comparing, one); a.Summary.Corrected != 1 {
		t.Fatalf("want the grant removed from a running instance, got %+v", a)
	}
	if got := fmt.Sprint(vaultRead(t, seedOf(all[1]))["secret"]); got != "by-hand" {
		t.Errorf("want the seed kept, got %q", got)
	}
	unmarked(t) // the set-up marked the mounts again
	if a := runReconcile(t, d.comparing, one); a.Summary.Corrected == 0 || a.Summary.Failed+a.Summary.Conflicting > 0 || len(objects(t, all[1])) == 0 {
		t.Errorf("want the grant made again, without a conflict, got %+v", a)
	}
	if got := fmt.Sprint(vaultRead(t, seedOf(all[1]))["secret"]); got != "by-hand" {
		t.Errorf("want the seed taken over as it is, got %q", got)
	}

	for range 2 {
		a := runReconcile(t, d.comparing, rec.Input{Mode: rec.Teardown, Confirm: "retaining"})
		if a.RetainedCount != 3 || len(a.Retained) != 3 || a.Blocked || a.Summary.Failed+a.Summary.Conflicting > 0 {
			t.Errorf("want the teardown to name three seeds, got %+v", a)
		}
	}
	for _, i := range all {
		d.wantSeedAlone(t, i)
	}

	// A person deletes a seed: its tombstone ends.
	vaultDelete(t, seedOf(all[0]))
	d.aged(t, all[0])
	runReconcile(t, d.comparing, rec.Input{Mode: rec.Teardown, Confirm: "retaining"})
	if r, err := d.ledger.Get(t.Context(), all[0].ID); err != nil || r == nil || r.Retains(seedOf(all[0])) || r.ExpiresAt == 0 {
		t.Errorf("want a tombstone that expires, got %+v, %v", r, err)
	}
}

// No access is kept by a retained object: not by a profile, an engine, or a mark in the ledger's table.
func TestRetained_KeepsNoAccess(t *testing.T) {
	for path, kind := range map[string]string{"ssh/roles": "generic", "kv/nodes": "policy", "pki/k8s/roles": "pki-role", "hosts/roles": "ssh-role", "transit/keys": "generic"} {
		dir := edited(t, [3]string{"worker/profile.yaml", "outputs:\n", "outputs:\n  - {name: door, type: " + kind + ", path: " + path + ", template: door.json.tmpl" + retained + "}\n"})
		if err := os.WriteFile(filepath.Join(dir, "worker", "door.json.tmpl"), []byte(`{"key_type": "ca"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := grant.Load(os.DirFS(dir)); err == nil || !strings.Contains(err.Error(), "on_removal") {
			t.Errorf("a retained %s below %s: want it refused, got %v", kind, path, err)
		}
	}

	// A path that says nothing about its engine: Vault says it.
	dir := edited(t, [3]string{"worker/profile.yaml", "outputs:\n", "outputs:\n  - {name: door, type: generic, path: doors/nodes, template: door.json.tmpl" + retained + "}\n"})
	if err := os.WriteFile(filepath.Join(dir, "worker", "door.json.tmpl"), []byte(`{"key_type": "ca"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	vaultWrite(t, "sys/mounts/alice_cluster/doors", map[string]any{"type": "ssh"})
	setUp(t, "-templates-dir", dir)
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	a := bare(t, variant(t, provision, map[string]string{"TEMPLATES_DIR": dir}), fleet.Event(i, "running", time.Now()))
	if a.Kind != "refuse" || !strings.Contains(a.Error, "may not be retained") || !strings.Contains(a.Error, `"ssh"`) || len(objects(t, i)) > 0 {
		t.Errorf("want the grant refused for its engine, and nothing made, got %+v, %v", a, objects(t, i))
	}

	const region = "eu-central-2"
	d := deploy(t, "forged", region)
	d = d.with(t, map[string]string{"TEMPLATES_DIR": withSeed(t, retained, "")})
	forged := d.grant(t, region, 1)[0]
	session := login(t, forged)
	old, err := d.ledger.Get(t.Context(), forged.ID)
	if err != nil {
		t.Fatal(err)
	}
	next := *old
	next.Objects = append([]ledger.Object{}, old.Objects...)
	for n := range next.Objects {
		next.Objects[n].Retain = true
	}
	if _, err := d.ledger.Put(t.Context(), ledger.Write{Old: old, New: next, Owner: "test"}); err != nil {
		t.Fatal(err)
	}
	terminate(t, forged)
	runReconcile(t, d.comparing, rec.Input{Mode: rec.Correct, Force: true})
	if tokenWorks(t, session) || len(objects(t, forged)) > 0 || vaultRead(t, pathsOf(forged.ID).role) != nil {
		t.Errorf("want every role and policy removed and the token refused, got %v", objects(t, forged))
	}
	if vaultRead(t, seedOf(forged)) == nil {
		t.Error("want the seed kept")
	}
}
