package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/ask"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

func quarantineCommand() *cobra.Command {
	o := ask.OrderOptions{Mode: reconcile.Quarantine}
	cmd := &cobra.Command{
		Use:     "quarantine INSTANCE...",
		GroupID: groupDeployment,
		Short:   "Cut instances off now, though they run, until they are released",
		Long: `Have the deployed function cut named instances off in Vault, though they run: their auth roles and grants are removed, and their live tokens are
refused at once. No event, hook or comparison grants them again, and no other instance gets their names, until "vault-ec2 release".
The command touches only Vault and the ledger: the instances run on, with their network and their AWS credentials.

Exit status: 0 if each instance is cut off, 1 if one is not, 2 if the command failed.`,
		Example: `  vault-ec2 quarantine --stack vault-identities i-0123456789abcdef0 --reason "unknown login at 03:04, ticket 4711"`,
		Args:    cobra.MinimumNArgs(1),
	}
	addOrder(cmd, &o, "why; it is stored and shown, so that it must not be secret")
	return cmd
}

func releaseCommand() *cobra.Command {
	o := ask.OrderOptions{Mode: reconcile.Release}
	cmd := &cobra.Command{
		Use:     "release INSTANCE...",
		GroupID: groupDeployment,
		Short:   "End the quarantine of instances, and grant them again",
		Long: `Have the deployed function end the quarantine of named instances and make their grants as for a new start, with a new auth role: tokens from
before stay refused. The next login of each instance chooses its nonce, as the first one did. So release only an instance of which you are
sure.

Exit status: 0 if each instance is released and granted, 1 if one is not, 2 if the command failed.`,
		Example: "  vault-ec2 release --stack vault-identities i-0123456789abcdef0",
		Args:    cobra.MinimumNArgs(1),
	}
	addOrder(cmd, &o, "why; it may be left out")
	return cmd
}

// addOrder adds the flags of an order to a command, and has it carry out the order.
func addOrder(cmd *cobra.Command, o *ask.OrderOptions, reason string) {
	f := cmd.Flags()
	addChoice(f, &o.Of)
	f.StringVar(&o.Reason, "reason", "", reason)
	f.StringVar(&o.By, "by", "", "`name` of the person who orders it (default: the ARN of the AWS credentials)")
	f.StringVar(&o.Account, "account", "", "`account` of the instances, if the functions do not know them; with --region")
	f.StringVar(&o.Region, "region", "", "`region` of the instances, if the functions do not know them; with --account")
	isJSON := addFormat(cmd)
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, args []string) (int, error) {
		o.Instances, o.JSON = args, isJSON()
		return ask.Order(ctx, *o, streamsOf(cmd))
	})
}
