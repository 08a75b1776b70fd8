package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// Options configure Run.
type Options struct {
	RepoRoot string
	// Sizes are the fleets to measure, in instances, ascending.
	Sizes []int
	// AtOnce is the number of raw reads at once, by HTTP/1.1. If it is 0, the fastest client is found first.
	AtOnce int
	// Rounds is the number of times each pass is measured.
	Rounds int
	// Profiles is the folder for CPU profiles of the full-content passes; none are written if it is empty.
	Profiles string
	Progress func(format string, args ...any)
	Out      io.Writer
}

// Run measures every size, prints the tables and returns the figures of each fleet.
func Run(ctx context.Context, o Options) (figures []report.Fleet, err error) {
	if len(o.Sizes) == 0 || !slices.IsSorted(o.Sizes) || o.Sizes[0] < 1 || o.Rounds < 1 {
		return nil, fmt.Errorf("measuring fleets of %v in %d rounds: want sizes in ascending order and at least one round", o.Sizes, o.Rounds)
	}
	workspace, err := parts.NewWorkspace(o.RepoRoot, "", o.Progress)
	if err != nil {
		return nil, err
	}
	world, err := startWorld(ctx, workspace)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, world.close()) }()
	var fleets []fleet
	for _, n := range o.Sizes {
		f := fleet{n: n, results: map[kind][]result{}}
		if o.AtOnce > 0 {
			f.fastest = client{Protocol: http1, AtOnce: o.AtOnce}
		}
		rounds := o.Rounds
		if n > timed && len(fleets) > 0 {
			rounds, f.fastest = 1, fleets[len(fleets)-1].fastest
		}
		if err := o.measure(ctx, world, &f, rounds); err != nil {
			return figures, err
		}
		fleets, figures = append(fleets, f), append(figures, f.summary())
		f.print(o.Out)
	}
	printGrowth(o.Out, fleets)
	fmt.Fprint(o.Out, legend)
	return figures, nil
}

// timed is the largest fleet that is measured for its times. Larger fleets are measured for their memory, in one round.
const timed = 10_000

// fleet holds the results of one size.
type fleet struct {
	n       int
	fastest client
	results map[kind][]result // round by round
}

// measure measures one size. It first finds the fastest client if f names none.
func (o Options) measure(ctx context.Context, w *world, f *fleet, rounds int) error {
	o.Progress("%d instances: filling Vault and the ledger", f.n)
	err := w.fill(ctx, f.n)
	if err == nil && f.fastest == (client{}) {
		f.fastest, err = o.tryClients(ctx, w, f.n)
	}
	if err != nil {
		return err
	}
	for round := range rounds {
		o.Progress("%d instances: round %d of %d", f.n, round+1, rounds)
		for _, pair := range [][2]kind{{rawLists, names}, {rawReads, contents}} {
			if err := o.round(ctx, w, f, pair[0], pair[1]); err != nil {
				return err
			}
		}
	}
	return nil
}

// round measures a pass between two measurements of its raw limit and keeps their mean, so that other load on the machine
// weighs on both sides alike.
func (o Options) round(ctx context.Context, w *world, f *fleet, raw, pass kind) error {
	limit := task{Kind: raw, N: f.n, Client: f.fastest}
	t := task{Kind: pass, N: f.n}
	if o.Profiles != "" && pass == contents {
		t.CPUProfile = filepath.Join(o.Profiles, fmt.Sprintf("contents-%d-%d.pprof", f.n, len(f.results[pass])+1))
	}
	var all []result
	for _, t := range []task{limit, t, limit} {
		r, err := w.measure(ctx, t)
		if err != nil {
			return err
		}
		all = append(all, r)
	}
	f.results[raw] = append(f.results[raw], mean(all[0], all[2]))
	f.results[pass] = append(f.results[pass], all[1])
	return nil
}

// mean returns the mean times of two measurements.
func mean(a, b result) result {
	return result{Time: (a.Time + b.Time) / 2, CPU: (a.CPU + b.CPU) / 2, Vault: (a.Vault + b.Vault) / 2, Dynamo: (a.Dynamo + b.Dynamo) / 2}
}

// tryClients returns the bare client with the fastest read in two tries each.
func (o Options) tryClients(ctx context.Context, w *world, n int) (client, error) {
	least := map[client]time.Duration{}
	for range 2 {
		for _, c := range clients() {
			r, err := w.measure(ctx, task{Kind: rawReads, N: n, Client: c})
			if err != nil {
				return c, err
			}
			if t, tried := least[c]; !tried || r.Time < t {
				least[c] = r.Time
			}
		}
	}
	fastest := clients()[0]
	for _, c := range clients() {
		o.Progress("%d instances: raw reads by %-20s %s", n, c, least[c].Round(time.Millisecond))
		if least[c] < least[fastest] {
			fastest = c
		}
	}
	return fastest, nil
}
