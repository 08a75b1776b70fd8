package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/credential/approle"
	awsauth "github.com/hashicorp/vault/builtin/credential/aws"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/ssh"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// The kinds of storage.
const (
	inMemory = "inmem"
	onRaft   = "raft"
)

// newStorage returns the storage that the options name.
func newStorage(log hclog.Logger, o options) (physical.Backend, error) {
	switch o.storage {
	case inMemory:
		return inmem.NewInmem(nil, log)
	case onRaft:
		if err := os.MkdirAll(o.path, 0o700); err != nil {
			return nil, err
		}
		// BoltDB syncs each commit to disk, as a released server's does.
		// https://developer.hashicorp.com/vault/docs/configuration/storage/raft
		return raft.NewRaftBackend(map[string]string{"path": o.path, "node_id": "lab", "performance_multiplier": "1"}, log)
	}
	return nil, errors.New("unknown; want " + inMemory + " or " + onRaft)
}

// newCore returns a sealed, empty Vault core with only the engines that the lab
// uses, the same as in the released server.
func newCore(log hclog.Logger, address string, o options) (*vault.Core, error) {
	storage, err := newStorage(log.Named("storage"), o)
	if err != nil {
		return nil, fmt.Errorf("making the storage %s: %w", o.storage, err)
	}
	engines := registry{
		consts.PluginTypeCredential: {"aws": awsauth.Factory, "approle": approle.Factory},
		consts.PluginTypeSecrets:    {"pki": pki.Factory, "kv": kv.Factory, "ssh": ssh.Factory},
	}
	config := &vault.CoreConfig{
		Physical:           storage,
		StorageType:        o.storage,
		CredentialBackends: engines[consts.PluginTypeCredential],
		LogicalBackends:    engines[consts.PluginTypeSecrets],
		AuditBackends:      map[string]audit.Factory{"file": audit.NewFileBackend},
		BuiltinRegistry:    engines,
		RedirectAddr:       address,
		DisableMlock:       true,
		Logger:             log,
		DefaultLeaseTTL:    768 * time.Hour,
		MaxLeaseTTL:        768 * time.Hour,
	}
	if o.storage != onRaft {
		return vault.NewCore(config)
	}
	// A Raft node becomes active by an election, and does not start without a listener for other nodes.
	config.HAPhysical, _ = storage.(physical.HABackend)
	config.ClusterAddr = address
	core, err := vault.NewCore(config)
	if err == nil {
		core.SetClusterListenerAddrs([]*net.TCPAddr{{IP: net.IPv4(127, 0, 0, 1)}})
	}
	return core, err
}

// initialise initialises and unseals the core with a single key share and
// returns the root token.
func initialise(ctx context.Context, core *vault.Core) (string, error) {
	one := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	res, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: one, RecoveryConfig: one})
	if err != nil {
		return "", err
	}
	unsealed, err := core.Unseal(res.SecretShares[0])
	if err != nil {
		return "", fmt.Errorf("unsealing: %w", err)
	}
	if !unsealed {
		return "", errors.New("unsealing: the core is still sealed after its only key share")
	}
	for standby, err := core.Standby(); standby || err != nil; standby, err = core.Standby() {
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("waiting to become the active node: %w", errors.Join(ctx.Err(), err))
		case <-time.After(10 * time.Millisecond):
		}
	}
	return res.RootToken, nil
}

// registry offers the compiled-in engines in the form that Vault's plugin catalogue
// requires.
type registry map[consts.PluginType]map[string]logical.Factory

func (r registry) Contains(name string, t consts.PluginType) bool {
	_, ok := r[t][name]
	return ok
}

func (r registry) Get(name string, t consts.PluginType) (func() (any, error), bool) {
	factory, ok := r[t][name]
	return func() (any, error) { return factory, nil }, ok
}

func (r registry) Keys(t consts.PluginType) []string {
	var names []string
	for name := range r[t] {
		names = append(names, name)
	}
	return names
}

func (r registry) DeprecationStatus(name string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r.Contains(name, t)
}

func (r registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }
