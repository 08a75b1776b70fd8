package integration

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// PKI mounts of the former version have no mark: instances are granted, the doctor reports it, and the setup marks them.
func TestUpgrade_UnmarkedMountsStillGrant(t *testing.T) {
	unmarked(t)
	granting := variant(t, provision, nil)
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	if a := bare(t, granting, fleet.Event(i, "running", time.Now())); a.Action != "provisioned" {
		t.Errorf("got %+v", a)
	}
	_, checks := examine(t, world.Functions[reconcile])
	if c := checks["pki owner "+k8s]; c.OK || !strings.Contains(c.Detail, "has no mark") || !strings.Contains(c.Remedy, "-deployment") {
		t.Errorf("want the doctor to report the missing mark, got %+v", c)
	}
	out, err := world.VaultSetup(t.Context())
	if err != nil || !strings.Contains(string(out), k8s) {
		t.Fatalf("want the mount marked, got %v\n%s", err, out)
	}
	t.Logf("%s", out)
	if _, checks := examine(t, variant(t, reconcile, nil)); !checks["pki owner "+k8s].OK {
		t.Errorf("got %+v", checks["pki owner "+k8s])
	}
	wantGranted(t, i)
}

// The functions handle messages that the former version left in the queues.
func TestUpgrade_OldMessagesAreUnderstood(t *testing.T) {
	const region = "ap-south-2" // another test's: the lab has room for 32 regions
	env := map[string]string{"RECONCILE_REGIONS": region}
	var old struct{ Provision, Reconcile []string }
	i := launch(t, fleet.Spec{Role: "alice-worker", Region: region})
	if err := json.Unmarshal([]byte(fixture(t, "messages.json", i)), &old); err != nil {
		t.Fatal(err)
	}
	for _, body := range old.Provision {
		if again := batch(t, []byte(body)); len(again) > 0 {
			t.Errorf("want %s done, got it back", body)
		}
	}
	wantGranted(t, i)
	for n, body := range old.Reconcile {
		f := variant(t, reconcile, env)
		if result, err := f.Invoke(t.Context(), labtest.Batch([]byte(body))); err != nil || result.Err() != nil {
			t.Errorf("message %d: %v, %v\n%s", n, err, result.Err(), f.Logs())
		}
		if result, err := f.Invoke(t.Context(), []byte(body)); err != nil || result.Err() != nil {
			t.Errorf("input %d: %v, %v\n%s", n, err, result.Err(), f.Logs())
		}
	}
	wantGranted(t, i)
}

// Under the former Vault policies a removal deletes everything but does not end: it cannot check that the tokens are cut.
// After the setup the next delivery ends it.
func TestUpgrade_OldPoliciesKeepRemovalOpen(t *testing.T) {
	for kind, file := range kinds {
		t.Run(kind, func(t *testing.T) {
			s := before(t, file, launch(t, fleet.Spec{Role: "alice-worker"}))
			fresh := launch(t, fleet.Spec{Role: "alice-worker"})
			for _, name := range []string{"provision", "deprovision", "reconcile"} {
				vaultSet(t, "sys/policies/acl/ec2-provisioner-"+name, map[string]any{"policy": fixture(t, name+".hcl", s.Instance)})
			}
			must(t, provision, fresh, "running", "provisioned")
			wantGranted(t, fresh) // as reconcile finds it under its own former policy
			terminate(t, s.Instance)
			for range 2 {
				a := sendEvent(t, deprovision, s.Instance, "terminated")
				if !strings.Contains(a.Failure, "it is unknown whether the tokens of instance "+s.ID+" are cut") || !strings.Contains(a.Failure, "run vault-ec2 setup") {
					t.Errorf("want a failure that is redelivered and names the remedy, got %+v", a)
				}
				if left := objects(t, s.Instance); len(left) > 0 {
					t.Errorf("want no object left in Vault, got %q", left)
				}
				s.isCut(t)
				if r := recordOf(t, s.Instance); r.State != ledger.Deprovisioning || r.UncutUntil != nil {
					t.Errorf("want the record not yet deleted, got %+v", r)
				}
			}
			if out, err := world.VaultSetup(t.Context()); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			must(t, deprovision, s.Instance, "terminated", "deprovisioned")
			wantGone(t, s.Instance)
		})
	}
}

