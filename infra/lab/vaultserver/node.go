package vaultserver

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// startLimit bounds the time until a node answers, an election included.
const startLimit = 2 * time.Minute

// node is one server process with its configuration. Its address stays the same when it is started again.
type node struct {
	name      string // "vault", of files and messages
	dir       string // working folder
	binary    Binary
	cert      certificate
	workspace *parts.Workspace

	address string // https://127.0.0.1:<port>
	cluster string // 127.0.0.1:<port> for the other nodes; Raft demands it of a single node too
	config  string // file
	process *parts.Process
	client  *api.Client // of this node, without a token
}

// storage is a node's storage stanza. A nil Raft is storage in memory.
type storage struct{ raft map[string]any }

// newNode returns a node with free ports and its working folder, still without a configuration.
func newNode(w *parts.Workspace, b Binary, c certificate, name, dir string) (*node, error) {
	n := &node{name: name, dir: dir, binary: b, cert: c, workspace: w, config: filepath.Join(w.Run, name+".json")}
	port, err := parts.FreePort()
	if err != nil {
		return nil, err
	}
	clusterPort, err := parts.FreePort()
	if err != nil {
		return nil, err
	}
	n.address, n.cluster = "https://127.0.0.1:"+strconv.Itoa(port), "127.0.0.1:"+strconv.Itoa(clusterPort)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of %s: %w", name, err)
	}
	n.client, err = clientOf(n.address, c.caPEM)
	return n, err
}

// configure writes the node's configuration.
func (n *node) configure(s storage) error {
	config := map[string]any{
		"listener": []any{map[string]any{"tcp": map[string]any{
			"address": strings.TrimPrefix(n.address, "https://"), "cluster_address": n.cluster,
			"tls_cert_file": n.cert.certFile, "tls_key_file": n.cert.keyFile,
		}}},
		"storage":       map[string]any{"inmem": map[string]any{}},
		"api_addr":      n.address,
		"cluster_addr":  "https://" + n.cluster,
		"disable_mlock": true,
		"log_level":     "warn",
	}
	if s.raft != nil {
		config["storage"] = map[string]any{"raft": s.raft}
	}
	if n.binary.Plugin != "" {
		config["plugin_directory"] = filepath.Dir(n.binary.Plugin)
		config["unsafe_allow_api_audit_creation"] = true
	}
	text, err := json.MarshalIndent(config, "", "  ")
	if err == nil {
		err = os.WriteFile(n.config, text, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing the configuration of %s: %w", n.name, err)
	}
	return nil
}

// start starts the process and waits until its API answers, sealed or not.
func (n *node) start(ctx context.Context) error {
	var err error
	n.process, err = parts.Start(parts.Command{
		Name: n.binary.String() + " (" + n.name + ")", Path: n.binary.Path, Args: []string{"server", "-config=" + n.config},
		Dir: n.dir, Env: environment(), Log: n.workspace.Log(n.name),
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
	cfg.Address, cfg.Timeout, cfg.MaxRetries = address, 30*time.Second, 0
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
