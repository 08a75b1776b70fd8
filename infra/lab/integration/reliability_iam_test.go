package integration

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// byInstanceProfile returns the lab's profiles, each matching by instance profile in place of the IAM role.
func byInstanceProfile(t *testing.T) string {
	t.Helper()
	var changes [][3]string
	for _, role := range []string{"worker", "master", "etcd"} {
		changes = append(changes, [3]string{
			role + "/profile.yaml",
			fmt.Sprintf(`iam_role_arn: ["arn:aws*:iam::*:role/alice-%[1]s", "arn:aws*:iam::*:role/*/alice-%[1]s"]`, role),
			"iam_instance_profile_arn: arn:aws*:iam::*:instance-profile/alice-" + role,
		})
	}
	return edited(t, changes...)
}

// noIAM cuts every call of IAM, as in a private network without a way to us-east-1.
func noIAM(c tap.Call) *tap.Fault {
	if c.Service == "iam" {
		return &tap.Fault{CutBefore: true}
	}
	return nil
}

// TestNetworkWithoutIAM_ServesProfilesByInstanceProfile runs a whole life: grant, login, comparison, doctor, removal.
func TestNetworkWithoutIAM_ServesProfilesByInstanceProfile(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{provision, deprovision, reconcile}, Env: map[string]string{"TEMPLATES_DIR": byInstanceProfile(t)}})
	l.SetFault(noIAM)
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	if again, _ := labtest.Deliver(t, l.Functions[provision], fleet.Event(i, "running", time.Now())); len(again) > 0 {
		t.Fatalf("want the instance granted without IAM\nlogs:\n%s", lastOf(l.Functions[provision].Logs()))
	}
	if got, want := ofGrant(objects(t, i)), grantOf(i.ID); !slices.Equal(got, want) {
		t.Errorf("want exactly these objects in Vault\n%q, got\n%q", want, got)
	}
	role := vaultRead(t, pathsOf(i.ID).role)
	if got := fmt.Sprint(role["bound_iam_role_arn"], role["bound_iam_instance_profile_arn"]); got != "[] ["+i.InstanceProfileARN+"]" {
		t.Errorf("want the instance profile bound and no role, which Vault would ask IAM for, got %s", got)
	}
	login(t, i)
	if a := runReconcile(t, l.Functions[reconcile], rec.Input{InstanceIDs: []string{i.ID}}); len(a.Drift) > 0 {
		t.Errorf("want no drift without IAM, got %+v", a.Drift)
	}
	_, checks := examine(t, l.Functions[reconcile])
	if c := checks["iam own account"]; !c.OK {
		t.Errorf("want IAM not asked by the doctor, got %+v", c)
	}
	if n := l.Taps.AWS.Count("iam", ""); n > 0 {
		t.Errorf("want no call of IAM, got %d", n)
	}
	terminate(t, i)
	if again, _ := labtest.Deliver(t, l.Functions[deprovision], fleet.Event(i, "terminated", time.Now())); len(again) > 0 {
		t.Errorf("want the removal done\nlogs:\n%s", lastOf(l.Functions[deprovision].Logs()))
	}
	wantGone(t, i)
}

// TestRender_AsksIAMOnlyWhereTheRoleDecides runs the command with an IAM that does not answer.
func TestRender_AsksIAMOnlyWhereTheRoleDecides(t *testing.T) {
	t.Parallel()
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	away := []string{"AWS_ENDPOINT_URL_IAM=http://127.0.0.1:1", "AWS_MAX_ATTEMPTS=1"}
	out := (&desk{T: t}).run(away, "render", "-templates", byInstanceProfile(t), "-instance", i.ID)
	if !strings.Contains(out, "profile:  alice_cluster-worker") || !strings.Contains(out, "guard:    passed") {
		t.Errorf("want the objects, since no profile needs the IAM role, got\n%s", out)
	}
}

// TestNetworkWithoutIAM_DoctorNamesIt has the built-in profiles, which match by role.
func TestNetworkWithoutIAM_DoctorNamesIt(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{reconcile}})
	l.SetFault(noIAM)
	_, checks := examine(t, l.Functions[reconcile])
	if c := checks["iam own account"]; c.OK || !strings.Contains(c.Remedy, "com.amazonaws.iam") || !strings.Contains(c.Remedy, "alice_cluster-worker") {
		t.Errorf("want the check to fail with the remedy for IAM and the profiles that need it, got %+v", c)
	}
}