// An old tombstone stays, and an old removal that waits for its second cut ends.
func TestUpgrade_FinishesOldRemovals(t *testing.T) {
	gone := launch(t, fleet.Spec{Role: "alice-worker"})
	settling := launch(t, fleet.Spec{Role: "alice-worker"})
	terminate(t, gone, settling)
	before(t, "tombstone.json", gone)
	before(t, "settling.json", settling)
	in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{gone.ID}}
	if a := runReconcile(t, world.Functions[reconcile], in); len(a.Drift) > 0 || a.Blocked {
		t.Errorf("got %+v", a)
	}
	if a := sendEvent(t, deprovision, gone, "terminated"); a.Action != "unchanged" {
		t.Errorf("got %+v", a)
	}
	must(t, deprovision, settling, "terminated", "deprovisioned")
	wantGone(t, settling)

	// After a rollback to the former version and another upgrade, claims remain that the former version did not know.
	next := launch(t, fleet.Spec{Role: "alice-worker"})
	putItem(t, map[string]any{"pk": "claim#" + k8s + "#" + next.PrivateIP, "instance_id": gone.ID, "account": gone.AccountID, "region": gone.Region}, nil, "")
	if a := sendEvent(t, provision, next, "running"); !strings.Contains(a.Failure, "its removal is awaited") {
		t.Errorf("want the message back until reconcile frees the address, got %+v", a)
	}
	in.InstanceIDs = []string{next.ID}
	if a := runReconcile(t, world.Functions[reconcile], in); a.Summary.Corrected == 0 || a.Summary.Failed > 0 {
		t.Errorf("got %+v", a)
	}
	wantGranted(t, next)
}

// A deployment that replaces another finds its mark. Its grants are refused until the mark is changed by hand, unless it
// adopts, which ignores marks.
func TestUpgrade_ForeignMarkRefusesUntilChanged(t *testing.T) {
	unmarked(t) // restores the marks at the end
	heir := deploy(t, "heir", "us-east-1")
	mark := func(deployment string) {
		t.Helper()
		for _, mount := range pkiMounts {
			vaultWrite(t, "sys/mounts/"+mount+"/tune", map[string]any{"description": "managed-by: vault-ec2-provisioner, deployment: " + deployment})
		}
	}
	first, second := launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker"})
	mark("lab")
	(&contention{t: t}).refuses(otherStack, heir.granting, first, "heir", "lab", k8s)
	adopting := heir.with(t, map[string]string{"CONFLICT_MODE": "adopt"})
	if a := bare(t, adopting.granting, fleet.Event(first, "running", time.Now())); a.Action != "provisioned" {
		t.Errorf("want the mark ignored while it adopts, got %+v", a)
	}
	if _, checks := examine(t, adopting.comparing); checks["pki owner "+k8s].OK {
		t.Error("want the doctor to report the mark nevertheless")
	}
	mark("heir")
	again := heir.with(t, nil)
	if a := bare(t, again.granting, fleet.Event(second, "running", time.Now())); a.Action != "provisioned" {
		t.Errorf("want a grant once the mark is its own, got %+v", a)
	}
	if _, checks := examine(t, again.comparing); !checks["pki owner "+k8s].OK {
		t.Errorf("got %+v", checks["pki owner "+k8s])
	}
}

// An old record does not hold the login type. The alias setting of an auth type that the profile does not use still does not
// prevent its removal.
func TestUpgrade_UnusedAliasKeepsNoRemovalOpen(t *testing.T) {
	s := before(t, "worker.json", launch(t, fleet.Spec{Role: "alice-worker"}))
	aliases(t, map[string]any{"iam_alias": "unique_id"})
	remove(t, s.Instance)
	wantGone(t, s.Instance)
	s.isCut(t)
}

// The setup with -set-alias leaves live tokens under the former alias, the role_id of the auth role. A removal reads the role
// and cuts those tokens, whether or not reconcile carried the instance over before.
func TestUpgrade_CutsTokensOfTheFormerAlias(t *testing.T) {
	for _, carried := range []bool{false, true} {
		aliases(t, map[string]any{"ec2_alias": "role_id"})
		s := before(t, "worker.json", launch(t, fleet.Spec{Role: "alice-worker"}))
		aliases(t, map[string]any{"ec2_alias": "instance_id", "ec2_metadata": []string{"account_id", "auth_type", "instance_id"}})
		s.works(t)
		if carried {
			if a := correct(t, s.Instance); a.Summary.Corrected == 0 || a.Summary.Failed > 0 {
				t.Errorf("got %+v", a)
			}
			s.works(t)
		}
		remove(t, s.Instance)
		wantGone(t, s.Instance)
		s.isCut(t)
	}
}
