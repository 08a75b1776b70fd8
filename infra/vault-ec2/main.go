// Command vault-ec2 prepares Vault for the functions of a deployment, checks and renders its profiles, compares and repairs its fleet, and
// removes it. vault-ec2 --help lists the commands.
//
// It reads the AWS configuration as the aws command does (AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL and so on), and Vault's as the vault
// command does.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/flags"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	status := run(ctx, os.Args[1:], streams{in: os.Stdin, out: text.Painted(os.Stdout), err: os.Stderr})
	stop()
	os.Exit(status)
}

// streams are the command's standard streams.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// wrongUse is the exit status for a command or a flag that does not exist.
const wrongUse = 2

// run runs the command that args name and returns its exit status.
func run(ctx context.Context, args []string, s streams) int {
	root := rootCommand() //nolint:contextcheck // cobra passes the context to the command that it runs
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	root.SetArgs(withSecondDashes(root, args))
	ran, err := root.ExecuteContextC(ctx)
	ended := (*endError)(nil)
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &ended):
		fmt.Fprintf(s.err, "%s: %s\n%s --help shows the use\n", ran.CommandPath(), text.Lines(err.Error()), ran.CommandPath())
		return wrongUse
	case ended.err != nil:
		fmt.Fprintf(s.err, "%s: %s\n", ran.CommandPath(), text.Lines(ended.err.Error()))
	}
	return ended.status
}

// endError is the end of a command with an exit status other than 0. The error is nil if the output says everything.
type endError struct {
	status int
	err    error
}

func (e *endError) Error() string { return fmt.Sprintf("exit status %d", e.status) }
func (e *endError) Unwrap() error { return e.err }

// runs returns a function for cobra that runs do, which returns an exit status.
func runs(do func(ctx context.Context, cmd *cobra.Command, args []string) (int, error)) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		status, err := do(cmd.Context(), cmd, args)
		if status == 0 && err == nil {
			return nil
		}
		return &endError{status: status, err: err}
	}
}

// withSecondDashes returns args with two dashes before each flag of the command that the first one names.
func withSecondDashes(root *cobra.Command, args []string) []string {
	if len(args) == 0 {
		return []string{} // nil would make cobra read the program's own arguments
	}
	command, _, err := root.Find(args[:1])
	if err != nil || command == root {
		return args
	}
	command.InitDefaultHelpFlag()
	dashed := flags.SecondDash(args[1:], func(name string) flags.Kind { return kindOf(command.Flags().Lookup(name)) })
	return append(args[:1:1], dashed...)
}

// kindOf returns how a flag is written; nil is no flag.
func kindOf(f *pflag.Flag) flags.Kind {
	switch {
	case f == nil:
		return flags.Unknown
	case f.NoOptDefVal != "":
		return flags.Alone
	}
	return flags.WithValue
}
