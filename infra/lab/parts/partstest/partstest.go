// Package partstest starts the lab's parts for a test, and ends them with it.
package partstest

import (
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

// Workspace returns a workspace for a test of a package three folders below the repository's root.
func Workspace(t *testing.T) *parts.Workspace {
	t.Helper()
	w, err := parts.NewWorkspace("../../..", "", t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Python returns an interpreter that has moto and the SAM translator.
func Python(t *testing.T) string {
	t.Helper()
	python, err := parts.Python(t.Context(), Workspace(t))
	if err != nil {
		t.Fatal(err)
	}
	return python
}

// Moto starts moto.
func Moto(t *testing.T, w *parts.Workspace) *parts.Moto {
	t.Helper()
	moto, err := parts.StartMoto(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = moto.Process.Stop() })
	return moto
}

// Vault starts an empty Vault.
func Vault(t *testing.T, w *parts.Workspace) *vaultserver.Server {
	t.Helper()
	vault, err := vaultserver.Start(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vault.Process.Stop() })
	return vault
}
