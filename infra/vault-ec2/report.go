package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/ask"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

func reportCommand() *cobra.Command {
	o := ask.ReportOptions{Version: version.Version()}
	cmd := &cobra.Command{
		Use:     "report",
		GroupID: groupDeployment,
		Short:   "Write the fleet as one page for an auditor",
		Long: `Have the deployed function read the ledger and compare the fleet, and write all of it as one HTML page: the instances by profile and
state, who holds which name and address, what was refused and why, drift, times, and what was removed in the last 30 days. The page loads
nothing and can be searched, sorted and printed. It has names and addresses: only you may read the file.

Nothing is changed, and no right is needed but to invoke the function.

Exit status: 0 if the page has all of it, 1 if it says what is not in it, 2 if no page was written.`,
		Example: `  vault-ec2 report --stack vault-identities -o fleet.html`,
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	addChoice(f, &o.Of)
	f.StringVarP(&o.File, "output", "o", "fleet.html", "`file` of the page; - for the standard output")
	_ = cmd.MarkFlagFilename("output", "html") // it exists
	f.BoolVar(&o.NoDrift, "no-drift", false, "leave out the comparison with EC2 and Vault, which takes longest in a large fleet")
	cmd.RunE = runs(func(ctx context.Context, cmd *cobra.Command, _ []string) (int, error) {
		return ask.Report(ctx, o, streamsOf(cmd))
	})
	return cmd
}
