package integration

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// sshHostFiles returns the files of infra/instance/ssh-host for a worker with a host key.
func sshHostFiles(t *testing.T, key string) map[string]string {
	t.Helper()
	const shipped = "../../instance"
	files := map[string]string{"etc/ssh/ssh_host_ed25519_key.pub": key}
	for _, name := range []string{"etc/vault-agent/ssh-host.hcl", "etc/vault-agent/templates/ssh-host.ctmpl", "usr/local/lib/vault-agent/host-certificate", "etc/systemd/system/vault-agent.service.d/ssh-host.conf"} {
		text, err := os.ReadFile(filepath.Join(shipped, "ssh-host", name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	worker, err := os.ReadFile(filepath.Join(shipped, "etc/vault-agent/worker.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	files["etc/vault-agent/worker.hcl"] = string(worker) + files["etc/vault-agent/ssh-host.hcl"] // as the drop-in starts Agent with both
	return files
}

func TestAgent_GetsItsHostCertificate(t *testing.T) {
	by := variant(t, provision, map[string]string{"TEMPLATES_DIR": withHostCertificates(t)})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, by, i, "running", "provisioned")
	key := hostKey(t)
	a := boot(t, i, lab.AgentOptions{Role: "worker", Files: sshHostFiles(t, key)})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	text, err := a.WaitFor(ctx, "etc/ssh/ssh_host_ed25519_key-cert.pub", "ssh-ed25519-cert-v01@openssh.com ")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.WaitFor(ctx, "run/vault-agent/systemctl", "--no-block try-reload-or-restart ssh.service"); err != nil {
		t.Error(err)
	}
	parsed, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	cert, isCertificate := parsed.(*ssh.Certificate)
	own, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key))
	if err != nil || !isCertificate || !slices.Equal(cert.Key.Marshal(), own.Marshal()) {
		t.Fatalf("want a certificate for the host's own key, got %T, %v", parsed, err)
	}

	// A client that has the CA in known_hosts, by the line of docs/profiles.md.
	answer, err := world.Vault.CloneConfig().HttpClient.Get(world.VaultAddr + "/v1/" + hosts + "/public_key") //nolint:noctx // the client has a timeout
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	ca, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("want the CA without a token, got %d, %v", answer.StatusCode, err)
	}
	_, _, trusted, _, _, err := ssh.ParseKnownHosts([]byte("@cert-authority *.ec2.internal,127.* " + strings.TrimSpace(string(ca)) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.CertChecker{IsHostAuthority: func(auth ssh.PublicKey, _ string) bool { return slices.Equal(auth.Marshal(), trusted.Marshal()) }}
	for address, want := range map[string]bool{i.PrivateDNS + ":22": true, i.PrivateIP + ":22": true, "ip-10-9-9-9.ec2.internal:22": false, "a." + i.PrivateDNS + ":22": false} {
		if err := client.CheckHostKey(address, nil, cert); (err == nil) != want {
			t.Errorf("a client of %s: accepts the host: %v (%v), want %v", address, err == nil, err, want)
		}
	}
	remove(t, i)
}
