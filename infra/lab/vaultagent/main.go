// Command vaultagent is `vault agent`, Vault's own, for the local lab and the tests: what an instance runs. It is a module
// of its own for the reasons that vaultserver is one.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() { os.Exit(command.Run(append([]string{"agent"}, os.Args[1:]...))) }
