package integration

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

const (
	provision   = "ProvisionFunction"
	deprovision = "DeprovisionFunction"
	memberRole  = "vault-ec2-member"
)

// world runs for the whole package.
var world *lab.World

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	parameters := lab.Parameters()
	parameters["MemberRoleName"] = memberRole
	parameters["AllowedAccounts"] = "111122223333,222233334444,333344445555,444455556666,666677778888"
	parameters["LogLevel"] = "debug"
	return labtest.Run(m, &world, 15*time.Minute, lab.Options{Parameters: parameters, SetupVault: lab.SetupVault, VaultFaultTap: true})
}

func launch(t *testing.T, s fleet.Spec) fleet.Instance {
	t.Helper()
	launched, err := world.Fleet.Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return launched[0]
}

// provisioned returns a worker with a grant that has never logged in.
func provisioned(t *testing.T) fleet.Instance {
	t.Helper()
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	must(t, provision, i, "running", "provisioned")
	return i
}

// login logs an instance in for the first time.
func login(t *testing.T, i fleet.Instance) *fleet.Session {
	t.Helper()
	session, err := world.Fleet.Login(t.Context(), world.AuthMount, i, "")
	if err != nil {
		t.Fatalf("the login of %s in account %s: %v", i.ID, i.AccountID, err)
	}
	return session
}

// clientOn returns a client of Vault whose connections come from an instance's address, or the host's if it has none.
func clientOn(t *testing.T, i fleet.Instance, token string) *vaultapi.Client {
	t.Helper()
	client, err := world.Fleet.ClientOn(i, token)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func terminate(t *testing.T, instances ...fleet.Instance) {
	t.Helper()
	if err := world.Fleet.Terminate(t.Context(), instances...); err != nil {
		t.Fatal(err)
	}
}

func setTags(t *testing.T, i fleet.Instance, tags map[string]string) {
	t.Helper()
	if err := world.Fleet.SetTags(t.Context(), i, tags); err != nil {
		t.Fatal(err)
	}
}

// remove terminates an instance and removes its grant.
func remove(t *testing.T, i fleet.Instance) {
	t.Helper()
	terminate(t, i)
	must(t, deprovision, i, "terminated", "deprovisioned")
}

// faultOn plays a fault on the calls that hits selects, until the test ends or the tap gets another fault.
func faultOn(t *testing.T, on *tap.Tap, fault tap.Fault, hits func(tap.Call) bool) {
	t.Helper()
	on.SetFault(func(c tap.Call) *tap.Fault {
		if hits(c) {
			return &fault
		}
		return nil
	})
	t.Cleanup(func() { on.SetFault(nil) })
}

// answer is a function's answer to a bare event. Failure is the error of an invocation that failed.
type answer struct {
	InstanceID, Action, Profile, FQDN, Kind, Error string
	Failure                                        string `json:"-"`
}

// bare invokes a function with an event outside of a batch and returns its answer.
func bare(t *testing.T, f *sandbox.Function, payload []byte) answer {
	t.Helper()
	result, err := f.Invoke(t.Context(), payload)
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if failure := result.Err(); failure != nil {
		a.Failure = failure.Error()
		return a
	}
	if err := json.Unmarshal(result.Payload, &a); err != nil {
		t.Fatalf("the answer %s: %v", result.Payload, err)
	}
	return a
}

// sendEvent invokes one of the world's functions with an instance's state change.
func sendEvent(t *testing.T, function string, i fleet.Instance, state string) answer {
	t.Helper()
	return bare(t, world.Functions[function], fleet.Event(i, state, time.Now()))
}

// must sends an event to one of the world's functions and fails unless its answer has the action.
func must(t *testing.T, function string, i fleet.Instance, state, action string) {
	t.Helper()
	mustBy(t, world.Functions[function], i, state, action)
}

func mustBy(t *testing.T, f *sandbox.Function, i fleet.Instance, state, action string) {
	t.Helper()
	if a := bare(t, f, fleet.Event(i, state, time.Now())); a.Action != action {
		t.Fatalf("%s of %s: got %+v, want %s\nlogs:\n%s", state, i.ID, a, action, f.Logs())
	}
}

// batch delivers messages to the provision function and returns the indices of those that stay in the queue. The invocation
// as a whole must not fail.
func batch(t *testing.T, bodies ...[]byte) []int {
	t.Helper()
	again, result := labtest.Deliver(t, world.Functions[provision], bodies...)
	if err := result.Err(); err != nil {
		t.Fatal(err)
	}
	return again
}

// logged waits until a function's log contains a text: output reaches the lab a moment after the answer.
func logged(t *testing.T, f *sandbox.Function, text string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(f.Logs(), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("want %q in the log, got\n%s", text, f.Logs())
			return
		}
	}
}

func objects(t *testing.T, i fleet.Instance) []string {
	t.Helper()
	found, err := world.ObjectsOf(t.Context(), i.ID)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// vaultCalls counts the functions' requests to Vault whose action has the prefix, except logins.
func vaultCalls(prefix string) int {
	n := 0
	for _, c := range world.Taps.Vault.Calls() {
		if strings.HasPrefix(c.Action, prefix) && !strings.HasSuffix(c.Action, "/login") {
			n++
		}
	}
	return n
}

func resetTaps() {
	world.Taps.AWS.Reset()
	world.Taps.Dynamo.Reset()
	world.Taps.Vault.Reset()
}
