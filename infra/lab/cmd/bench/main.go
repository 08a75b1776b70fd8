// Command bench measures storms of starts and ends, the functions' start, and comparing a fleet, each beside the least it
// could cost, and prints tables. With -quick it only counts the calls of a small storm. With -write it also writes the results,
// the plots and the tables of the pages; -redraw writes plots and tables of the results that are there, and measures nothing.
// `make bench` runs it; see BENCHMARKS.md.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/storm"
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
	full := flag.Bool("full", false, "measure fleets of 50,000 and 100,000 as well")
	small := flag.Bool("small", false, "measure a fleet of 1,000 only")
	flag.Func("sizes", "measure these fleets instead, such as 10000,100000", func(list string) (err error) {
		o.Sizes = nil
		for _, text := range strings.Split(list, ",") {
			n, err := strconv.Atoi(text)
			if err != nil {
				return err
			}
			o.Sizes = append(o.Sizes, n)
		}
		return nil
	})
	flag.IntVar(&o.AtOnce, "at-once", 0, "how many raw reads run at once, by HTTP/1.1, in place of the fastest client")
	flag.IntVar(&o.Rounds, "rounds", 3, "how often everything is measured")
	flag.StringVar(&o.Profiles, "profiles", "", "a folder for CPU profiles of the full-content passes")
	quick := flag.Bool("quick", false, "count the calls of a small storm and measure no time; exits with 1 when a count is off")
	only := flag.String("only", "", "storms or comparison, and nothing else")
	write := flag.Bool("write", false, "write the results and the plots to docs/benchmarks, and the tables into the pages")
	redraw := flag.Bool("redraw", false, "only draw the plots and write the tables of the results in docs/benchmarks")
	flag.Parse()
	shown := pages{root: o.RepoRoot}
	if *redraw {
		results, err := report.Load(shown.results())
		if err != nil {
			return err
		}
		return shown.draw(results, o.Out)
	}
	if *full {
		o.Sizes = append(o.Sizes, 50_000, 100_000)
	}
	if *small {
		o.Sizes = o.Sizes[:1]
	}
	storms := storm.Options{RepoRoot: o.RepoRoot, Progress: o.Progress}
	if *quick {
		return storm.Quick(ctx, storms, o.Out)
	}
	var results report.Results
	var err error
	if results.Run, err = thisRun(ctx, o.RepoRoot); err != nil {
		return err
	}
	parts := []struct {
		name string
		run  func() error
	}{
		{"storms", func() error { return storm.All(ctx, storms, o.Out, &results) }},
		{"comparison", func() (err error) {
			var printed bytes.Buffer
			o.Out = io.MultiWriter(os.Stdout, &printed)
			results.Fleets, err = bench.Run(ctx, o)
			results.Comparison = printed.String()
			return err
		}},
	}
	for _, p := range parts {
		if *only != "" && *only != p.name {
			continue
		}
		if err := p.run(); err != nil {
			return err
		}
		fmt.Fprintln(o.Out)
		report.PrintGoals(o.Out, results.Goals())
		if !*write {
			continue
		}
		if err := shown.publish(results, o.Out); err != nil { // after each part: the next one may take an hour
			return err
		}
	}
	return nil
}
