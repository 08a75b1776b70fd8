package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/lint"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/render"
)

func renderCommand() *cobra.Command {
	o := render.Defaults()
	cmd := &cobra.Command{
		Use:     "render",
		GroupID: groupProfiles,
		Short:   "Show the objects that a profile would write to Vault",
		Long: `Show the objects that a profile would make for an instance, exactly as they would be written to Vault, and the guard's verdict. The instance
is one in EC2 (--instance, looked up with your own credentials and region), one described in a file (--facts), or one made up from the
profile's match. Nothing is written.

Exit status: 0 if the instance would be granted the objects, 1 if not, 2 if the command failed.`,
		Example: `  vault-ec2 render --templates profiles --profile alice_cluster-worker
  vault-ec2 render --templates profiles --instance i-0123456789abcdef0`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	alsoNamed(f, "templates", "templates-dir")
	f.StringVar(&o.Templates, "templates", o.Templates, "`folder` of the profiles")
	f.StringVar(&o.Profile, "profile", "", "render this `profile`; without it, the one that matches the instance")
	f.StringVar(&o.Instance, "instance", "", "render for this `instance ID` in EC2, in the caller's account and region")
	f.StringVar(&o.Facts, "facts", "", "render for the instance described in this JSON `file`")
	f.StringVar(&o.Realm.Deployment, "deployment", o.Realm.Deployment, "`name` for the ownership marker: the stack's name")
	f.StringVar(&o.Realm.AuthMount, "auth-mount", o.Realm.AuthMount, "auth `mount` that instances log in to")
	addRules(f, &o.Rules)
	isJSON := addFormat(cmd)
	check := f.Bool("check", false, "only check the profiles, as vault-ec2 lint does")
	_ = f.MarkHidden("check") // it exists
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, _ []string) (int, error) {
		if o.JSON = isJSON(); *check {
			return lint.Run(lint.Options{Folder: o.Templates, Rules: o.Rules, JSON: o.JSON}, cmd.OutOrStdout())
		}
		return render.Run(ctx, o, cmd.OutOrStdout())
	})
	return cmd
}
