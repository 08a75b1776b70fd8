// Command vault is Vault's own program, built with its tag `minimal`, which leaves out the plugins of the clouds: the server
// gets the AWS auth method back. Agent and client are as released.
package main

import (
	"os"
	"strings"

	"github.com/hashicorp/cli"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/audit"
	awsauth "github.com/hashicorp/vault/builtin/credential/aws"
	"github.com/hashicorp/vault/builtin/plugin"
	"github.com/hashicorp/vault/command"
	"github.com/hashicorp/vault/physical/raft"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/serviceregistration"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 || args[0] != "server" {
		os.Exit(command.Run(args))
	}
	server := &command.ServerCommand{
		BaseCommand:        &command.BaseCommand{UI: &cli.BasicUi{Reader: strings.NewReader(""), Writer: os.Stdout, ErrorWriter: os.Stderr}},
		AuditBackends:      map[string]audit.Factory{"file": audit.NewFileBackend},
		CredentialBackends: map[string]logical.Factory{"aws": awsauth.Factory, "plugin": plugin.Factory},
		// kv is in the plugin catalogue too, but the server mounts it without the catalogue.
		LogicalBackends:      map[string]logical.Factory{"kv": kv.Factory, "plugin": plugin.Factory},
		PhysicalBackends:     map[string]physical.Factory{"inmem": inmem.NewInmem, "raft": raft.NewRaftBackend},
		ServiceRegistrations: map[string]serviceregistration.Factory{},
		ShutdownCh:           command.MakeShutdownCh(),
		SighupCh:             command.MakeSighupCh(),
		SigUSR2Ch:            command.MakeSigUSR2Ch(),
	}
	os.Exit(server.Run(args[1:]))
}
