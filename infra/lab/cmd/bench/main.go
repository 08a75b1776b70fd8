// Command bench measures what comparing a fleet costs beside the raw reads of Vault, and prints a table. `make bench`
// runs it; see docs/benchmarks.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // stop only unregisters the signal
	}
}

func run(ctx context.Context) error {
	if len(os.Args) == 2 && os.Args[1] == bench.ChildArgument {
		return bench.Measure(ctx, os.Stdin, os.Stdout)
	}
	o := bench.Options{
		// As seen from infra/lab, where make runs this command.
		RepoRoot: filepath.Join("..", ".."),
		Sizes:    []int{1_000, 10_000}, Out: os.Stdout,
		Progress: func(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) },
	}
	full := flag.Bool("full", false, "measure a fleet of 50,000 as well")
	small := flag.Bool("small", false, "measure a fleet of 1,000 only")
	flag.IntVar(&o.Rounds, "rounds", 5, "how often everything is measured")
	flag.StringVar(&o.Profiles, "profiles", "", "a folder for CPU profiles of the full-content passes")
	flag.Parse()
	if *full {
		o.Sizes = append(o.Sizes, 50_000)
	}
	if *small {
		o.Sizes = o.Sizes[:1]
	}
	return bench.Run(ctx, o)
}
