package cluster

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const (
	provision   = "ProvisionFunction"
	deprovision = "DeprovisionFunction"
	reconcile   = "ReconcileFunction"

	// patience bounds the deliveries of one message: an election, and a node's start on a busy machine.
	patience = 90 * time.Second
)

// world runs for the whole package. Its pollers do not run: a test delivers messages itself.
var world *lab.World

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	parameters := lab.Parameters()
	parameters["LogLevel"] = "debug"
	return labtest.Run(m, &world, 15*time.Minute, lab.Options{Parameters: parameters, SetupVault: lab.SetupVault, VaultCluster: true, DeferFunctions: true})
}

// line returns a line with all three functions that is closed at the end of the test.
func line(t *testing.T, o lab.LineOptions) *lab.Line {
	t.Helper()
	o.Functions = []string{provision, deprovision, reconcile}
	return labtest.Line(t, world, o)
}

// restore makes the cluster whole.
func restore(t *testing.T) {
	t.Helper()
	if err := world.Cluster.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func launch(t *testing.T, count int) []fleet.Instance {
	t.Helper()
	launched, err := world.Fleet.Launch(t.Context(), fleet.Spec{Role: "alice-worker", Count: count})
	if err != nil {
		t.Fatal(err)
	}
	return launched
}

func terminate(t *testing.T, instances ...fleet.Instance) {
	t.Helper()
	if err := world.Fleet.Terminate(t.Context(), instances...); err != nil {
		t.Fatal(err)
	}
}

func login(t *testing.T, i fleet.Instance) *fleet.Session {
	t.Helper()
	session, err := world.Fleet.Login(t.Context(), world.AuthMount, i, "")
	if err != nil {
		t.Fatal(err)
	}
	return session
}

// deliver invokes a function with one message of each instance and returns the instances whose messages stay in the queue.
func deliver(t *testing.T, f *sandbox.Function, state string, instances ...fleet.Instance) (again []fleet.Instance) {
	t.Helper()
	var bodies [][]byte
	for _, i := range instances {
		bodies = append(bodies, fleet.Event(i, state, time.Now()))
	}
	failed, result := labtest.Deliver(t, f, bodies...)
	if err := result.Err(); err != nil {
		t.Errorf("a fault of Vault fails its messages, never the whole invocation: %v", err)
	}
	for _, n := range failed {
		again = append(again, instances[n])
	}
	return again
}

// untilDone delivers messages as their queue would, until the function is done with all of them, and returns the number of
// deliveries. It expires the leases of runs that ended without an answer of Vault instead of waiting for them.
func untilDone(t *testing.T, f *sandbox.Function, state string, instances ...fleet.Instance) int {
	t.Helper()
	deadline := time.Now().Add(patience)
	for n := 1; ; n++ {
		if instances = deliver(t, f, state, instances...); len(instances) == 0 {
			return n
		}
		if time.Now().After(deadline) || t.Failed() {
			t.Fatalf("%d messages still come back after %d deliveries\nlogs:\n%s", len(instances), n, lastOf(f.Logs()))
		}
		for _, i := range instances {
			labtest.ExpireLease(t, world, i.ID)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// correct runs reconcile in mode correct for instances and returns its answer; ok is false if it reports anything undone.
func correct(t *testing.T, f *sandbox.Function, instances ...fleet.Instance) (a rec.Answer, ok bool) {
	t.Helper()
	in := rec.Input{Mode: rec.Correct}
	for _, i := range instances {
		in.InstanceIDs = append(in.InstanceIDs, i.ID)
	}
	payload, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	result, err := f.Invoke(t.Context(), payload)
	if err != nil {
		t.Fatal(err)
	}
	if result.Err() != nil {
		return a, false // as its caller sees it: the run failed
	}
	if err := json.Unmarshal(result.Payload, &a); err != nil {
		t.Fatalf("the answer %s: %v", result.Payload, err)
	}
	return a, a.Summary.Failed == 0 && !a.Blocked
}

// grantOf returns the paths of a worker's grant, sorted.
func grantOf(id string) []string {
	all := []string{
		"auth/" + world.AuthMount + "/role/" + id, "sys/policies/acl/ec2-" + id + "-node",
		"alice_cluster/pki/k8s/roles/" + id + "-kubelet", "alice_cluster/pki/k8s/roles/" + id + "-kube_proxy",
	}
	slices.Sort(all)
	return all
}

// wantGranted fails unless Vault and the ledger hold exactly the grants of workers. It reads all of them at once.
func wantGranted(t *testing.T, instances ...fleet.Instance) {
	t.Helper()
	all, err := world.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range instances {
		found := slices.DeleteFunc(slices.Clone(all[i.ID]), func(path string) bool {
			return strings.HasPrefix(path, "identity/") || strings.Contains(path, "/identity-accesslist/")
		})
		slices.Sort(found)
		if want := grantOf(i.ID); !slices.Equal(found, want) {
			t.Errorf("want exactly these objects of %s in Vault\n%q, got\n%q", i.ID, want, found)
		}
		r, err := world.Record(t.Context(), i.ID)
		if err != nil || r.State != ledger.Active || r.LeaseOwner != "" || r.LastError != "" || len(r.Objects) != len(grantOf("")) {
			t.Errorf("want an active record of %s without a lease and an error, got %+v, %v", i.ID, r, err)
		}
	}
}

// wantGone fails unless a removed instance has nothing but its tombstone, and Vault itself refuses its token.
func wantGone(t *testing.T, i fleet.Instance, s *fleet.Session) {
	t.Helper()
	if left, err := world.ObjectsOf(t.Context(), i.ID); err != nil || len(left) > 0 {
		t.Errorf("want no object of the removed %s in Vault, got %q, %v", i.ID, left, err)
	}
	items, err := world.ItemsOf(t.Context(), i.ID)
	if err != nil || !slices.Equal(items, []string{"instance#" + i.ID}) {
		t.Errorf("want only the tombstone of %s in the ledger, got %q, %v", i.ID, items, err)
	}
	if r, err := world.Record(t.Context(), i.ID); err != nil || r.State != ledger.Deleted || r.LeaseOwner != "" {
		t.Errorf("want a tombstone of %s, got %+v, %v", i.ID, r, err)
	}
	// An outage is no refusal.
	var answer *vaultapi.ResponseError
	if _, err := s.Client.Auth().Token().LookupSelfWithContext(t.Context()); !errors.As(err, &answer) || answer.StatusCode != http.StatusForbidden {
		t.Errorf("want Vault to refuse the token of the removed %s, got %v", i.ID, err)
	}
}

// lastOf returns the end of a log.
func lastOf(log string) string { return log[max(0, len(log)-4000):] }
