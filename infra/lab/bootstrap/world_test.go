package bootstrap

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

var root = filepath.Join("..", "..", "..")

// world is an empty Vault, a tap before it, and the command.
type world struct {
	vault   *vaultapi.Client // with the root token
	tap     *tap.Tap
	address string
	token   string
	command string
}

func start(t *testing.T) *world {
	t.Helper()
	w := partstest.Workspace(t)
	vault := partstest.Vault(t, w)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(vault.CAPEM))
	before, err := tap.Start(tap.Options{Upstream: vault.Address, RootCAs: roots, Service: "vault"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { before.Close() })
	out := &world{tap: before, address: before.URL, token: vault.RootToken, command: filepath.Join(t.TempDir(), "vault-ec2")}
	if out.vault, err = fleet.VaultClient(vault.Address, vault.CAPEM, vault.RootToken); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", out.command, "./infra/vault-ec2")
	build.Dir = root
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building vault-ec2: %v\n%s", err, text)
	}
	return out
}

// run runs vault-ec2 setup with a token.
func (w *world) run(t *testing.T, token string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.command, append([]string{"setup"}, args...)...)
	cmd.Env = append(os.Environ(), "VAULT_ADDR="+w.address, "VAULT_TOKEN="+token, "VAULT_MAX_RETRIES=0",
		"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// sharing adds two profiles to a folder: one extends node, and one an abstract profile.
func sharing(t *testing.T, dir string) string {
	t.Helper()
	for file, text := range map[string]string{
		"gpu/profile.yaml": `name: bob-gpu
extends: node
match: {iam_role_arn: "arn:aws:iam::*:role/gpu"}
outputs:
  - {name: host, type: generic, path: ssh/gpus, template: role.json.tmpl}
  - {name: metrics, type: pki-role, path: pki/metrics/roles, template: role.json.tmpl}
`,
		"gpu/role.json.tmpl": `{"max_ttl": "1h"}`,
		"common/profile.yaml": `abstract: true
base_path: dave
fqdn: "{{ .PrivateDNSName }}"
auth: {token_ttl: 1h, token_max_ttl: 24h}
outputs:
  - {name: edge, type: pki-role, path: pki/edge/roles, template: role.json.tmpl}
`,
		"common/role.json.tmpl": `{"max_ttl": "1h"}`,
		"edge/profile.yaml":     "name: dave-edge\nextends: common\nmatch: {iam_role_arn: \"arn:aws:iam::*:role/edge\"}\n",
	} {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// profiles returns a folder with two small profiles, each with a PKI mount of its own and an output on another mount.
func profiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, base := range map[string]string{"node": "bob", "master": "carol"} {
		profile := fmt.Sprintf(`name: %[2]s-%[1]s
match: {iam_role_arn: "arn:aws:iam::*:role/%[1]s"}
base_path: %[2]s
fqdn: "{{ .PrivateDNSName }}"
auth: {token_ttl: 1h, token_max_ttl: 24h}
outputs:
  - {name: node, type: policy, template: policy.hcl.tmpl}
  - {name: kubelet, type: pki-role, path: pki/k8s/roles, template: role.json.tmpl}
  - {name: host, type: generic, path: ssh/machines, template: role.json.tmpl}
  - {name: sshd, type: ssh-role, path: hosts/roles, template: role.json.tmpl}
`, name, base)
		for file, text := range map[string]string{
			"profile.yaml": profile, "policy.hcl.tmpl": `{{ pkiAccess "kubelet" }}`, "role.json.tmpl": `{"max_ttl": "24h"}`,
		} {
			path := filepath.Join(dir, name, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}
