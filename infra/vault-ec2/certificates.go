package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/ask"
)

func certificatesCommand() *cobra.Command {
	o := ask.CertificatesOptions{}
	cmd := &cobra.Command{
		Use:     "certificates",
		GroupID: groupDeployment,
		Short:   "Revoke the stored certificates of ended instances",
		Long: `Have the deployed function read the certificates that the PKI mounts stored since the last run, record whose they are, and revoke those of
instances without a grant. It does so by itself after each scheduled comparison; the deployment has RevokeCertificates=all.

With --audit-log the certificates come from the lines of Vault's audit log, which it reads to the end of the file: they are revoked as soon as
their instance ends, and none is looked for.

Exit status: 0 if all was read or recorded, and what is of ended instances revoked; 1 if some may be left; 2 if the command failed.`,
		Example: `  vault-ec2 certificates --stack vault-identities
  tail -n +1 -F audit.log | vault-ec2 certificates --stack vault-identities --audit-log -`,
	}
	f := cmd.Flags()
	addChoice(f, &o.Of)
	f.StringVar(&o.AuditLog, "audit-log", "", "record the certificates in this `file` of Vault's audit log; - reads the standard input")
	isJSON := addFormat(cmd)
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, _ []string) (int, error) {
		o.JSON = isJSON()
		return ask.Certificates(ctx, o, streamsOf(cmd))
	})
	cmd.Args = cobra.NoArgs
	return cmd
}
