package vaultserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// Server is a running server: unsealed and empty but for its audit device.
type Server struct {
	Binary    Binary
	Address   string // https://127.0.0.1:<port>
	CAPEM     string // the CA that a client must trust
	RootToken string
	AuditLog  string // file of JSON lines
	Process   *parts.Process
}

// Start finds or builds the program, and starts one node with its storage in memory and its audit log in the run folder.
func Start(ctx context.Context, w *parts.Workspace) (*Server, error) {
	return start(ctx, w, storage{})
}

// StartOnRaft is Start with one node of Raft storage in the run folder, where each write waits for the disk.
// https://developer.hashicorp.com/vault/docs/configuration/storage/raft
func StartOnRaft(ctx context.Context, w *parts.Workspace) (*Server, error) {
	path := filepath.Join(w.Run, "raft")
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the Raft storage: %w", err)
	}
	return start(ctx, w, storage{raft: map[string]any{"path": path, "node_id": "lab", "performance_multiplier": "1"}})
}

func start(ctx context.Context, w *parts.Workspace, s storage) (*Server, error) {
	binary, err := Find(ctx, w)
	if err != nil {
		return nil, err
	}
	cert, err := newCertificate(w.Run)
	if err != nil {
		return nil, err
	}
	n, err := newNode(w, binary, cert, "vault", w.Run)
	if err == nil {
		err = n.configure(s)
	}
	if err != nil {
		return nil, err
	}
	if err := n.start(ctx); err != nil {
		return nil, err
	}
	v := &Server{Binary: binary, Address: n.address, CAPEM: cert.caPEM, AuditLog: filepath.Join(w.Run, "vault-audit.jsonl"), Process: n.process}
	if v.RootToken, _, err = n.initialise(ctx); err == nil {
		err = prepare(ctx, n.client, binary, v.RootToken, v.AuditLog)
	}
	if err != nil {
		_ = n.process.Stop()
		return nil, err
	}
	return v, nil
}

// prepare enables the audit device and registers OpenBao's plugin, as an operator does.
func prepare(ctx context.Context, anonymous *api.Client, b Binary, token, auditLog string) error {
	client, err := anonymous.Clone()
	if err != nil {
		return err
	}
	client.SetToken(token)
	err = client.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": auditLog, "mode": "0600"},
	})
	if err != nil {
		return fmt.Errorf("enabling the audit log %s: %w", auditLog, err)
	}
	if b.Plugin == "" {
		return nil
	}
	program, err := os.ReadFile(b.Plugin)
	if err != nil {
		return fmt.Errorf("reading OpenBao's plugin: %w", err)
	}
	sum := sha256.Sum256(program)
	err = client.Sys().RegisterPluginWithContext(ctx, &api.RegisterPluginInput{
		Name: "aws", Type: api.PluginTypeCredential, Command: filepath.Base(b.Plugin), SHA256: hex.EncodeToString(sum[:]),
	})
	if err != nil {
		return fmt.Errorf("registering OpenBao's plugin %s: %w", b.Plugin, err)
	}
	return nil
}
