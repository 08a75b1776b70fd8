package integration

import (
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// secondStack returns another deployment on the same Vault, with its own ID and table and the same profiles.
func secondStack(t *testing.T) (*lab.Line, *ledger.Ledger) {
	t.Helper()
	unmarked(t) // as two deployments that began before PKI mounts had marks
	const name = "second-ledger"
	return line(t, lab.LineOptions{
		Functions: []string{provision, deprovision, reconcile}, Concurrency: 2,
		Env: map[string]string{"DEPLOYMENT_ID": "second", "TABLE_NAME": name},
	}), newLedger(t, name)
}

// grantFields reads the fields of all objects of an instance's grant in Vault, by path.
func grantFields(t *testing.T, i fleet.Instance) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, path := range ofGrant(objects(t, i)) {
		all[path] = vaultRead(t, path)
	}
	return all
}

func TestDeployments_OnOneVaultStayApart(t *testing.T) {
	t.Parallel()
	second, itsLedger := secondStack(t)
	mine, its := launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker"})
	must(t, provision, mine, "running", "provisioned")
	redeliver(t, second.Functions[provision], fleet.Event(its, "running", time.Now()))
	session := login(t, mine)
	wantGranted(t, mine)
	granted := map[string]map[string]map[string]any{mine.ID: grantFields(t, mine), its.ID: grantFields(t, its)}
	untouched := func(i fleet.Instance, when string) {
		t.Helper()
		if now := grantFields(t, i); len(now) != 4 || !reflect.DeepEqual(now, granted[i.ID]) {
			t.Errorf("%s: want every object of the other stack's %s unchanged, got %q", when, i.ID, slices.Sorted(maps.Keys(now)))
		}
	}
	first := world.Functions
	for _, c := range []struct {
		when  string
		other fleet.Instance
		run   func(fleet.Instance)
	}{
		{"the first provisions the second's instance", its, func(i fleet.Instance) { conflict(t, sendEvent(t, provision, i, "running")) }},
		{"the second provisions the first's instance", mine, func(i fleet.Instance) {
			conflict(t, bare(t, second.Functions[provision], fleet.Event(i, "running", time.Now())))
			if r, err := itsLedger.Get(t.Context(), i.ID); err != nil || r == nil || r.State != ledger.Refused || len(r.Objects) > 0 {
				t.Errorf("want the refusal in the second's ledger, without objects, got %+v, %v", r, err)
			}
			if holder, err := itsLedger.Holder(t.Context(), ledger.Name{Under: "alice_cluster", Text: i.PrivateDNS}); err != nil || holder != nil {
				t.Errorf("want no name claimed for a refused instance, got %+v, %v", holder, err)
			}
		}},
		{"the first reconciles both", its, func(i fleet.Instance) {
			if a := runReconcile(t, first[reconcile], rec.Input{Mode: rec.Correct, InstanceIDs: []string{mine.ID, i.ID}}); a.Summary.Corrected > 0 || a.Summary.Conflicting == 0 {
				t.Errorf("want a conflicting row for the second's instance and nothing changed, got %+v", a)
			}
		}},
		{"the second reconciles both", mine, func(i fleet.Instance) {
			if a := runReconcile(t, second.Functions[reconcile], rec.Input{Mode: rec.Correct, InstanceIDs: []string{its.ID, i.ID}}); a.Summary.Corrected > 0 || a.Summary.Conflicting == 0 {
				t.Errorf("want a conflicting row for the first's instance and nothing changed, got %+v", a)
			}
		}},
	} {
		c.run(c.other)
		untouched(mine, c.when)
		untouched(its, c.when)
	}

	terminate(t, mine)
	redeliver(t, second.Functions[deprovision], fleet.Event(mine, "terminated", time.Now()))
	untouched(mine, "the second gets the terminated event of the first's instance")
	if _, err := session.Client.Auth().Token().LookupSelfWithContext(t.Context()); err != nil {
		t.Errorf("the second stack cut a token of the first's instance: %v", err)
	}
	runReconcile(t, second.Functions[reconcile], rec.Input{Mode: rec.Correct, InstanceIDs: []string{mine.ID}})
	untouched(mine, "the second reconciles the first's instance, which has ended")
	must(t, deprovision, mine, "terminated", "deprovisioned")
	wantGone(t, mine, session)
	untouched(its, "the first's instance is removed")

	terminate(t, its)
	redeliver(t, second.Functions[deprovision], fleet.Event(its, "terminated", time.Now()))
	if left := objects(t, its); len(left) > 0 {
		t.Errorf("want nothing left of the second's instance, got %q", left)
	}
}

func conflict(t *testing.T, a answer) {
	t.Helper()
	if a.Kind != "conflict" {
		t.Errorf("want a conflict for another stack's instance, got %+v", a)
	}
}
