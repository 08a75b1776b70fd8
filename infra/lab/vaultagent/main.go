// Command vaultagent is Vault's own `vault agent`, which an instance runs, for the local lab and the tests. It is a module
// of its own for the same reasons as vaultserver.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() { os.Exit(command.Run(append([]string{"agent"}, os.Args[1:]...))) }
