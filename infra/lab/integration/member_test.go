package integration

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
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
	expanded, err := stack.Expand(t.Context(), partstest.Python(t), filepath.Join("..", "..", "member-account", "template.yaml"), memberRegion)
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
			"VaultExternalId":    map[bool]string{true: "required", false: "none"}[serverOf(t).StoresExternalID()],
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
	accounts := []string{"-sts-role", memberAccount + "=" + member.Outputs["VaultRoleArn"]}
	withID := append(slices.Clone(accounts), "-sts-external-id", world.Stack.Name)
	if server := serverOf(t); server.StoresExternalID() {
		accounts = withID
	} else if out, err := world.VaultSetup(t.Context(), withID...); err == nil || !strings.Contains(string(out), server.String()) || strings.Contains(string(out), "config/sts/"+memberAccount+"\n") {
		t.Fatalf("want an external ID refused that %s would drop, got %v\n%s", server, err, out)
	}
	for _, want := range []string{"create  auth/aws/config/sts/" + memberAccount, "ok      auth/aws/config/sts/" + memberAccount} {
		if out, err := world.VaultSetup(t.Context(), accounts...); err != nil || !strings.Contains(string(out), want) {
			t.Fatalf("want %q, so that Vault can check logins from there, got %v\n%s", want, err, out)
		}
	}
	t.Cleanup(func() { vaultDelete(t, "auth/aws/config/sts/"+memberAccount) })

	resetTaps()
	i := launch(t, fleet.Spec{Role: "alice-worker", AccountID: memberAccount, Region: memberRegion})
	through(t, provision, i, "running")
	role := vaultRead(t, pathsOf(i.ID).role)
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

	session := login(t, i)
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
	handled(t, function, i, state)
}

// handled waits until a function has handled the first message of its queue that names an instance and contains a text.
func handled(t *testing.T, function string, i fleet.Instance, text string) {
	t.Helper()
	record, _, err := world.Pollers[function].WaitFor(t.Context(), func(r queue.Record) bool {
		return strings.Contains(r.Body, i.ID) && strings.Contains(r.Body, text)
	})
	if err != nil || !record.Handled {
		t.Fatalf("%s: %+v, %v\nlogs:\n%s", text, record, err, world.Functions[function].Logs())
	}
}

// bound fails unless a field of an auth role holds exactly one value.
func bound(t *testing.T, role map[string]any, field, want string) {
	t.Helper()
	if got, _ := role[field].([]any); len(got) != 1 || got[0] != want {
		t.Errorf("%s is %v, want %s", field, got, want)
	}
}
