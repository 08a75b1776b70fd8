package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// labFile writes the file of a lab that serves a deployment's reconcile function, as make lab does.
func labFile(t *testing.T, d deployment) string {
	t.Helper()
	lines := append(servedBy(t, d.comparing), "AWS_REGION="+world.Region, "AWS_ACCESS_KEY_ID=lab", "AWS_SECRET_ACCESS_KEY=lab",
		"RECONCILE_FUNCTION="+d.comparing.Name(), "TABLE_NAME="+d.env["TABLE_NAME"], "PROFILES="+d.env["PROFILES"],
		"AWS_ENDPOINT_URL_DYNAMODB="+aws.ToString(world.Dynamo.Options().BaseEndpoint))
	file := filepath.Join(t.TempDir(), "lab.env")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// vaultEC2 runs the command with an operator's input. It fails unless the command ends with a status and prints a text.
func vaultEC2(t *testing.T, typed string, status int, says string, args ...string) {
	t.Helper()
	cmd, err := world.Command(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(typed), &out, &out
	_ = cmd.Run() // its status is compared
	if got := cmd.ProcessState.ExitCode(); got != status || !strings.Contains(out.String(), says) {
		t.Fatalf("vault-ec2 %q: want the status %d and %q, got %d and\n%s", args, status, says, got, out.String())
	}
}

// An operator rolls profiles of a folder out to a fleet, and takes them back, by the command alone.
func TestRollOut_ByCommand(t *testing.T) {
	const region = "ap-southeast-4"
	d := deploy(t, "rolled", region).with(t, fromLedger("active"))
	d = d.with(t, map[string]string{"RECONCILE_REGIONS": region})
	lab := "--lab=" + labFile(t, d)
	good := world.Profiles
	shorter := changed(t, "worker/profile.yaml", "token_ttl: 1h", "token_ttl: 30m")
	open := changed(t, "worker/policy.hcl.tmpl", "{{ identityAccess }}", "path \"*\" { capabilities = [\"sudo\"] }")

	vaultEC2(t, "", 2, "no profiles are active", "doctor", lab)
	vaultEC2(t, "", 0, "no profiles were activated", "profiles", lab)
	vaultEC2(t, "", 1, "the profiles are refused", "plan", lab, open)
	vaultEC2(t, "", 2, "no such version", "apply", lab, "--previous")
	vaultEC2(t, "no\n", 1, "nothing was activated", "apply", lab, good)
	vaultEC2(t, "yes\n", 0, "are active", "apply", lab, good)
	all := d.grant(t, region, 3)
	session := login(t, all[0])

	vaultEC2(t, "", 0, "already", "apply", lab, good)
	vaultEC2(t, "", 1, "3 auth roles changed", "plan", lab, shorter)
	vaultEC2(t, "yes\n", 1, "worker/", "apply", lab, open)
	vaultEC2(t, "", 1, "the profiles are refused", "plan", lab, open)
	vaultEC2(t, "", 1, "3 lose theirs", "plan", lab, withoutProfile(t, "worker"))
	vaultEC2(t, "", 1, "vault rights", "apply", lab, "--yes", changed(t, "etcd/profile.yaml", "base_path: alice_cluster", "base_path: bob_cluster"))

	vaultEC2(t, "yes\n", 0, "vault-ec2 reconcile "+lab+" --mode correct", "apply", lab, shorter)
	// What other tests left in Vault has rows too, as other owners' objects.
	mine := []string{all[0].ID, all[1].ID, all[2].ID}
	vaultEC2(t, "", 0, "3 corrected", "reconcile", lab, "--mode", "correct", "--instance", mine[0], "--instance", mine[1], "--instance", mine[2])
	if a := runReconcile(t, d.comparing, rec.Input{Mode: rec.Detect, InstanceIDs: mine}); len(a.Drift) > 0 || !tokenWorks(t, session) {
		t.Errorf("want no drift, and the instance's token alive, got %+v", a.Drift)
	}
	vaultEC2(t, "", 1, "3 auth roles changed", "plan", lab, good)
	vaultEC2(t, "", 0, "are active", "apply", lab, "--previous", "--yes")
	vaultEC2(t, "", 0, "the lab's operator", "profiles", lab)
	if i := launch(t, fleet.Spec{Role: "alice-worker", Region: region}); !tokenWorks(t, session) {
		t.Errorf("%s lost its token", i.ID)
	}
}

// withoutProfile returns a folder with the lab's profiles but one.
func withoutProfile(t *testing.T, name string) string {
	t.Helper()
	dir := edited(t)
	if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A fork with profiles in its build moves to a release, whose functions have others. Nothing is removed between the deployment and the
// activation of the fork's own.
func TestProfiles_FromTheBuildToTheLedger(t *testing.T) {
	const region = "ap-southeast-4"
	d := deploy(t, "forked", region)
	all := d.grant(t, region, 2)
	session := login(t, all[0])

	change := fromLedger("active")
	change["RECONCILE_REGIONS"] = region
	d = d.with(t, change)
	lab := "--lab=" + labFile(t, d)
	vaultEC2(t, "", 2, "no profiles are active", "reconcile", lab, "--mode", "correct", "--force")
	if !tokenWorks(t, session) {
		t.Fatal("an instance lost its token while no profiles were active")
	}
	vaultEC2(t, "", 0, "are active", "apply", lab, "--yes", world.Profiles)
	only := rec.Input{Mode: rec.Correct, InstanceIDs: []string{all[0].ID, all[1].ID}}
	if a := runReconcile(t, d.comparing, only); len(a.Drift) > 0 || a.Blocked || !tokenWorks(t, session) {
		t.Errorf("want the grants as before, and the token alive, got %+v", a)
	}
	mustBy(t, d.granting, launch(t, fleet.Spec{Role: "alice-worker", Region: region}), "running", "provisioned")
}
