package main

import (
	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/ask"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

func doctorCommand() *cobra.Command {
	o := ask.Options{Input: reconcile.Input{Mode: reconcile.Doctor}}
	cmd := &cobra.Command{
		Use:     "doctor",
		GroupID: groupDeployment,
		Short:   "Check everything that the functions need",
		Long: `Have the deployed function check everything that the functions need, and print each check, with a remedy for a failed one.

Exit status: 0 if all is well, 1 if a check failed, 2 if the command failed.`,
		Example: "  vault-ec2 doctor --stack vault-identities",
		Args:    cobra.NoArgs,
	}
	addChoice(cmd.Flags(), &o.Of)
	cmd.RunE = asks(&o, addFormat(cmd))
	return cmd
}
