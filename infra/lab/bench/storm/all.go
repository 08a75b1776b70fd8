package storm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
)

const (
	// fleetSize is the number of instances of a measured storm, quickSize that of a counted one.
	fleetSize = 1000
	quickSize = 100
	// network is a little more than a round trip to another availability zone takes.
	network    = 5 * time.Millisecond
	warmRounds = 100
	coldRounds = 20
	// stormRounds is how often a storm with an aim is measured: one may meet a moment in which the host is busy.
	stormRounds = 3
)

// Quick counts the calls of a small storm and prints the counts. It fails if a count is outside its bounds.
func Quick(ctx context.Context, o Options, out io.Writer) (err error) {
	r, err := Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	result, err := r.counts(ctx, out)
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	report.PrintGoals(out, report.Results{Calls: result}.Goals())
	return nil
}

// counts counts the calls of a small storm, prints the counts and fails if one is outside its bounds.
func (r *Rig) counts(ctx context.Context, out io.Writer) (report.Calls, error) {
	counts, result, err := r.Counts(ctx, quickSize)
	if err != nil {
		return result, err
	}
	var off []error
	for _, c := range counts {
		if c.Seen > 0 || c.Most > 0 {
			fmt.Fprintln(out, c)
		}
		off = append(off, c.Err())
	}
	return result, errors.Join(off...)
}

// All counts calls and measures cold starts, the warm path and storms, with Vault's storage in memory and on Raft. It prints
// tables and adds all figures to the results.
func All(ctx context.Context, o Options, out io.Writer, into *report.Results) error {
	if err := inMemory(ctx, o, out, into); err != nil {
		return err
	}
	o.Raft = true
	return with(ctx, o, func(r *Rig, all recipes) error {
		p := printer{Rig: r, out: out, into: into}
		return p.bothStorms(ctx, all, load{N: fleetSize, Setup: report.Setup{Raft: true}})
	})
}

func inMemory(ctx context.Context, o Options, out io.Writer, into *report.Results) error {
	return with(ctx, o, func(r *Rig, all recipes) (err error) {
		p := printer{Rig: r, out: out, into: into}
		into.Run.Vault = r.Binary.String()
		if into.Calls, err = r.counts(ctx, out); err != nil {
			return err
		}
		rows, err := r.Cold(ctx, coldRounds)
		if err != nil {
			return err
		}
		p.table("Cold start", rows)
		if into.Warm, rows, err = r.Warm(ctx, all, warmRounds); err != nil {
			return err
		}
		p.table("Warm path", rows)
		if err := p.bothStorms(ctx, all, load{N: fleetSize}); err != nil {
			return err
		}
		if err := p.storms(ctx, all, load{N: fleetSize, Setup: report.Setup{LedgerInMemory: true}}); err != nil {
			return err
		}
		return p.bothStorms(ctx, all, load{N: fleetSize, Setup: report.Setup{Delayed: true}})
	})
}

// with starts a rig, records the functions' calls, calls do and closes the rig.
func with(ctx context.Context, o Options, do func(*Rig, recipes) error) (err error) {
	r, err := Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	all, err := r.Record(ctx)
	if err != nil {
		return err
	}
	return do(r, all)
}

// printer prints the results of a rig and keeps them.
type printer struct {
	*Rig
	out  io.Writer
	into *report.Results
}

func (p printer) table(heading string, rows []report.Row) {
	t := report.Table{Heading: heading, Rows: rows}
	p.into.Tables = append(p.into.Tables, t)
	t.Print(p.out)
}

// bothStorms measures storms where all share the cores, and storms that only Vault bounds.
func (p printer) bothStorms(ctx context.Context, all recipes, o load) error {
	if err := p.storms(ctx, all, o); err != nil {
		return err
	}
	return p.stormsApart(ctx, all, o)
}

func (p printer) storms(ctx context.Context, all recipes, o load) error {
	heading := "Storms, " + o.String()
	measures := make([]measured, o.rounds())
	for i := range measures {
		p.opts.Progress("%s: %d instances, round %d of %d", heading, o.N, i+1, len(measures))
		var err error
		if measures[i], err = p.Storms(ctx, all, o); err != nil {
			return fmt.Errorf("%s: %w", heading, err)
		}
	}
	slices.SortFunc(measures, func(a, b measured) int { return cmp.Compare(a.startShare(), b.startShare()) })
	m := measures[len(measures)/2]
	p.into.Storms = append(p.into.Storms, m.result())
	p.table(heading, m.rows())
	return nil
}

// rounds returns how often a storm is measured: a setup without an aim once.
func (o load) rounds() int {
	if o.Raft || (o.Delayed && !o.Apart) {
		return 1
	}
	return stormRounds
}
