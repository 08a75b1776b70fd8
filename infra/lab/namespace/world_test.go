package namespace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const (
	space       = "team/app"
	provisions  = "ProvisionFunction"
	deprovision = "DeprovisionFunction"
	reconciles  = "ReconcileFunction"
	k8s         = "alice_cluster/pki/k8s"
)

var (
	// world runs for the whole package.
	world *lab.World
	// hasNamespaces reports whether world's server has namespaces. One without them ignores the header: the functions act in the root
	// namespace, where the set-up ran without a namespace.
	hasNamespaces bool
	// refusal is the set-up's output on a server without namespaces, with VAULT_NAMESPACE set.
	refusal string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	return labtest.Run(m, &world, 10*time.Minute, lab.Options{Parameters: lab.Parameters(), VaultNamespace: space, SetupVault: setUp})
}

// setUp sets Vault up in the namespace, or where there are none, records how the set-up refuses and sets up the root namespace.
func setUp(ctx context.Context, w *lab.World) error {
	err := lab.SetupVault(ctx, w)
	if !errors.Is(err, lab.ErrNoNamespaces) {
		hasNamespaces = err == nil
		return err
	}
	out, err := w.VaultSetup(ctx)
	if err == nil {
		return fmt.Errorf("on a server without namespaces, the set-up must fail with VAULT_NAMESPACE=%s:\n%s", space, out)
	}
	refusal = string(out)
	auth, err := w.Vault.Sys().ListAuthWithContext(ctx)
	if err != nil || auth["aws/"] != nil {
		return fmt.Errorf("the refused set-up must write nothing: %v, %w", auth, err)
	}
	w.VaultNamespace = ""
	defer func() { w.VaultNamespace = space }()
	return lab.SetupVault(ctx, w)
}

// setUpIn runs the set-up with another VAULT_NAMESPACE.
func setUpIn(t *testing.T, namespace string, more ...string) (string, error) {
	t.Helper()
	world.VaultNamespace = namespace
	defer func() { world.VaultNamespace = space }()
	out, err := world.VaultSetup(t.Context(), more...)
	return string(out), err
}

// inRoot returns a client with the root token in the root namespace.
func inRoot() *vaultapi.Client { return world.Vault.WithNamespace("") }

func launch(t *testing.T) fleet.Instance {
	t.Helper()
	launched, err := world.Fleet.Launch(t.Context(), fleet.Spec{Role: "alice-worker"})
	if err != nil {
		t.Fatal(err)
	}
	return launched[0]
}

// granted returns a worker with a grant.
func granted(t *testing.T) fleet.Instance {
	t.Helper()
	i := launch(t)
	converge(t, provisions, i, "running", "provisioned")
	return i
}

