package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
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
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	parameters := lab.Parameters()
	parameters["MemberRoleName"] = memberRole
	parameters["AllowedAccounts"] = "111122223333,222233334444,333344445555,444455556666,666677778888"
	parameters["LogLevel"] = "debug"
	var err error
	world, err = lab.Start(ctx, lab.Options{
		RepoRoot: filepath.Join("..", "..", ".."), Parameters: parameters, SetupVault: lab.SetupVault, VaultFaultTap: true,
		Progress: func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := world.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func launch(t *testing.T, s fleet.Spec) fleet.Instance {
	t.Helper()
	launched, err := world.Fleet.Launch(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return launched[0]
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

// must sends an event and fails unless the function's answer has the action.
func must(t *testing.T, function string, i fleet.Instance, state, action string) {
	t.Helper()
	if a := sendEvent(t, function, i, state); a.Action != action {
		t.Fatalf("%s of %s: got %+v, want %s\nlogs:\n%s", state, i.ID, a, action, world.Functions[function].Logs())
	}
}

// batch invokes the provision function with SQS messages and returns the IDs of those to deliver again.
func batch(t *testing.T, bodies ...string) []string {
	t.Helper()
	var records []map[string]any
	for n, body := range bodies {
		records = append(records, map[string]any{"messageId": fmt.Sprint(n), "body": body, "eventSource": "aws:sqs"})
	}
	payload, err := json.Marshal(map[string]any{"Records": records})
	if err != nil {
		t.Fatal(err)
	}
	result, err := world.Functions[provision].Invoke(t.Context(), payload)
	if err != nil || result.Err() != nil {
		t.Fatalf("%v, %v", err, result.Err())
	}
	var out struct {
		BatchItemFailures []struct{ ItemIdentifier string }
	}
	if err := json.Unmarshal(result.Payload, &out); err != nil {
		t.Fatal(err)
	}
	again := []string{}
	for _, f := range out.BatchItemFailures {
		again = append(again, f.ItemIdentifier)
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