// TestIAMOutage_KnownRoleMakesGrants has one role that this sandbox has asked IAM about, and one that it has not.
func TestIAMOutage_KnownRoleMakesGrants(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{provision}})
	f := l.Functions[provision]
	before, known, unknown := launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-worker"}), launch(t, fleet.Spec{Role: "alice-etcd"})
	if again, _ := labtest.Deliver(t, f, fleet.Event(before, "running", time.Now())); len(again) > 0 {
		t.Fatalf("want a grant while IAM answers\nlogs:\n%s", lastOf(f.Logs()))
	}
	l.SetFault(func(c tap.Call) *tap.Fault {
		if c.Service == "iam" {
			return queryError(http.StatusServiceUnavailable, "ServiceUnavailable")(l, c)
		}
		return nil
	})
	if again, _ := labtest.Deliver(t, f, fleet.Event(known, "running", time.Now()), fleet.Event(unknown, "running", time.Now())); !slices.Equal(again, []int{1}) {
		t.Errorf("want the known role's instance granted and only the other back, got %v\nlogs:\n%s", again, lastOf(f.Logs()))
	}
	wantGranted(t, known)
	if left := objects(t, unknown); len(left) > 0 {
		t.Errorf("want nothing made for a role that was never known, got %q", left)
	}
	if logs := f.Logs(); !strings.Contains(logs, "IAM does not answer") || !strings.Contains(logs, known.InstanceProfileARN) {
		t.Errorf("want a log line with the instance profile\nlogs:\n%s", lastOf(logs))
	}
	l.SetFault(nil)
	untilDone(t, f, unknown, fleet.Event(unknown, "running", time.Now()))
}

// aged has EC2 show an instance as started two hours ago: moto starts it now.
func aged(t *testing.T) func(tap.Call) *tap.Fault {
	return func(c tap.Call) *tap.Fault {
		if c.Action != "DescribeInstances" {
			return nil
		}
		answer := askMoto(t, c, func(url.Values) {})
		if answer != nil {
			started := "<launchTime>" + time.Now().Add(-2*time.Hour).UTC().Format(time.RFC3339) + "</launchTime>"
			answer.Body = regexp.MustCompile(`<launchTime>[^<]*</launchTime>`).ReplaceAll(answer.Body, []byte(started))
		}
		return answer
	}
}

// TestLostInstanceProfile_IsRefusedOnceAndKeepsTheGrant deletes an instance profile under a running instance.
func TestLostInstanceProfile_IsRefusedOnceAndKeepsTheGrant(t *testing.T) {
	t.Parallel()
	const role = "alice-lost"
	o := lab.LineOptions{
		Functions: []string{provision, deprovision, reconcile},
		Env:       map[string]string{"TEMPLATES_DIR": changed(t, "worker/profile.yaml", "role/alice-worker", "role/"+role)},
	}
	before := line(t, o)
	i := launch(t, fleet.Spec{Role: role})
	if again, _ := labtest.Deliver(t, before.Functions[provision], fleet.Event(i, "running", time.Now())); len(again) > 0 {
		t.Fatalf("want a grant while the instance profile exists\nlogs:\n%s", lastOf(before.Functions[provision].Logs()))
	}
	client, name := iam.NewFromConfig(world.AWS), role
	if _, err := client.RemoveRoleFromInstanceProfile(t.Context(), &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: &name, RoleName: &name}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteInstanceProfile(t.Context(), &iam.DeleteInstanceProfileInput{InstanceProfileName: &name}); err != nil {
		t.Fatal(err)
	}
	l := line(t, o) // whose functions do not know the role
	l.SetFault(aged(t))
	if again, _ := labtest.Deliver(t, l.Functions[provision], fleet.Event(i, "running", time.Now())); len(again) > 0 {
		t.Errorf("want the event acknowledged: it would come back for over an hour and end in the dead-letter queue\nlogs:\n%s", lastOf(l.Functions[provision].Logs()))
	}
	if kind := kindLogged(t, l.Functions[provision].Logs, i.ID); kind != "refuse" {
		t.Errorf("want kind refuse, got %q", kind)
	}
	if r := recordOf(t, i); r.State != ledger.Active || !strings.Contains(r.LastError, i.InstanceProfileARN+" does not exist in IAM") {
		t.Errorf("want the grant kept and the reason recorded, got %s, %q", r.State, r.LastError)
	}
	a := runReconcile(t, l.Functions[reconcile], rec.Input{Mode: "correct", InstanceIDs: []string{i.ID}})
	if len(a.Drift) != 1 || a.Drift[0].Action != rec.None || !strings.Contains(a.Drift[0].Error, "does not exist in IAM") || a.Summary.Failed > 0 {
		t.Errorf("want one row with the reason, which is no failure, got %+v", a)
	}
	if got, want := ofGrant(objects(t, i)), grantOf(i.ID); !slices.Equal(got, want) {
		t.Errorf("want the grant to stay\n%q, got\n%q", want, got)
	}
	terminate(t, i)
	if again, _ := labtest.Deliver(t, l.Functions[deprovision], fleet.Event(i, "terminated", time.Now())); len(again) > 0 {
		t.Errorf("want the removal done\nlogs:\n%s", lastOf(l.Functions[deprovision].Logs()))
	}
	wantGone(t, i)
}