// removed terminates an instance and removes its grant.
func removed(t *testing.T, i fleet.Instance) {
	t.Helper()
	if err := world.Fleet.Terminate(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	converge(t, deprovision, i, "terminated", "deprovisioned")
}

// converge sends an instance's state to a function, and fails unless the answer has the action.
func converge(t *testing.T, function string, i fleet.Instance, state, action string) {
	t.Helper()
	var a struct{ Action, Error string }
	invoke(t, world.Functions[function], fleet.Event(i, state, time.Now()), &a)
	if a.Action != action {
		t.Fatalf("%s of %s: seen %+v, want %s\nlogs:\n%s", state, i.ID, a, action, world.Functions[function].Logs())
	}
}

func invoke(t *testing.T, f *sandbox.Function, payload []byte, answer any) {
	t.Helper()
	result, err := f.Invoke(t.Context(), payload)
	if err != nil || result.Err() != nil {
		t.Fatalf("%v, %v\nlogs:\n%s", err, result.Err(), f.Logs())
	}
	if err := json.Unmarshal(result.Payload, answer); err != nil {
		t.Fatalf("the answer %s: %v", result.Payload, err)
	}
}

func runReconcile(t *testing.T, in reconcile.Input) reconcile.Answer {
	t.Helper()
	payload, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var a reconcile.Answer
	invoke(t, world.Functions[reconciles], payload, &a)
	return a
}

// examine runs the doctor in a reconcile function with some of its variables changed, and returns its report and one check.
func examine(t *testing.T, change map[string]string, name string) (doctor.Report, doctor.Check) {
	t.Helper()
	s := labtest.Variant(t, world, reconciles, change)
	var r doctor.Report
	invoke(t, s, []byte(`{"mode":"doctor"}`), &r)
	i := slices.IndexFunc(r.Checks, func(c doctor.Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check %q in %+v", name, r.Checks)
	}
	return r, r.Checks[i]
}

func objects(t *testing.T, i fleet.Instance) []string {
	t.Helper()
	found, err := world.ObjectsOf(t.Context(), i.ID)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// decoys makes objects in the root namespace with the names of an instance's own. The returned function checks that they are as
// they were, and the only ones there. On a server without namespaces it makes none.
func decoys(t *testing.T, i fleet.Instance) (check func()) {
	t.Helper()
	if !hasNamespaces {
		return func() {}
	}
	root := inRoot()
	if auth, err := root.Sys().ListAuthWithContext(t.Context()); err != nil {
		t.Fatal(err)
	} else if auth["aws/"] == nil {
		if err := root.Sys().EnableAuthWithOptionsWithContext(t.Context(), "aws", &vaultapi.EnableAuthOptions{Type: "aws"}); err != nil {
			t.Fatal(err)
		}
	}
	policy, role := grant.PolicyPath(grant.PolicyName(i.ID, "node")), grant.AuthRolePath("aws", i.ID)
	for path, fields := range map[string]map[string]any{
		policy: {"policy": "# of another team\n"}, role: {"auth_type": "ec2", "bound_account_id": "999999999999"},
	} {
		if _, err := root.Logical().WriteWithContext(t.Context(), path, fields); err != nil {
			t.Fatal(err)
		}
	}
	read := func() []byte {
		var all []any
		for _, path := range []string{policy, role} {
			answer, err := root.Logical().ReadWithContext(t.Context(), path)
			if err != nil || answer == nil {
				t.Errorf("%s of the root namespace is gone: %v", path, err)
				continue
			}
			all = append(all, answer.Data)
		}
		text, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	before := read()
	t.Cleanup(func() {
		for _, path := range []string{policy, role} {
			if _, err := root.Logical().DeleteWithContext(context.WithoutCancel(t.Context()), path); err != nil {
				t.Error(err)
			}
		}
	})
	return func() {
		t.Helper()
		if after := read(); !bytes.Equal(before, after) {
			t.Errorf("the objects of the root namespace were changed:\n%s\n%s", before, after)
		}
	}
}

// onlyIn checks that the functions' requests since a time, and those of the instances, were in the namespace.
func onlyIn(t *testing.T, since time.Time) {
	t.Helper()
	if !hasNamespaces {
		return
	}
	requests, err := world.VaultRequests(since)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, r := range requests {
		if r.DisplayName == "root" { // the test's own
			continue
		}
		seen++
		if r.Namespace != space+"/" {
			t.Errorf("%s %s by %q was in namespace %q, want %s/", r.Operation, r.Path, r.DisplayName, r.Namespace, space)
		}
	}
	if seen == 0 {
		t.Error("Vault's audit log shows no request of functions and instances")
	}
}

// loggedNamespace checks that a function's log lines name the namespace.
func loggedNamespace(t *testing.T, function string) {
	t.Helper()
	for line := range strings.Lines(world.Functions[function].Logs()) {
		if strings.HasPrefix(line, `{"time"`) && !strings.Contains(line, `"vault_namespace":"`+space+`"`) {
			t.Errorf("%s logged a line without the namespace: %s", function, line)
		}
	}
}
