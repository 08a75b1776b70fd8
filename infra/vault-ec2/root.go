package main

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/flags"
)

// rootCommand returns the command with all of its subcommands, each in its own file.
func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "vault-ec2",
		Short:         "Give every EC2 instance its own identity in Vault",
		SilenceErrors: true, // run prints them
		SilenceUsage:  true,
		RunE:          func(*cobra.Command, []string) error { return errors.New("name a command") },
	}
	root.AddGroup(&cobra.Group{ID: groupProfiles, Title: "Profiles:"}, &cobra.Group{ID: groupDeployment, Title: "A deployment:"})
	root.AddCommand(
		lintCommand(), renderCommand(),
		setupCommand(), planCommand(), applyCommand(), profilesCommand(),
		doctorCommand(), explainCommand(), whoCommand(), reportCommand(), quarantineCommand(), releaseCommand(), certificatesCommand(), reconcileCommand(), teardownCommand(), tryoutCommand(),
		versionCommand(),
	)
	return root
}

// The groups of the help.
const (
	groupProfiles   = "profiles"
	groupDeployment = "deployment"
)

// complete has the shell complete a flag's value to one of some.
func complete(cmd *cobra.Command, flag string, values ...cobra.Completion) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
}

// alsoNamed has a flag work by another command's name for the same thing too.
func alsoNamed(of *pflag.FlagSet, flag, other string) {
	of.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == other {
			name = flag
		}
		return pflag.NormalizedName(name)
	})
}

// addChoice adds the flags that name a deployment.
func addChoice(to *pflag.FlagSet, of *deployed.Choice) {
	to.StringVar(&of.Stack, "stack", "", "`name` of the deployed stack; CloudFormation names its function")
	to.StringVar(&of.Lab, "lab", "", "the lab that make lab runs, by its `file`")
	to.Lookup("lab").NoOptDefVal = deployed.LabFile
	to.StringVar(&of.Function, "function", "", "`name` or ARN of the reconcile function: the stack's output ReconcileFunctionName")
}

// addFormat adds the flags that choose the output's form, and returns a function that reports whether it is JSON.
func addFormat(cmd *cobra.Command) (isJSON func() bool) {
	format := flags.Table
	cmd.Flags().VarP(&format, "output", "o", "form of the output: table or json")
	short := cmd.Flags().Bool("json", false, "as --output json")
	complete(cmd, "output", string(flags.Table), string(flags.JSON))
	return func() bool { return *short || format == flags.JSON }
}
