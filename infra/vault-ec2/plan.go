package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/ask"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
)

func planCommand() *cobra.Command {
	o := ask.PlanOptions{}
	cmd := &cobra.Command{
		Use:     "plan FOLDER",
		GroupID: groupDeployment,
		Short:   "Show what a folder of profiles would change in the running fleet",
		Long: `Have the deployed function load a folder of profiles, compare the whole fleet by them, and check the rights that they need. Nothing is
changed. A difference can also be drift that exists already: vault-ec2 reconcile shows that alone.

Exit status: 0 if nothing would change, 1 if something would, a check fails or the profiles are refused, 2 if the command failed.`,
		Example: "  vault-ec2 plan --stack vault-identities profiles",
		Args:    cobra.ExactArgs(1),
	}
	addChoice(cmd.Flags(), &o.Of)
	isJSON := addFormat(cmd)
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, args []string) (int, error) {
		o.Folder, o.JSON = args[0], isJSON()
		return ask.Plan(ctx, o, streamsOf(cmd))
	})
	return cmd
}

func applyCommand() *cobra.Command {
	o := ask.ApplyOptions{}
	cmd := &cobra.Command{
		Use:     "apply [FOLDER]",
		GroupID: groupDeployment,
		Short:   "Make a folder of profiles the active ones, or take them back",
		Long: `Show what a folder of profiles would change, as vault-ec2 plan does, and once you agree make them the active ones. The functions use them
if the stack's parameter Profiles is active; otherwise the command says how to update the stack. With --previous or --digest an earlier
version becomes the active one again.

Exit status: 0 if the profiles are active, 1 if they are not because of a failed check or of your answer, 2 if the command failed.`,
		Example: `  vault-ec2 apply --stack vault-identities profiles
  vault-ec2 apply --stack vault-identities --previous`,
		Args: cobra.MaximumNArgs(1),
	}
	f := cmd.Flags()
	addChoice(f, &o.Of)
	f.BoolVar(&o.Previous, "previous", false, "the version before the active one")
	f.StringVar(&o.Digest, "digest", "", "an earlier version, by the beginning of its `digest`")
	f.BoolVar(&o.Yes, "yes", false, "do not ask")
	f.BoolVar(&o.Force, "force", false, "although a check fails, or it is unknown what would change")
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, args []string) (int, error) {
		if len(args) > 0 {
			o.Folder = args[0]
		}
		return ask.Apply(ctx, o, streamsOf(cmd))
	})
	return cmd
}

func profilesCommand() *cobra.Command {
	of := deployed.Choice{}
	cmd := &cobra.Command{
		Use:     "profiles",
		GroupID: groupDeployment,
		Short:   "List the versions of the profiles that were active",
		Long: `List the versions of the profiles that were active, the newest first, with the time and the caller of each activation.

Exit status: 0, or 2 if the command failed.`,
		Example: "  vault-ec2 profiles --stack vault-identities",
		Args:    cobra.NoArgs,
	}
	addChoice(cmd.Flags(), &of)
	isJSON := addFormat(cmd)
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, _ []string) (int, error) {
		return ask.Versions(ctx, of, isJSON(), streamsOf(cmd))
	})
	return cmd
}

func streamsOf(cmd *cobra.Command) ask.Streams {
	return ask.Streams{In: cmd.InOrStdin(), Out: cmd.OutOrStdout(), Progress: cmd.ErrOrStderr()}
}
