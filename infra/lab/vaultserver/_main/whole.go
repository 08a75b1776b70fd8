// Command vault is the released program: server, Agent and client, with every plugin that Vault contains.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() { os.Exit(command.Run(os.Args[1:])) }
