package integration

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

func TestSetup_SecondRunChangesNothing(t *testing.T) {
	out, err := world.VaultSetup(t.Context())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "0 of ") || strings.Contains(string(out), "update") {
		t.Errorf("want nothing changed, got\n%s", out)
	}
}

func TestSetup_DryRunReportsAndWritesNothing(t *testing.T) {
	const path = "sys/policies/acl/other-provision"
	out, err := world.VaultSetup(t.Context(), "-role-prefix", "other", "-dry-run")
	if err != nil || !strings.Contains(string(out), "create  "+path) {
		t.Fatalf("want the new policy reported, got %v\n%s", err, out)
	}
	if got, err := world.Vault.Logical().ReadWithContext(t.Context(), path); err != nil || got != nil {
		t.Errorf("the dry run wrote %s: %v, %v", path, got, err)
	}
}

// asFunction returns a Vault client that is logged in as a function, by its IAM role and the product's own signing.
func asFunction(t *testing.T, function, name string) *vaultapi.Client {
	t.Helper()
	env, err := world.FunctionEnv(t.Context(), function)
	if err != nil {
		t.Fatal(err)
	}
	client := clientOn(t, fleet.Instance{}, "")
	auth, err := vault.IAM{
		Mount: "aws", Role: "ec2-provisioner-" + name, ServerID: env["VAULT_IAM_SERVER_ID"], Region: "us-east-1",
		Endpoint:    "https://sts.us-east-1.amazonaws.com/",
		Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env["AWS_SESSION_TOKEN"]),
	}.Login(t.Context(), vault.NewConn(client, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(auth.ClientToken)
	return client
}

func TestFunctionPolicies_ReachOnlyTheirNames(t *testing.T) {
	write, read, remove, list := "PUT", "GET", "DELETE", "LIST"
	for name, row := range map[string]struct {
		function string
		refused  [][2]string
	}{
		"provision": {provision, [][2]string{
			{write, "sys/policies/acl/ec2-provisioner-provision"}, {write, "sys/policies/acl/root2"}, {write, "sys/policies/acl/default"},
			{write, "auth/aws/role/ec2-provisioner-provision"}, {write, "auth/aws/config/client"}, {read, "auth/aws/config/client"},
			{remove, "auth/aws/role/i-0123456789abcdef0"}, {write, "identity/lookup/entity"}, {remove, "identity/entity/id/x"},
			{remove, "auth/aws/identity-accesslist/i-0123456789abcdef0"}, {write, "alice_cluster/pki/k8s/issue/i-0123456789abcdef0-kubelet"},
			{write, "alice_cluster/pki/k8s/roles/any"}, {write, "alice_cluster/pki/k8s/sign-verbatim"}, {read, "sys/mounts"}, {read, "sys/auth"},
			{list, "auth/aws/identity-accesslist"}, {list, "identity/entity-alias/id"}, {write, "auth/aws/config/identity"},
			{write, "auth/token/create"}, {write, "sys/leases/revoke-prefix/alice_cluster"},
		}},
		"deprovision": {deprovision, [][2]string{
			{write, "sys/policies/acl/ec2-i-0123456789abcdef0-node"}, {write, "auth/aws/role/i-0123456789abcdef0"},
			{write, "alice_cluster/pki/k8s/roles/i-0123456789abcdef0-kubelet"}, {read, "alice_cluster/pki/k8s/roles/i-0123456789abcdef0-kubelet"},
			{remove, "sys/policies/acl/ec2-provisioner-provision"}, {remove, "auth/aws/role/ec2-provisioner-provision"},
			{remove, "alice_cluster/pki/k8s/roles/any"}, {read, "identity/entity/id/x"}, {write, "identity/entity"},
			{write, "sys/leases/revoke-prefix/alice_cluster/pki/k8s/issue/i-0123456789abcdef0-kubelet"}, {remove, "sys/mounts/alice_cluster/pki/k8s"},
			{write, "auth/token/create"}, {read, "sys/auth"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			client := asFunction(t, row.function, name)
			for _, r := range row.refused {
				request := client.NewRequest(r[0], "/v1/"+r[1])
				if r[0] == write {
					if err := request.SetJSONBody(map[string]any{"x": "y"}); err != nil {
						t.Fatal(err)
					}
				}
				_, err := client.RawRequestWithContext(t.Context(), request) //nolint:staticcheck // the only call for every method
				if err == nil || !strings.Contains(err.Error(), "permission denied") {
					t.Errorf("%s %s: want permission denied, got %v", r[0], r[1], err)
				}
			}
		})
	}
}

func TestFunctionLogin_NeedsOwnRoleAndServerID(t *testing.T) {
	env, err := world.FunctionEnv(t.Context(), provision)
	if err != nil {
		t.Fatal(err)
	}
	own := vault.IAM{
		Mount: "aws", Role: "ec2-provisioner-provision", ServerID: env["VAULT_IAM_SERVER_ID"], Region: "us-east-1", Endpoint: "https://sts.us-east-1.amazonaws.com/",
		Credentials: credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env["AWS_SESSION_TOKEN"]),
	}
	other, without := own, own
	other.Role, without.ServerID = "ec2-provisioner-deprovision", ""
	client := clientOn(t, fleet.Instance{}, "")
	if _, err := own.Login(t.Context(), vault.NewConn(client, "", "")); err != nil {
		t.Errorf("its own auth role: %v", err)
	}
	if _, err := other.Login(t.Context(), vault.NewConn(client, "", "")); err == nil {
		t.Error("provision logged in as deprovision, which may delete entities")
	}
	if _, err := without.Login(t.Context(), vault.NewConn(client, "", "")); err == nil {
		t.Error("a login without the server ID header succeeded")
	}
}
