// Command render prints what a profile would make of an instance: each object's path and content exactly as it would be
// written to Vault, and what the guard says of it. It writes nothing.
//
// The instance is one in EC2 (-instance, looked up with the caller's own credentials and region), one described in a
// file (-facts), or made up from what the profile matches.
//
// The exit status is 0 when the instance would be granted what is shown, 1 when it would not, and 2 when the command
// itself failed.
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
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(broken)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := run(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
	}
	os.Exit(status) //nolint:gocritic // stop only unregisters the signals
}
