package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/ask"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

func reconcileCommand() *cobra.Command {
	o := ask.Options{Input: reconcile.Input{Mode: reconcile.Detect}}
	cmd := &cobra.Command{
		Use:     "reconcile",
		GroupID: groupDeployment,
		Short:   "Compare EC2, the ledger and Vault, and repair the drift",
		Long: `Have the deployed function compare the fleet, and print the drift as a table with each difference below its row. With --mode correct it
repairs the drift.

Exit status: 0 if nothing is left to do, 1 if something is, 2 if the command failed.`,
		Example: `  vault-ec2 reconcile --stack vault-identities
  vault-ec2 reconcile --stack vault-identities --mode correct --instance i-0123456789abcdef0`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	addChoice(f, &o.Of)
	f.StringVar((*string)(&o.Input.Mode), "mode", string(reconcile.Detect), "`mode`: detect prints the drift, correct repairs it")
	complete(cmd, "mode", string(reconcile.Detect), string(reconcile.Correct))
	f.StringArrayVar(&o.Input.InstanceIDs, "instance", nil, "compare this `instance ID` only; repeat")
	f.StringVar(&o.Input.Profile, "profile", "", "compare the instances of this `profile` only")
	f.BoolVar(&o.Input.Force, "force", false, "with correct, remove instances beyond the delete limit too")
	f.StringArrayVar(&o.Gone.Accounts, "gone-account", nil, "remove what is recorded of this `account`, which no longer exists; repeat")
	f.StringArrayVar(&o.Gone.InstanceIDs, "gone-instance", nil, "remove what is recorded of this `instance ID`, which no longer exists; repeat")
	f.IntVar(&o.Gone.AtMost, "at-most", 0, "with --gone-… and correct, the `number` of instances that detect reported")
	f.StringVar(&o.Input.Confirm, "yes", "", "with --mode teardown, the `name` of the deployment, instead of a prompt")
	_ = f.MarkHidden("yes") // it exists; the commands doctor and teardown are the modes of that name
	cmd.RunE = asks(&o, addFormat(cmd))
	return cmd
}

// asks returns a function for cobra that invokes the reconcile function.
func asks(o *ask.Options, isJSON func() bool) func(*cobra.Command, []string) error {
	return runs(func(ctx context.Context, cmd *cobra.Command, _ []string) (int, error) {
		o.JSON = isJSON()
		return ask.Run(ctx, *o, streamsOf(cmd))
	})
}
