package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/tryout"
)

func tryoutCommand() *cobra.Command {
	var o tryout.Options
	cmd := &cobra.Command{
		Use:     "tryout",
		GroupID: groupDeployment,
		Short:   "Try everything in an AWS account without other use, and write a report",
		Long: `Try everything in an AWS account without other use: make a network and a small Vault, deploy, launch instances of each kind, attack, update,
tear down, remove all of it, and write a report. It says what that costs and asks first.

It needs the SAM CLI, and AWS credentials that may make networks, instances, roles, keys and stacks. What it made is removed at its end, also after an
interrupt; what a killed run left is removed with --remove.

Exit status: 0 if every line that was tried is ok and everything is removed, 1 if a line is not, 2 if the command failed.`,
		Example: `  vault-ec2 tryout --package vault-ec2-provisioner
  vault-ec2 tryout --package vault-ec2-provisioner --second-region eu-west-1 --member-profile other-account
  vault-ec2 tryout --remove`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&o.Name, "name", "tryout", "`name` of the deployment, with which the names of all stacks begin")
	f.StringVar(&o.Package, "package", ".", "`folder` of an unpacked release, or of a checkout after make build for Lambda's processor")
	f.StringVar(&o.SecondRegion, "second-region", "", "`region` that has instances too; empty for none")
	f.StringVar(&o.MemberProfile, "member-profile", "", "AWS `profile` of another account that has instances too; empty for none")
	f.StringVar(&o.VaultVersion, "vault-version", tryout.VaultVersion, "`version` of Vault, from HashiCorp's package repository")
	f.StringArrayVar(&o.SetupArgs, "setup-arg", nil, "further `argument` for vault-ec2 setup, such as --certificate=<region>=<file>; repeat")
	f.StringVar(&o.Report, "report", "tryout.md", "`file` of the report")
	f.DurationVar(&o.Patience, "patience", time.Hour, "longest `time` to wait for one thing, if its own limit is not shorter")
	f.StringVar(&o.Confirm, "yes", "", "the `ID` of the account, instead of a prompt")
	f.BoolVar(&o.Remove, "remove", false, "only remove what an earlier run of the name left")
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, _ []string) (int, error) {
		var err error
		o.In, o.Out = cmd.InOrStdin(), cmd.OutOrStdout()
		if o.Command, err = os.Executable(); err != nil {
			return wrongUse, err
		}
		if o.Package, err = filepath.Abs(o.Package); err != nil {
			return wrongUse, err
		}
		isGood, err := tryout.Run(ctx, o)
		switch {
		case err != nil:
			return wrongUse, err
		case !isGood:
			return 1, nil
		}
		return 0, nil
	})
	return cmd
}
