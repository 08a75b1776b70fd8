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

// A login whose role is bound to the instance's addresses succeeds only if Vault sees them.
func TestDoctor_ProvesByALoginThatAddressesAreSeen(t *testing.T) {
	i, _ := withToken(t)
	_, checks := examine(t, world.Functions[reconcile])
	if c := checks["client addresses of auth/"+world.AuthMount]; !c.OK || !strings.Contains(c.Detail, "whose login is bound to its addresses, has logged in") {
		t.Errorf("want the login as the proof, got %+v", c)
	}
	remove(t, i)
}

// TestDoctor_NamesEachFaultAndItsRemedy breaks one thing at a time on the real parts.
func TestDoctor_NamesEachFaultAndItsRemedy(t *testing.T) {
	const own, door, tune = "sys/policies/acl/ec2-provisioner-reconcile", "sys/policies/acl/ec2-i-door", "sys/mounts/" + k8s + "/tune"
	vaultWrite(t, k8s+"/config/cluster", map[string]any{"path": "https://vault.lab/v1/" + k8s}) // which ACME needs
	healthy := fmt.Sprint(vaultRead(t, own)["policy"])
	for name, c := range map[string]struct {
		path   string // where Vault is spoiled with fields
		fields map[string]any
		env    map[string]string
		check  string
		detail string
	}{
		"a missing right": {
			path: own, fields: map[string]any{"policy": strings.ReplaceAll(healthy, `, "delete"`, "")},
			check: "vault rights", detail: "delete",
		},
		"a right too many": {
			path: own, fields: map[string]any{"policy": healthy + "\npath \"alice_cluster/pki/k8s/sign-verbatim/*\" { capabilities = [\"update\"] }\n"},
			check: "vault bounds", detail: "sign-verbatim",
		},
		"ACME enabled": {
			path: k8s + "/config/acme", fields: map[string]any{"enabled": true},
			check: "acme " + k8s, detail: "ACME is enabled",
		},
		"a PKI mount without a mark": {
			path: tune, fields: map[string]any{"description": "nodes"},
			check: "pki owner " + k8s, detail: "has no mark",
		},
		"a PKI mount of another deployment": {
			path: tune, fields: map[string]any{"description": grant.MountMark("other")},
			check: "pki owner " + k8s, detail: "belongs to the deployment other and not to lab",
		},
		"a PKI role that can hold any name": {
			path: k8s + "/roles/web", fields: map[string]any{"allow_any_name": true},
			check: "pki roles " + k8s, detail: "web",
		},
		"a policy left by a stolen function": {
			path: door, fields: map[string]any{"policy": `path "*" { capabilities = ["read"] }`},
			check: "names in vault", detail: door,
		},
		"an auth role left by a stolen function": {
			path: "auth/aws/role/i-door", fields: map[string]any{"auth_type": "ec2", "bound_account_id": "123456789012"},
			check: "names in vault", detail: "auth/aws/role/i-door",
		},
		"an alias that all instances share": {
			path: "auth/aws/config/identity", fields: map[string]any{"ec2_alias": "image_id"},
			check: "aliases of auth/aws", detail: "image_id",
		},
		"an account that Vault cannot read": {
			env:   map[string]string{"RECONCILE_ACCOUNTS": "123456789012,210987654321"},
			check: "accounts of auth/aws", detail: "210987654321",
		},
		"a Vault that does not answer": {env: map[string]string{"VAULT_ADDR": "https://127.0.0.1:1"}, check: "vault", detail: "refused"},
		"two profiles for one instance": {
			env:   map[string]string{"TEMPLATES_DIR": changed(t, "worker/profile.yaml", "role/alice-worker", "role/alice-*")},
			check: "profile overlap", detail: "alice_cluster-worker",
		},
		"an issuer that the mount lacks": {
			env:   map[string]string{"TEMPLATES_DIR": changed(t, "worker/kubelet.json.tmpl", `"key_bits": 256,`, `"key_bits": 256, "issuer_ref": "root-2020",`)},
			check: "pki " + k8s, detail: `not "root-2020", which alice_cluster-worker uses`,
		},
		"a missing table": {
			env:   map[string]string{"TABLE_NAME": "no-such-table"},
			check: "ledger table", detail: "no-such-table",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.path != "" {
				vaultSet(t, c.path, c.fields)
			}
			r, checks := examine(t, variant(t, reconcile, c.env))
			got, ok := checks[c.check]
			if !ok || got.OK || r.OK || !strings.Contains(got.Detail, c.detail) || got.Remedy == "" {
				t.Errorf("want the check %q to fail with %q and a remedy, got %+v (all: %v)", c.check, c.detail, got, r.OK)
			}
		})
	}
}
