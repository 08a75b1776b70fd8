package lab

import (
	"context"
	"fmt"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

// OtherVault starts a second Vault and prepares it as the first one. It returns a world as EmptyVault does.
func (w *World) OtherVault(ctx context.Context) (*World, error) {
	other, err := w.EmptyVault(ctx)
	if err != nil {
		return nil, err
	}
	if err := SetupVault(ctx, other); err != nil {
		return nil, fmt.Errorf("setting the other Vault up: %w", err)
	}
	return other, other.Fleet.RegisterCertificate(ctx, other.Vault, w.AuthMount)
}

// EmptyVault starts a second, empty Vault. It returns a world with that Vault: stack, EC2 and ledger are shared with the first
// world, functions are not. It ends with the first world.
func (w *World) EmptyVault(ctx context.Context) (*World, error) {
	workspace, err := parts.NewWorkspace(w.opts.RepoRoot, w.opts.CacheDir, w.opts.Progress)
	if err != nil {
		return nil, fmt.Errorf("preparing another Vault: %w", err)
	}
	vault, err := vaultserver.Start(ctx, workspace)
	if err != nil {
		return nil, fmt.Errorf("starting another Vault: %w", err)
	}
	w.onClose(vault.Process.Stop)
	other := &World{
		Binary:    vault.Binary,
		VaultAddr: vault.Address, VaultCAPEM: vault.CAPEM, VaultToken: vault.RootToken, AuditLog: vault.AuditLog, RunDir: workspace.Run, Profiles: w.Profiles,
		MotoURL: w.MotoURL, AWS: w.AWS, Dynamo: w.Dynamo, Stack: w.Stack,
		AuthMount: w.AuthMount, VaultNamespace: w.VaultNamespace, Region: w.Region, AccountID: w.AccountID, opts: w.opts, workspace: workspace,
	}
	if other.Vault, err = other.rootClient(); err != nil {
		return nil, err
	}
	other.Fleet, err = fleet.New(fleet.Options{
		AWS: w.AWS, AccountID: w.AccountID, VaultAddr: vault.Address, VaultCAPEM: vault.CAPEM, VaultNamespace: w.VaultNamespace, QueuesFor: w.Stack.QueuesFor,
	})
	return other, err
}
