package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/lint"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func lintCommand() *cobra.Command {
	o := lint.Options{Folder: "templates", Rules: grant.DefaultRules()}
	cmd := &cobra.Command{
		Use:     "lint [FOLDER]",
		GroupID: groupProfiles,
		Short:   "Check a folder of profiles",
		Long: `Check a folder of profiles (templates by default), for your own CI. Every fault of every profile is printed with its file, and its line
where it is known. AWS and Vault are not called.

Exit status: 0 without a fault, 1 with one, 2 if the command failed.`,
		Example: `  vault-ec2 lint profiles
  vault-ec2 lint profiles --max-certificate-ttl 720h --output json`,
		Args: cobra.MaximumNArgs(1),
	}
	addRules(cmd.Flags(), &o.Rules)
	isJSON := addFormat(cmd)
	cmd.RunE = runs(func(_ context.Context, cmd *cobra.Command, args []string) (int, error) {
		if len(args) > 0 {
			o.Folder = args[0]
		}
		o.JSON = isJSON()
		return lint.Run(o, cmd.OutOrStdout())
	})
	return cmd
}

// addRules adds the flags of the rules that a deployment sets.
func addRules(to *pflag.FlagSet, r *grant.Rules) {
	to.DurationVar(&r.MaxTTL, "max-certificate-ttl", r.MaxTTL, "longest max_ttl of a PKI role: MaxCertificateTTL of the stack")
	to.StringVar(&r.RolePrefix, "role-prefix", r.RolePrefix, "`prefix` of the functions' own policies: VaultLoginRole of the stack")
}
