package main

import (
	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/ask"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

func teardownCommand() *cobra.Command {
	o := ask.Options{Input: reconcile.Input{Mode: reconcile.Teardown}}
	cmd := &cobra.Command{
		Use:     "teardown",
		GroupID: groupDeployment,
		Short:   "Remove everything that a deployment made in Vault",
		Long: `Have the deployed function remove everything that the deployment made in Vault, of running instances too. It asks for the deployment's name
first. Nothing is granted afterwards.

Exit status: 0 if nothing of the deployment is left, 1 if something is, 2 if the command failed.`,
		Example: "  vault-ec2 teardown --stack vault-identities",
		Args:    cobra.NoArgs,
	}
	addChoice(cmd.Flags(), &o.Of)
	cmd.Flags().StringVar(&o.Input.Confirm, "yes", "", "the `name` of the deployment, instead of a prompt")
	cmd.RunE = asks(&o, addFormat(cmd))
	return cmd
}
