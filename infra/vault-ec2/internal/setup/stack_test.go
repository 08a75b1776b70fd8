package setup

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
)

// fleet is a stack with default parameters, but for the server ID.
func fleet() deployed.Stack {
	return deployed.Stack{
		Name: "fleet", Region: "eu-central-1", Status: "CREATE_COMPLETE",
		Outputs: map[string]string{"ProvisionFunctionRoleArn": "arn:p", "DeprovisionFunctionRoleArn": "arn:d", "ReconcileFunctionRoleArn": "arn:r"},
		Parameters: map[string]string{
			"VaultAuthMount": "aws", "VaultLoginMount": "aws", "VaultLoginMethod": "iam", "VaultLoginRole": "ec2-provisioner", "VaultIAMServerId": "vault.example.com",
			"VaultSTSRegion": "", "VaultSTSEndpoint": "", "VaultNamespace": "", "RevokeCertificates": "false",
		},
	}
}

func TestTake_FollowsTheStack(t *testing.T) {
	for name, row := range map[string]struct {
		parameters map[string]string
		given      []string
		change     func(*Options) // the given flags
		want       func(*Options) // beside the baseline
		says       string
	}{
		"as it is":            {says: "taken   --server-id vault.example.com  (VaultIAMServerId)"},
		"mounts of its own":   {parameters: map[string]string{"VaultAuthMount": "aws-ec2", "VaultLoginMount": "aws-lambda"}, want: func(o *Options) { o.AuthMount, o.LoginMount = "aws-ec2", "aws-lambda" }},
		"a prefix of its own": {parameters: map[string]string{"VaultLoginRole": "ours"}, want: func(o *Options) { o.RolePrefix = "ours" }},
		"another STS region":  {parameters: map[string]string{"VaultSTSRegion": "us-east-1"}, want: func(o *Options) { o.STSRegion = "us-east-1" }},
		"an STS endpoint": {
			parameters: map[string]string{"VaultSTSEndpoint": "https://sts-fips.us-east-1.amazonaws.com"}, want: func(o *Options) { o.STSRegion = "" }, says: "leave --sts-region out",
		},
		"revocation": {parameters: map[string]string{"RevokeCertificates": "true"}, want: func(o *Options) { o.Revoke = true }, says: "taken   --revoke-certificates true"},
		"revocation of stored ones": {
			parameters: map[string]string{"RevokeCertificates": "all"},
			want:       func(o *Options) { o.Revoke, o.RevokeStored = true, true }, says: "taken   --revoke-stored-certificates true",
		},
		"no revocation, by a flag": {
			parameters: map[string]string{"RevokeCertificates": "true"}, given: []string{"revoke-certificates"},
		},
		"a namespace": {parameters: map[string]string{"VaultNamespace": "team/app"}, want: func(o *Options) { o.namespace = "team/app" }},
		"a login by approle": {
			parameters: map[string]string{"VaultLoginMethod": "approle", "VaultLoginMount": "approle", "VaultAuthMount": "aws-ec2"},
			want: func(o *Options) {
				o.AuthMount, o.LoginMount, o.ServerID, o.STSRegion, o.FunctionRoles = "aws-ec2", "aws-ec2", "", "", map[string]string{}
			},
			says: "log in by approle",
		},
		"flags before the stack": {
			given:  []string{"deployment", "server-id", "function-role"},
			change: func(o *Options) { o.Deployment, o.ServerID, o.FunctionRoles["reconcile"] = "mine", "mine", "arn:mine" },
			want:   func(o *Options) { o.Deployment, o.ServerID, o.FunctionRoles["reconcile"] = "mine", "mine", "arn:mine" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := fleet()
			maps.Copy(s.Parameters, row.parameters)
			want := Defaults()
			want.Deployment, want.ServerID, want.STSRegion = "fleet", "vault.example.com", "eu-central-1"
			want.FunctionRoles = map[string]string{"provision": "arn:p", "deprovision": "arn:d", "reconcile": "arn:r"}
			if row.want != nil {
				row.want(&want)
			}
			o := Defaults()
			if row.change != nil {
				row.change(&o)
			}
			before := maps.Clone(o.FunctionRoles)
			o.Given = func(flag string) bool { return slices.Contains(row.given, flag) }
			got, err := o.take(s)
			if err != nil {
				t.Fatal(err)
			}
			if !equal(got.Options, want) {
				t.Errorf("want %+v,\ngot  %+v", want, got.Options)
			}
			if said := strings.Join(got.lines, "\n"); !strings.Contains(said, row.says) {
				t.Errorf("want %q among\n%s", row.says, said)
			}
			if !maps.Equal(o.FunctionRoles, before) {
				t.Errorf("the caller's options were changed: %v", o.FunctionRoles)
			}
		})
	}
}

// equal reports whether two sets of options that a stack can change are equal.
func equal(a, b Options) bool {
	return a.AuthMount == b.AuthMount && a.LoginMount == b.LoginMount && a.RolePrefix == b.RolePrefix && a.Deployment == b.Deployment &&
		a.ServerID == b.ServerID && a.STSRegion == b.STSRegion && a.Revoke == b.Revoke && a.RevokeStored == b.RevokeStored && a.namespace == b.namespace && maps.Equal(a.FunctionRoles, b.FunctionRoles)
}

func TestTake_NeedsTheRolesOfAllFunctions(t *testing.T) {
	s := fleet()
	delete(s.Outputs, "ReconcileFunctionRoleArn")
	if _, err := Defaults().take(s); err == nil || !strings.Contains(err.Error(), "ReconcileFunctionRoleArn") {
		t.Errorf("want an error that names the missing output, got %v", err)
	}
}

func TestClient_ActsInTheStacksNamespace(t *testing.T) {
	t.Setenv("VAULT_ADDR", "https://127.0.0.1:1")
	for env, want := range map[string]string{"": "", "mine": "mine"} {
		t.Setenv(namespaceEnv, env)
		if _, namespace, err := newClient("team"); err != nil || namespace != want {
			t.Errorf("VAULT_NAMESPACE=%q: want the namespace %q, got %q, %v", env, want, namespace, err)
		}
	}
	unset(t, namespaceEnv)
	if _, namespace, err := newClient("team"); err != nil || namespace != "team" {
		t.Errorf("without VAULT_NAMESPACE: want the stack's namespace, got %q, %v", namespace, err)
	}
}

// unset removes a variable from the environment until the test ends.
func unset(t *testing.T, name string) {
	t.Helper()
	t.Setenv(name, "") // restores it at the end
	if err := os.Unsetenv(name); err != nil {
		t.Fatal(err)
	}
}
