package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/ask"
)

func whoCommand() *cobra.Command {
	o := ask.WhoOptions{}
	cmd := &cobra.Command{
		Use:     "who [NAME|ADDRESS|OBJECT]...",
		GroupID: groupDeployment,
		Short:   "Find the instances that hold, or held, a name, an address or an object",
		Long: `Have the deployed function find the instances that hold a name, an address, a SPIFFE ID or an object in Vault (a policy, a PKI role, an auth
role, by its name or path), and those that held it within 30 days and until when. With --certificate all of these in a certificate
are looked for. Nothing is changed.

Exit status: 0 if a holder was found for each name, 1 if not, 2 if the command failed.`,
		Example: `  vault-ec2 who --stack vault-identities 10.0.0.5 ip-10-0-0-5.ec2.internal
  vault-ec2 who --stack vault-identities --certificate suspect.pem`,
	}
	f := cmd.Flags()
	addChoice(f, &o.Of)
	f.StringVar(&o.Certificate, "certificate", "", "look for the names and addresses of the first certificate in this PEM `file`")
	f.BoolVar(&o.Current, "current", false, "only by the claims of now: at once in a fleet of any size, without former holders and without names that instances share")
	isJSON := addFormat(cmd)
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, args []string) (int, error) {
		o.Names, o.JSON = args, isJSON()
		return ask.FindHolders(ctx, o, streamsOf(cmd))
	})
	return cmd
}
