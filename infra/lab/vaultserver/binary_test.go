package vaultserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// program writes a program that answers `version` with a line, and returns its path.
func program(t *testing.T, name, version string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, fmt.Appendf(nil, "#!/bin/sh\necho \"%s\"\n", version), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBinary_IsTakenFromThePathIfSupported(t *testing.T) {
	for _, row := range []struct {
		line, want string
		supported  bool
	}{
		{"Vault v1.21.4, built 2025-11-26T05:56:21Z", "Vault 1.21.4", true},
		{"Vault v1.16.3 ('e6fa2c9a0dbb7bb1c6eb28d2a56c2d4e1d4bf4d4'), built 2024-05-29T14:42:48Z", "Vault 1.16.3", true},
		{"Vault v1.15.6 ('615cf6f1dce9aa91bc2035ce33b9f689952218f0'), built 2024-02-28T17:07:34Z", "Vault 1.15.6", false},
		{"Vault v1.22.0 ('a'), built 2026-01-01T00:00:00Z", "Vault 1.22.0", false},
		{"Vault v1.20.4+ent ('a'), built 2025-09-23T13:22:38Z", "Vault 1.20.4+ent", false},
		{"Vault v2.0.0 ('a'), built 2026-04-01T00:00:00Z", "Vault 2.0.0", false},
		{"OpenBao v2.5.5 ('a'), built 2026-06-01T00:00:00Z", "OpenBao 2.5.5", false},
		{"OpenBao v2.0.0-HEAD", "OpenBao 2.0.0-HEAD", false},
	} {
		b, err := identify(t.Context(), program(t, "vault", row.line))
		if err != nil || b.String() != row.want || b.supported() != row.supported {
			t.Errorf("a program that says %q: want %s, taken by itself %t; got %s, %t (%v)", row.line, row.want, row.supported, b, b.supported(), err)
		}
	}
	if _, err := identify(t.Context(), program(t, "vault", "vault 1.0 of another project")); err == nil {
		t.Error("a program that is neither Vault nor OpenBao must be refused by name, not started")
	}
}

func TestFind_PrefersTheChosenProgram(t *testing.T) {
	said := ""
	w, err := parts.NewWorkspace("../../..", t.TempDir(), func(format string, args ...any) { said += fmt.Sprintf(format, args...) + "\n" })
	if err != nil {
		t.Fatal(err)
	}
	onPath, chosen := program(t, "vault", "Vault v1.20.4, built x"), program(t, "other", "Vault v2.0.0, built x")
	t.Setenv("PATH", filepath.Dir(onPath)+":"+os.Getenv("PATH"))
	t.Setenv(programEnv, "")
	if b, err := Find(t.Context(), w); err != nil || b.Path != onPath || !strings.Contains(said, "Vault 1.20.4, found on the PATH") {
		t.Errorf("want the vault on the PATH, and a line that says so: got %+v, %v, %q", b, err, said)
	}
	t.Setenv(programEnv, chosen)
	if b, err := Find(t.Context(), w); err != nil || b.Path != chosen {
		t.Errorf("want the chosen program, whatever its version: got %+v, %v", b, err)
	}
	for product, want := range map[vault.Product]string{vault.HashiCorp: "/a", vault.OpenBao: onPath} {
		if agent, err := (Binary{Path: "/a", Server: vault.Server{Product: product}}).Agent(t.Context(), w); err != nil || agent != want {
			t.Errorf("the Agent beside %s: got %s, %v, want %s: bao's agent has no aws method", product, agent, err, want)
		}
	}
	t.Setenv(programEnv, "1.2.3")
	if _, err := Find(t.Context(), w); err == nil || !strings.Contains(err.Error(), "versions.go") {
		t.Errorf("a version that cannot be built must be refused with the place to look: got %v", err)
	}
	t.Setenv(programEnv, program(t, "bao", "OpenBao v2.5.5 (x), built x"))
	t.Setenv(pluginEnv, "")
	if _, err := Find(t.Context(), w); err == nil || !strings.Contains(err.Error(), "BAO_AWS_PLUGIN") {
		t.Errorf("OpenBao without its plugin must be refused with the variable to set: got %v", err)
	}
}
