package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/ask"
)

func explainCommand() *cobra.Command {
	o := ask.ExplainOptions{}
	cmd := &cobra.Command{
		Use:     "explain INSTANCE",
		GroupID: groupDeployment,
		Short:   "Explain what an instance has, what it lacks and why",
		Long: `Have the deployed function explain one instance: what EC2 says of it, which profile matches and why the others do not, what it is granted,
what the ledger and Vault hold, each difference, what was refused and since when, its logins, and the next step. Nothing is changed.

Exit status: 0 if the instance has its grant, or has none and is gone; 1 for any other instance; 2 if the command failed.`,
		Example: "  vault-ec2 explain --stack vault-identities i-0123456789abcdef0",
		Args:    cobra.ExactArgs(1),
	}
	f := cmd.Flags()
	addChoice(f, &o.Of)
	f.StringVar(&o.Account, "account", "", "`account` of the instance, if the functions do not know it; with --region")
	f.StringVar(&o.Region, "region", "", "`region` of the instance, if the functions do not know it; with --account")
	isJSON := addFormat(cmd)
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, args []string) (int, error) {
		o.Instance, o.JSON = args[0], isJSON()
		return ask.Explain(ctx, o, streamsOf(cmd))
	})
	return cmd
}
