// Command reconcile invokes the reconcile function and prints its answer: the drift of the fleet as a table with each
// difference below its row, or doctor's checks with a remedy for each failed one. In mode teardown it asks for the
// deployment's name, and then has the function remove everything that the deployment made.
//
// The exit status is 0 if nothing is left to do, 1 if something is (drift was found, a repair failed or was blocked, a
// check failed), and 2 if the command itself failed.
//
// It reads the AWS configuration as the aws command does: AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL_LAMBDA and so on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reconcile:", printable(err.Error()))
		os.Exit(broken)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := run(ctx, o, os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "reconcile:", printable(err.Error()))
	}
	os.Exit(status) //nolint:gocritic // stop only unregisters the signals
}
