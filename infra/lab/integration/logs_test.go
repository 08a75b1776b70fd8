package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe/observetest"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// TestFunctions_LogOnlyDocumentedKeysAndMetrics runs the kinds of events and faults of an instance and
// checks every line of the logs.
func TestFunctions_LogOnlyDocumentedKeysAndMetrics(t *testing.T) {
	const region = "me-central-1"
	env := map[string]string{"RECONCILE_REGIONS": region}
	granting, removing, comparing := variant(t, provision, env), variant(t, deprovision, env), variant(t, reconcile, env)
	i := launch(t, fleet.Spec{Role: "alice-worker", Region: region})
	running := fleet.Event(i, "running", time.Now())
	bare(t, granting, running)
	bare(t, granting, running)                                                                                           // unchanged
	bare(t, granting, []byte("{"))                                                                                       // malformed
	bare(t, granting, []byte(strings.Replace(string(running), "aws.ec2", "aws.s3", 1)))                                  // ignored
	bare(t, granting, fleet.Event(launch(t, fleet.Spec{Role: "unmatched-role", Region: region}), "running", time.Now())) // unmatched
	unseen := i
	unseen.ID = "i-0fedcba9876543210"
	bare(t, granting, fleet.Event(unseen, "running", time.Now())) // retried
	foreign := launch(t, fleet.Spec{Role: "alice-worker", Region: region})
	vaultWrite(t, pathsOf(foreign.ID).policy, map[string]any{"policy": "# foreign\n"})
	bare(t, granting, fleet.Event(foreign, "running", time.Now())) // conflict
	vaultDelete(t, pathsOf(i.ID).kubelet)
	runReconcile(t, comparing, rec.Input{Mode: rec.Detect, Profile: worker})
	runReconcile(t, comparing, rec.Input{Mode: rec.Correct, Profile: worker})
	if _, err := comparing.Invoke(t.Context(), []byte(`{"mode":"teardown","confirm":"x"}`)); err != nil {
		t.Fatal(err)
	}
	terminate(t, i)
	bare(t, removing, fleet.Event(i, "terminated", time.Now()))
	vaultDelete(t, pathsOf(foreign.ID).policy)
	logged(t, removing, observe.TimeToCutOff)

	counts, times := observetest.MetricNames()
	metrics := slices.Concat(counts, times)
	reported, started := map[string]bool{}, map[string]bool{}
	for name, f := range map[string]*sandbox.Function{"provision": granting, "deprovision": removing, "reconcile": comparing} {
		for text := range strings.Lines(f.Logs()) {
			if strings.HasPrefix(text, "START ") || strings.HasPrefix(text, "END ") || strings.HasPrefix(text, "REPORT ") {
				continue // Lambda's own
			}
			var line map[string]any
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Errorf("%s printed a line that is not JSON: %q", name, text)
				continue
			}
			if line["_aws"] != nil {
				for k := range line {
					reported[k] = true
					if k != "_aws" && k != "Deployment" && k != "Function" && !slices.Contains(metrics, k) {
						t.Errorf("%s reports the undocumented metric %s", name, k)
					}
				}
				continue
			}
			for k := range line {
				if !slices.Contains(observetest.Keys(), k) {
					t.Errorf("%s printed the undocumented key %q: %s", name, k, text)
				}
			}
			if strings.HasPrefix(fmt.Sprint(line["msg"]), `{"errorMessage"`) {
				continue // printed by the runtime library for a handler's error
			}
			if line["msg"] == "started" && line[observe.KeyVersion] != nil {
				started[name] = true
				continue // before the first invocation
			}
			if line[observe.KeyRequest] == nil || !strings.HasPrefix(fmt.Sprint(line[observe.KeyTrace]), "1-") {
				t.Errorf("%s: want the IDs of the request and the trace in every line, got %s", name, text)
			}
		}
	}
	for _, want := range []string{
		observe.VaultLatency, observe.EC2Latency, observe.DynamoDBLatency, observe.VaultThrottles, observe.TimeToReady, observe.TimeToCutOff,
		observe.Provisioned, observe.Conflicting, observe.Retried, observe.Ignored, observe.Malformed, observe.Unmatched, observe.DriftMissing,
	} {
		if !reported[want] {
			t.Errorf("no function reported %s", want)
		}
	}
	if len(started) != 3 {
		t.Errorf("want each function to log its version at its start, seen of %v", started)
	}
}
