package wiring_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/handler"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/wiring"
)

func TestReadyTag_MustNotDecideAMatch(t *testing.T) {
	for name, value := range map[string]string{"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"} {
		t.Setenv(name, value) // the SDK reads the process's own environment
	}
	dir := t.TempDir()
	for file, text := range map[string]string{
		"profile.yaml": "name: a-worker\nmatch: {iam_role_arn: \"arn:aws:iam::*:role/w\", tags: {identity: ready}}\nbase_path: a\n" +
			"fqdn: \"{{ .PrivateDNSName }}\"\nauth: {token_ttl: 1h, token_max_ttl: 2h}\noutputs:\n  - {name: node, type: policy, template: p.tmpl}\n",
		"p.tmpl": "path \"a/kv\" {\n  capabilities = [\"read\"]\n}\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, "w"), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "w", file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for key, wrong := range map[string]bool{"identity": true, "another": false} {
		env := map[string]string{"TABLE_NAME": "ledger", "DEPLOYMENT_ID": "d", "VAULT_ADDR": "https://vault:8200", "TEMPLATES_DIR": dir, "READY_TAG": key}
		_, err := wiring.New(t.Context(), "provision", converge.Duties{Make: true}, func(name string) string { return env[name] })
		if wrong != (err != nil) || (wrong && (!strings.Contains(err.Error(), "READY_TAG") || !strings.Contains(err.Error(), "a-worker"))) {
			t.Errorf("READY_TAG=%s: got %v, want it refused: %v", key, err, wrong)
		}
	}
}

// reconcileHandler returns the handler of reconcile in an environment.
func reconcileHandler(t *testing.T, env map[string]string) *handler.ReconcileHandler {
	t.Helper()
	f, err := wiring.NewReconcile(t.Context(), func(name string) string { return env[name] })
	if err != nil {
		t.Fatal(err)
	}
	h, err := f.Handler(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h.(*handler.ReconcileHandler)
}

func TestNamespace_ReachesClientDoctorAndAnswers(t *testing.T) {
	for name, value := range map[string]string{"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"} {
		t.Setenv(name, value) // the SDK reads the process's own environment
	}
	for text, want := range map[string]string{"/team/a/": "team/a", "root": ""} {
		env := map[string]string{"TABLE_NAME": "ledger", "DEPLOYMENT_ID": "d", "VAULT_ADDR": "http://127.0.0.1:1", "VAULT_NAMESPACE": text}
		h := reconcileHandler(t, env)
		d, ok := h.Doctor.(doctor.Doctor)
		if !ok || h.Namespace != want || d.Namespace != want {
			t.Errorf("%q: seen %q in the answers and %q in the doctor, want %q", text, h.Namespace, d.Namespace, want)
		}
		if err := d.Server.Login(t.Context()); err == nil || strings.Contains(err.Error(), "(namespace team/a)") != (want != "") {
			t.Errorf("%q: the client's login must be in namespace %q: %v", text, want, err)
		}
	}
}
