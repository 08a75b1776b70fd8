// Command render prints the objects that a profile would make for an instance: each path and content exactly as it would
// be written to Vault, and the guard's verdict. It writes nothing to Vault.
//
// The instance is one in EC2 (-instance, looked up with the caller's own credentials and region), one described in a
// file (-facts), or one made up from the profile's match.
//
// The exit status is 0 if the instance would be granted the printed objects, 1 if not, and 2 if the command failed.
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
