package integration

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
)

// deployForVault deploys infra/member-account into the central account and region, for a Vault in another account.
func deployForVault(t *testing.T, principal string) *stack.Stack {
	t.Helper()
	expanded, err := stack.Expand(t.Context(), partstest.Python(t), filepath.Join("..", "..", "member-account", "template.yaml"), world.Region)
	if err != nil {
		t.Fatal(err)
	}
	functions := []string{world.Stack.Functions[provision].RoleARN, world.Stack.Functions[deprovision].RoleARN, world.Stack.Functions[reconcile].RoleARN}
	made, err := stack.Deploy(t.Context(), stack.Options{
		Name: "vault-elsewhere", Expanded: expanded, AccountID: world.AccountID, AWS: world.AWS, Dynamo: world.Dynamo,
		Parameters: map[string]string{
			"CentralEventBusArn": world.Stack.Outputs["EventBusArn"], "FunctionRoleArns": strings.Join(functions, ","),
			"ExternalId": world.Stack.Name, "RolesRegion": world.Region, "VaultPrincipalArns": principal, "VaultRoleName": "vault-from-elsewhere",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// A Vault in a shared-services account, with AWS keys of that account: it can neither resolve the functions' roles nor look up the
// instances of the stack's account until it has a role there.
func TestVaultInAnotherAccount_ServesTheStacksAccount(t *testing.T) {
	const shared = "777788889999"
	if !serverOf(t).StoresExternalID() {
		t.Skip("this server stores no external ID: the role must not require one")
	}
	other, err := world.EmptyVault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config, err := world.Fleet.Config(t.Context(), shared, world.Region)
	if err != nil {
		t.Fatal(err)
	}
	other.AWS.Credentials = config.Credentials
	out, err := other.VaultSetup(t.Context())
	for _, says := range []string{"unable to fetch client for account ID", "Vault runs in another AWS account than the functions", "-sts-role " + world.AccountID + "="} {
		if err == nil || !strings.Contains(string(out), says) {
			t.Fatalf("without a role for the stack's account want an error that says %q, got %v\n%s", says, err, out)
		}
	}

	made := deployForVault(t, "arn:aws:iam::"+shared+":role/vault")
	if made.Outputs["VaultRoleArn"] == "" || made.Outputs["MemberRoleArn"] != "" {
		t.Fatalf("want Vault's role alone in the central account, got %v", made.Outputs)
	}
	with := []string{"-sts-role", world.AccountID + "=" + made.Outputs["VaultRoleArn"], "-sts-external-id", world.Stack.Name}
	if out, err = other.VaultSetup(t.Context(), with...); err != nil || !strings.Contains(string(out), "create  auth/aws/config/sts/"+world.AccountID) {
		t.Fatalf("want the set-up done with a role for the stack's own account, got %v\n%s", err, out)
	}
	if err := other.Fleet.RegisterCertificate(t.Context(), other.Vault, other.AuthMount); err != nil {
		t.Fatal(err)
	}

	env := map[string]string{"VAULT_ADDR": other.VaultAddr, "VAULT_CA_SECRET_ARN": secret(t, "elsewhere-vault-ca", other.VaultCAPEM)}
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, variant(t, provision, env), i, "running", "provisioned")
	if _, err := other.Fleet.Login(t.Context(), other.AuthMount, i, ""); err != nil {
		t.Errorf("want an instance of the stack's account to log in, got %v", err)
	}
	_, checks := examine(t, variant(t, reconcile, env))
	if got := checks["accounts of auth/aws"]; !got.OK || !strings.Contains(got.Detail, "the functions' own among them") {
		t.Errorf("want the doctor to find the role for the stack's account, got %+v", got)
	}

	stsRole := "auth/aws/config/sts/" + world.AccountID
	deleteIn(t, other, stsRole)
	if _, err := other.Fleet.Login(t.Context(), other.AuthMount, i, ""); err == nil {
		t.Error("the login works without the role, so this test shows nothing")
	}
	_, checks = examine(t, variant(t, reconcile, env))
	if got := checks["accounts of auth/aws"]; !got.OK || !strings.Contains(got.Detail, "If it does not, no instance of "+world.AccountID+" can log in") {
		t.Errorf("want the doctor to name the condition, got %+v", got)
	}
	terminate(t, i)
	mustBy(t, variant(t, deprovision, env), i, "terminated", "deprovisioned")
}

func deleteIn(t *testing.T, w *lab.World, path string) {
	t.Helper()
	if _, err := w.Vault.Logical().DeleteWithContext(context.WithoutCancel(t.Context()), path); err != nil {
		t.Fatal(err)
	}
}
