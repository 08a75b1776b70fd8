package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// byInstanceProfile returns the lab's profiles, each matching by instance profile in place of the IAM role.
func byInstanceProfile(t *testing.T) string {
	t.Helper()
	var changes [][3]string
	for _, role := range []string{"worker", "master", "etcd"} {
		changes = append(changes, [3]string{role + "/profile.yaml", "iam_role_arn: arn:aws:iam::*:role/", "iam_instance_profile_arn: arn:aws:iam::*:instance-profile/"})
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

// TestNetworkWithoutIAM_DoctorNamesIt has the built-in profiles, which match by role.
func TestNetworkWithoutIAM_DoctorNamesIt(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{reconcile}})
	l.SetFault(noIAM)
	_, checks := examine(t, l.Functions[reconcile])
	if c := checks["iam own account"]; c.OK || !strings.Contains(c.Remedy, "us-east-1") || !strings.Contains(c.Remedy, "alice_cluster-worker") {
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
