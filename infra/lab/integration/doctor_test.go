package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// examine runs the doctor in a reconcile function and returns its report, and the checks by name.
func examine(t *testing.T, f *sandbox.Function) (doctor.Report, map[string]doctor.Check) {
	t.Helper()
	result, err := f.Invoke(t.Context(), []byte(`{"mode":"doctor"}`))
	if err != nil || result.Err() != nil {
		t.Fatalf("%v, %v", err, result.Err())
	}
	var r doctor.Report
	if err := json.Unmarshal(result.Payload, &r); err != nil {
		t.Fatalf("the answer %s: %v", result.Payload, err)
	}
	checks := map[string]doctor.Check{}
	for _, c := range r.Checks {
		checks[c.Name] = c
	}
	return r, checks
}

func TestDoctor_PassesInTheLab(t *testing.T) {
	r, _ := examine(t, world.Functions[reconcile])
	for _, c := range r.Checks {
		if !c.OK {
			t.Errorf("%s: %s (%s)", c.Name, c.Detail, c.Remedy)
		}
	}
	if !r.OK || len(r.Checks) < 20 {
		t.Errorf("want at least 20 checks, all of them OK, got %d", len(r.Checks))
	}
}

// TestDoctor_NamesEachFaultAndItsRemedy breaks one thing at a time on the real parts.
func TestDoctor_NamesEachFaultAndItsRemedy(t *testing.T) {
	const own, k8s, tune = "sys/policies/acl/ec2-provisioner-reconcile", "alice_cluster/pki/k8s", "sys/mounts/alice_cluster/pki/k8s/tune"
	healthy := fmt.Sprint(vaultRead(t, own)["policy"])
	for name, c := range map[string]struct {
		spoil, mend func(*testing.T)
		env         map[string]string
		check       string
		detail      string
	}{
		"a missing right": {
			spoil: func(t *testing.T) {
				vaultWrite(t, own, map[string]any{"policy": strings.ReplaceAll(healthy, `, "delete"`, "")})
			},
			mend:   func(t *testing.T) { vaultWrite(t, own, map[string]any{"policy": healthy}) },
			check:  "vault rights",
			detail: "delete",
		},
		"a right too many": {
			spoil: func(t *testing.T) {
				vaultWrite(t, own, map[string]any{"policy": healthy + "\npath \"alice_cluster/pki/k8s/sign-verbatim/*\" { capabilities = [\"update\"] }\n"})
			},
			mend:   func(t *testing.T) { vaultWrite(t, own, map[string]any{"policy": healthy}) },
			check:  "vault bounds",
			detail: "sign-verbatim",
		},
		"ACME enabled": {
			spoil: func(t *testing.T) {
				vaultWrite(t, k8s+"/config/cluster", map[string]any{"path": "https://vault.lab/v1/" + k8s})
				vaultWrite(t, k8s+"/config/acme", map[string]any{"enabled": true})
			},
			mend:   func(t *testing.T) { vaultWrite(t, k8s+"/config/acme", map[string]any{"enabled": false}) },
			check:  "acme " + k8s,
			detail: "ACME is enabled",
		},
		"a PKI mount without a mark": {
			spoil:  func(t *testing.T) { vaultWrite(t, tune, map[string]any{"description": "nodes"}) },
			mend:   func(t *testing.T) { vaultWrite(t, tune, map[string]any{"description": grant.MountMark("lab")}) },
			check:  "pki owner " + k8s,
			detail: "has no mark",
		},
		"a PKI mount of another deployment": {
			spoil:  func(t *testing.T) { vaultWrite(t, tune, map[string]any{"description": grant.MountMark("other")}) },
			mend:   func(t *testing.T) { vaultWrite(t, tune, map[string]any{"description": grant.MountMark("lab")}) },
			check:  "pki owner " + k8s,
			detail: "belongs to the deployment other and not to lab",
		},
		"a PKI role that can hold any name": {
			spoil:  func(t *testing.T) { vaultWrite(t, k8s+"/roles/web", map[string]any{"allow_any_name": true}) },
			mend:   func(t *testing.T) { vaultDelete(t, k8s+"/roles/web") },
			check:  "pki roles " + k8s,
			detail: "web",
		},
		"a policy left by a stolen function": {
			spoil: func(t *testing.T) {
				vaultWrite(t, "sys/policies/acl/ec2-i-door", map[string]any{"policy": `path "*" { capabilities = ["read"] }`})
			},
			mend:   func(t *testing.T) { vaultDelete(t, "sys/policies/acl/ec2-i-door") },
			check:  "names in vault",
			detail: "sys/policies/acl/ec2-i-door",
		},
		"an auth role left by a stolen function": {
			spoil: func(t *testing.T) {
				vaultWrite(t, "auth/aws/role/i-door", map[string]any{"auth_type": "ec2", "bound_account_id": "123456789012"})
			},
			mend:   func(t *testing.T) { vaultDelete(t, "auth/aws/role/i-door") },
			check:  "names in vault",
			detail: "auth/aws/role/i-door",
		},
		"an alias that all instances share": {
			spoil: func(t *testing.T) { vaultWrite(t, "auth/aws/config/identity", map[string]any{"ec2_alias": "image_id"}) },
			mend: func(t *testing.T) {
				vaultWrite(t, "auth/aws/config/identity", map[string]any{"ec2_alias": "instance_id"})
			},
			check:  "aliases of auth/aws",
			detail: "image_id",
		},
		"an account that Vault cannot read": {
			env:    map[string]string{"RECONCILE_ACCOUNTS": "123456789012,210987654321"},
			check:  "accounts of auth/aws",
			detail: "210987654321",
		},
		"a Vault that does not answer": {
			env:    map[string]string{"VAULT_ADDR": "https://127.0.0.1:1"},
			check:  "vault",
			detail: "refused",
		},
		"two profiles for one instance": {
			env:    map[string]string{"TEMPLATES_DIR": changed(t, "worker/profile.yaml", "role/alice-worker", "role/alice-*")},
			check:  "profile overlap",
			detail: "alice_cluster-worker",
		},
		"a missing table": {
			env:    map[string]string{"TABLE_NAME": "no-such-table"},
			check:  "ledger table",
			detail: "no-such-table",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.spoil != nil {
				c.spoil(t)
				defer c.mend(t)
			}
			r, checks := examine(t, variant(t, reconcile, c.env))
			got, ok := checks[c.check]
			if !ok || got.OK || r.OK || !strings.Contains(got.Detail, c.detail) || got.Remedy == "" {
				t.Errorf("want the check %q to fail with %q and a remedy, got %+v (all: %v)", c.check, c.detail, got, r.OK)
			}
		})
	}
}
