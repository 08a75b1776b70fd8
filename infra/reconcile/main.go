// Command reconcile invokes the reconcile function and prints what it answers: the drift of the fleet as a table with
// each difference below its row, or doctor's checks with what to do about those that fail. In mode teardown it has the
// function remove all that the deployment made, once whoever runs it has typed the deployment's name.
//
// The exit status is 0 when nothing is left to do, 1 when something is (drift was found, a repair failed or was
// blocked, a check failed), and 2 when the command itself failed.
//
// It finds the function as the aws command does: AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL_LAMBDA and their kin.
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
