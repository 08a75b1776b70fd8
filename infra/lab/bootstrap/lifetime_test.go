package bootstrap

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func TestSetup_NamesMountsThatEndTokensEarly(t *testing.T) {
	w := start(t)
	args := []string{"-templates-dir", profiles(t), "-resolve-unique-ids=false", "-function-role", "provision=arn:aws:iam::1:role/p"}
	if out := w.must(t, args...); strings.Contains(out, "max_lease_ttl") {
		t.Errorf("want no notice where Vault's own limit is 32 days and token_max_ttl a day:\n%s", out)
	}
	w.write(t, "sys/auth/aws/tune", map[string]any{"max_lease_ttl": "10m"})
	w.write(t, "auth/aws/role/ec2-provisioner-provision", map[string]any{"token_ttl": 60, "token_max_ttl": 60})
	out := w.must(t, args...)
	for _, want := range []string{
		"notice  auth/aws ends tokens after 10m, its max_lease_ttl, and token_max_ttl is longer (up to 24h) in bob-node, carol-master",
		"vault auth tune -max-lease-ttl=24h aws/",
		"notice  auth/aws/role/ec2-provisioner-provision: stored as sent; vault advises: Given max ttl of 1200 seconds",
	} {
		if strings.Count(out, want) != 1 {
			t.Errorf("want exactly once: %s\n%s", want, out)
		}
	}
}

// The role's max_ttl overrides the mount's for a certificate, but not for its lease, at whose end Vault revokes it.
func TestSetup_NamesMountsThatRevokeEarly(t *testing.T) {
	const mount = "bob/pki/k8s"
	w := start(t)
	leased := profiles(t)
	path := filepath.Join(leased, "node", "profile.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{
		path: strings.Replace(string(text), "pki/k8s/roles, template: role", "pki/k8s/roles, template: leased", 1),
		filepath.Join(leased, "node", "leased.json.tmpl"): `{"max_ttl": "24h", "generate_lease": true}`,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"-templates-dir", leased, "-resolve-unique-ids=false", "-pki"}
	if out := w.must(t, args...); strings.Contains(out, "ends leases") {
		t.Errorf("want no notice for a mount with ten years:\n%s", out)
	}
	w.write(t, "sys/mounts/"+mount+"/tune", map[string]any{"max_lease_ttl": "1h"})
	out := w.must(t, args...)
	if want := "notice  " + mount + " ends leases after 1h"; strings.Count(out, want) != 1 || strings.Contains(out, "carol/pki/k8s ends leases") {
		t.Errorf("want one notice, for the mount with leases:\n%s", out)
	}

	w.write(t, mount+"/roles/leased", map[string]any{"max_ttl": "24h", "generate_lease": true, "allow_any_name": true})
	issued, err := w.vault.Logical().WriteWithContext(t.Context(), mount+"/issue/leased", map[string]any{"common_name": "a.example", "ttl": "24h"})
	if err != nil {
		t.Fatal(err)
	}
	seconds := grant.SecondsOf(issued.Data["expiration"])
	good := time.Until(time.Unix(int64(seconds/time.Second), 0))
	if lease := time.Duration(issued.LeaseDuration) * time.Second; lease > time.Hour || good < 23*time.Hour {
		t.Errorf("the notice rests on a lease of an hour for a certificate of a day, but they are %s and %s", lease, good)
	}
}
