package vaultserver

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// startLimit bounds the time until a node answers, an election included.
const startLimit = 60 * time.Second

// node is one server process with its configuration. Its address stays the same when it is started again.
type node struct {
	name      string // "vault", of files and messages
	binary    Binary
	cert      certificate
	workspace *parts.Workspace

	address string // https://127.0.0.1:<port>
	config  string // file
	process *parts.Process
	client  *api.Client // of this node, without a token
}

// storage is a node's storage stanza. A nil Raft is storage in memory.
type storage struct{ raft map[string]any }

// newNode writes the configuration of a node that listens on free ports.
func newNode(w *parts.Workspace, b Binary, c certificate, name string, s storage) (*node, error) {
	n := &node{name: name, binary: b, cert: c, workspace: w, config: filepath.Join(w.Run, name+".json")}
	port, err := parts.FreePort()
	if err != nil {
		return nil, err
	}
	clusterPort, err := parts.FreePort() // of the other nodes; Raft demands it of a single node too
	if err != nil {
		return nil, err
	}
	listen, cluster := "127.0.0.1:"+strconv.Itoa(port), "127.0.0.1:"+strconv.Itoa(clusterPort)
	n.address = "https://" + listen
	config := map[string]any{
		"listener": []any{map[string]any{"tcp": map[string]any{
			"address": listen, "cluster_address": cluster, "tls_cert_file": c.certFile, "tls_key_file": c.keyFile,
		}}},
		"storage":       map[string]any{"inmem": map[string]any{}},
		"api_addr":      n.address,
		"cluster_addr":  "https://" + cluster,
		"disable_mlock": true,
		"log_level":     "warn",
	}
	if s.raft != nil {
		config["storage"] = map[string]any{"raft": s.raft}
	}
	if b.Plugin != "" {
		config["plugin_directory"] = filepath.Dir(b.Plugin)
		config["unsafe_allow_api_audit_creation"] = true
	}
	text, err := json.MarshalIndent(config, "", "  ")
	if err == nil {
		err = os.WriteFile(n.config, text, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("writing the configuration of %s: %w", name, err)
	}
	n.client, err = clientOf(n.address, c.caPEM)
	return n, err
}

// start starts the process and waits until its API answers, sealed or not.
func (n *node) start(ctx context.Context) error {
	var err error
	n.process, err = parts.Start(parts.Command{
		Name: n.binary.Product + " (" + n.name + ")", Path: n.binary.Path, Args: []string{"server", "-config=" + n.config},
		Dir: n.workspace.Run, Env: environment(), Log: n.workspace.Log(n.name),
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	err = n.process.WaitReady(ctx, func(ctx context.Context) error {
		_, err := n.client.Sys().SealStatusWithContext(ctx)
		return err
	})
	if err != nil {
		_ = n.process.Stop()
	}
	return err
}

// initialise initialises and unseals the node and waits until it is the active one. It returns the root token and the one
// unseal key.
func (n *node) initialise(ctx context.Context) (token, key string, err error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	made, err := n.client.Sys().InitWithContext(ctx, &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
	if err != nil {
		return "", "", fmt.Errorf("initialising %s: %w", n.name, err)
	}
	key = made.KeysB64[0]
	if err := n.unseal(ctx, key); err != nil {
		return "", "", err
	}
	return made.RootToken, key, n.process.WaitReady(ctx, func(ctx context.Context) error {
		health, err := n.client.Sys().HealthWithContext(ctx)
		if err == nil && (health.Standby || health.Sealed) {
			err = fmt.Errorf("%s is not the active node yet: %+v", n.name, health)
		}
		return err
	})
}

func (n *node) unseal(ctx context.Context, key string) error {
	if _, err := n.client.Sys().UnsealWithContext(ctx, key); err != nil {
		return fmt.Errorf("unsealing %s: %w", n.name, err)
	}
	return nil
}

func clientOf(address, caPEM string) (*api.Client, error) {
	cfg := api.DefaultConfig()
	if cfg.Error != nil {
		return nil, fmt.Errorf("making a client of %s: %w", address, cfg.Error)
	}
	// One request, to this server alone: the lab's user may have settings of a Vault of their own.
	cfg.Address, cfg.Timeout, cfg.MaxRetries = address, 10*time.Second, 0
	if err := cfg.ConfigureTLS(&api.TLSConfig{CACertBytes: []byte(caPEM)}); err != nil {
		return nil, fmt.Errorf("trusting the CA of %s: %w", address, err)
	}
	client, err := api.NewClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", address, err)
	}
	client.ClearToken()
	client.ClearNamespace()
	return client, nil
}
