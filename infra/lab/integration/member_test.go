package integration

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const (
	memberAccount = "333344445555"
	memberRegion  = "eu-central-1"
)

// deployMember deploys infra/member-account into the other account and region.
func deployMember(t *testing.T) *stack.Stack {
	t.Helper()
	w, err := parts.NewWorkspace(filepath.Join("..", "..", ".."), "", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	python, err := parts.Python(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	expanded, err := stack.Expand(t.Context(), python, filepath.Join("..", "..", "member-account", "template.yaml"), memberRegion)
	if err != nil {
		t.Fatal(err)
	}
	config, err := world.Fleet.Config(t.Context(), memberAccount, memberRegion)
	if err != nil {
		t.Fatal(err)
	}
	functions := []string{world.Stack.Functions[provision].RoleARN, world.Stack.Functions[deprovision].RoleARN, world.Stack.Functions[reconcile].RoleARN}
	made, err := stack.Deploy(t.Context(), stack.Options{
		Name: "member", Expanded: expanded, AccountID: memberAccount, AWS: config, Dynamo: world.Dynamo,
		Parameters: map[string]string{
			"CentralEventBusArn": world.Stack.Outputs["EventBusArn"], "FunctionRoleArns": strings.Join(functions, ","),
			"MemberRoleName": memberRole, "ExternalId": world.Stack.Name, "RolesRegion": memberRegion,
			"VaultPrincipalArns": "arn:aws:iam::" + world.AccountID + ":role/vault",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// In AWS the events of members come over the bus. moto's bus would lose their account and region, so they go directly to the
// queues of the central rules.
func TestMemberAccount_InstanceIsGrantedAndRemoved(t *testing.T) {
	member := deployMember(t)
	if got, want := member.Outputs["MemberRoleArn"], "arn:aws:iam::"+memberAccount+":role/"+memberRole; got != want {
		t.Fatalf("the member template makes the role %q, but the functions assume %q", got, want)
	}
	accounts := []string{"-sts-role", memberAccount + "=" + member.Outputs["VaultRoleArn"], "-sts-external-id", world.Stack.Name}
	for _, want := range []string{"create  auth/aws/config/sts/" + memberAccount, "ok      auth/aws/config/sts/" + memberAccount} {
		if out, err := world.VaultSetup(t.Context(), accounts...); err != nil || !strings.Contains(string(out), want) {
			t.Fatalf("want %q, so that Vault can check logins from there, got %v\n%s", want, err, out)
		}
	}
	t.Cleanup(func() {
		if _, err := world.Vault.Logical().DeleteWithContext(context.WithoutCancel(t.Context()), "auth/aws/config/sts/"+memberAccount); err != nil {
			t.Error(err)
		}
	})

	resetTaps()
	i := launch(t, fleet.Spec{Role: "alice-worker", AccountID: memberAccount, Region: memberRegion})
	through(t, provision, i, "running")
	role, err := world.Vault.Logical().ReadWithContext(t.Context(), pathsOf(i.ID).role)
	if err != nil || role == nil {
		t.Fatalf("want an auth role for %s, got %v, %v", i.ID, role, err)
	}
	bound(t, role, "bound_account_id", memberAccount)
	bound(t, role, "bound_region", memberRegion)
	assumed, described := 0, 0
	for _, c := range world.Taps.AWS.Calls() {
		switch {
		case c.Action == "AssumeRole" && strings.Contains(string(c.Body), memberAccount):
			assumed++
			if !strings.Contains(string(c.Body), "ExternalId="+world.Stack.Name) {
				t.Errorf("the member role is assumed without the external ID of its trust policy: %s", c.Body)
			}
		case c.Action == "DescribeInstances" && c.Region == memberRegion:
			described++
		}
	}
	if assumed == 0 || described == 0 {
		t.Errorf("want the member role assumed and the instance described in %s, got %d and %d calls", memberRegion, assumed, described)
	}

	session, err := world.Fleet.Login(t.Context(), "aws", i, "")
	if err != nil {
		t.Fatalf("logging in from account %s: %v", memberAccount, err)
	}
	there := rec.Input{Mode: rec.Detect, InstanceIDs: []string{i.ID}}
	f := variant(t, reconcile, map[string]string{"RECONCILE_ACCOUNTS": world.AccountID + "," + memberAccount, "RECONCILE_REGIONS": world.Region + "," + memberRegion})
	if a := runReconcile(t, f, there); len(a.Drift) > 0 || a.Blocked {
		t.Errorf("want reconcile to find the instance and no drift, got %+v", a)
	}

	terminate(t, i)
	through(t, deprovision, i, "terminated")
	if left := objects(t, i); len(left) > 0 {
		t.Errorf("left in Vault: %v", left)
	}
	if _, err := session.Client.Auth().Token().LookupSelfWithContext(t.Context()); err == nil {
		t.Error("its token still works")
	}
}

// through sends an event by the queue and waits until the function has handled it.
func through(t *testing.T, function string, i fleet.Instance, state string) {
	t.Helper()
	if err := world.Fleet.Announce(t.Context(), i, state); err != nil {
		t.Fatal(err)
	}
	record, _, err := world.Pollers[function].WaitFor(t.Context(), func(r queue.Record) bool {
		return strings.Contains(r.Body, i.ID) && strings.Contains(r.Body, state)
	})
	if err != nil || !record.Handled {
		t.Fatalf("%s: %+v, %v\nlogs:\n%s", state, record, err, world.Functions[function].Logs())
	}
}

// bound fails unless a field of an auth role holds exactly one value.
func bound(t *testing.T, role *api.Secret, field, want string) {
	t.Helper()
	if got, _ := role.Data[field].([]any); len(got) != 1 || got[0] != want {
		t.Errorf("%s is %v, want %s", field, got, want)
	}
}
