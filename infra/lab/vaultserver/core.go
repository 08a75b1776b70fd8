package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	"github.com/hashicorp/vault/builtin/credential/approle"
	awsauth "github.com/hashicorp/vault/builtin/credential/aws"
	"github.com/hashicorp/vault/builtin/logical/pki"
	"github.com/hashicorp/vault/builtin/logical/ssh"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

// newCore makes a sealed, empty Vault core that holds only the engines the lab
// uses, as real as in the released server.
func newCore(log hclog.Logger, address string) (*vault.Core, error) {
	storage, err := inmem.NewInmem(nil, log.Named("storage"))
	if err != nil {
		return nil, fmt.Errorf("making the in-memory storage: %w", err)
	}
	engines := registry{
		consts.PluginTypeCredential: {"aws": awsauth.Factory, "approle": approle.Factory},
		consts.PluginTypeSecrets:    {"pki": pki.Factory, "kv": kv.Factory, "ssh": ssh.Factory},
	}
	return vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		StorageType:        "inmem",
		CredentialBackends: engines[consts.PluginTypeCredential],
		LogicalBackends:    engines[consts.PluginTypeSecrets],
		AuditBackends:      map[string]audit.Factory{"file": audit.NewFileBackend},
		BuiltinRegistry:    engines,
		RedirectAddr:       address,
		DisableMlock:       true,
		Logger:             log,
		DefaultLeaseTTL:    768 * time.Hour,
		MaxLeaseTTL:        768 * time.Hour,
	})
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
	return res.RootToken, nil
}

// registry offers the compiled-in engines in the form Vault's plugin catalogue
// asks for.
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
