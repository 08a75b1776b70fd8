package tryout

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

// programs stand for those of Vault's instance that this machine lacks: its packages, its services and AWS's command.
var programs = map[string]string{
	"dnf":       `echo "$@" >>"$STANDINS/dnf.log"`,
	"systemctl": `test "$*" = "enable --now vault"; nohup vault server -config="$VAULT_ETC/vault.hcl" >"$STANDINS/vault.log" 2>&1 & echo $! >"$STANDINS/pid"`,
	"aws":       `test "$1 $2 $3 $5" = "secretsmanager put-secret-value --secret-id --secret-string"; test -s "${6#file://}"; cp "${6#file://}" "$STANDINS/$4"`,
	"id":        `exit 1`,
	"curl":      `case "$*" in *https://rpm.releases.hashicorp.com*) exit 0 ;; esac; exec /usr/bin/curl "$@"`,
}

// The script of Vault's instance starts a Vault that trusts itself, and writes its CA and its facts where they are read.
func TestVaultScript_StartsAVaultAndWritesItsFacts(t *testing.T) {
	binary, err := vaultserver.Find(t.Context(), partstest.Workspace(t))
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for name, script := range programs {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("#!/bin/bash\nset -e\n"+script+"\n"), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	if err := os.Symlink(binary.Path, filepath.Join(folder, "vault")); err != nil {
		t.Fatal(err)
	}
	made, err := fleet.New(fleet.Options{AccountID: "123456789012"})
	if err != nil {
		t.Fatal(err)
	}
	metadata, err := made.Metadata(fleet.Instance{ID: "i-1", PrivateIP: "127.0.0.1"}, fleet.MetadataOptions{})
	if err != nil {
		t.Fatal(err)
	}
	labtest.CloseLater(t, metadata)

	script, err := filepath.Abs(filepath.Join(root, "infra", "vault-ec2", "internal", "tryout", "host", "vault.sh"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", script)
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"), "STANDINS="+folder, "VAULT_HOME="+filepath.Join(folder, "home"), "VAULT_ETC="+filepath.Join(folder, "etc"),
		"AWS_EC2_METADATA_SERVICE_ENDPOINT="+metadata.URL, "AWS_DEFAULT_REGION=eu-central-1", "PUBLIC_ADDRESS=192.0.2.1", "VAULT_VERSION=1.21.4", "CA_SECRET=ca", "TOKEN_SECRET=facts")
	t.Cleanup(func() { endServer(t, filepath.Join(folder, "pid")) })
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the script: %v\n%s", err, out)
	}

	var facts struct{ Token, Public, Private, IPv6 string }
	text, err := os.ReadFile(filepath.Join(folder, "facts"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &facts); err != nil {
		t.Fatalf("the facts %s: %v", text, err)
	}
	if facts.Public != "https://192.0.2.1:8200" || facts.Private != "https://127.0.0.1:8200" || facts.IPv6 != "" {
		t.Errorf("want the public and the private address, and none of IPv6, got %q, %q, %q", facts.Public, facts.Private, facts.IPv6)
	}
	if strings.Contains(string(out), facts.Token) {
		t.Error("the script prints the root token, which the instance's console output then shows")
	}
	ca, err := os.ReadFile(filepath.Join(folder, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := fleet.VaultClient(facts.Private, string(ca), facts.Token)
	if err != nil {
		t.Fatal(err)
	}
	if token, err := client.Auth().Token().LookupSelfWithContext(t.Context()); err != nil {
		t.Errorf("want the root token to be valid at %s, whose certificate is of the written CA: %v, %v", facts.Private, token, err)
	}
	packages, err := os.ReadFile(filepath.Join(folder, "dnf.log"))
	if err != nil || !strings.Contains(string(packages), "install vault-1.21.4 ") {
		t.Errorf("want the named version installed, got %s, %v", packages, err)
	}
	if _, err := os.Stat(filepath.Join(folder, "home", "tls", "ca.key")); err == nil {
		t.Error("the CA's key is left on the instance")
	}
}

// The user data of an instance makes itself a service: a warm pool stops the instance, and user data runs once.
func TestInstanceScript_BecomesAService(t *testing.T) {
	folder, source := t.TempDir(), filepath.Join(root, "infra", "vault-ec2", "internal", "tryout", "host", "instance.py")
	units := filepath.Join(folder, "etc", "systemd", "system")
	if err := os.MkdirAll(units, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "systemctl"), []byte("#!/bin/sh\necho \"$*\" >"+filepath.Join(folder, "asked")+"\n"), 0o700); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(folder, "user-data")
	if err := os.WriteFile(script, append([]byte("SETTINGS = {'ca': None}\n"), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "python3", script)
	cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"), "TRYOUT_ROOT="+folder)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the script: %v\n%s", err, out)
	}
	asked, err := os.ReadFile(filepath.Join(folder, "asked"))
	if err != nil || string(asked) != "enable --now --no-block tryout.service\n" {
		t.Errorf("want the service enabled and started, got %q, %v", asked, err)
	}
	copied, err := os.ReadFile(filepath.Join(folder, "opt", "tryout", "instance.py"))
	if err != nil || !strings.HasSuffix(string(copied), string(text)) {
		t.Errorf("want the whole script kept for later starts, got %d bytes, %v", len(copied), err)
	}
	if out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", filepath.Join(units, "tryout.service")).CombinedOutput(); err != nil && !strings.Contains(string(out), "instance.py") {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}

// endServer ends the server that the script started, by its ID.
func endServer(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return // it was not started
	}
	id, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Error(err)
		return
	}
	server, err := os.FindProcess(id)
	if err == nil {
		err = server.Kill()
	}
	if err != nil {
		t.Error(err)
	}
}
