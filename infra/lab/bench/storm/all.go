package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
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
)

// Quick counts the calls of a small storm and prints the counts. It fails if a count is outside its bounds.
func Quick(ctx context.Context, o Options, out io.Writer) (err error) {
	r, err := Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	counts, err := r.Counts(ctx, quickSize)
	if err != nil {
		return err
	}
	var off []error
	for _, c := range counts {
		fmt.Fprintf(out, "%-60s %5d\n", c.What, c.Seen)
		off = append(off, c.Err())
	}
	return errors.Join(off...)
}

// All measures cold starts, the warm path and storms, with Vault's storage in memory and on Raft, and prints tables.
func All(ctx context.Context, o Options, out io.Writer) error {
	if err := inMemory(ctx, o, out); err != nil {
		return err
	}
	o.Raft = true
	return with(ctx, o, func(r *Rig, all recipes) error {
		const heading = "Storms, Vault on Raft with fsync"
		if err := r.storms(ctx, all, load{N: fleetSize, Short: true}, heading, out); err != nil {
			return err
		}
		return r.stormsApart(ctx, all, load{N: fleetSize}, heading, out)
	})
}

func inMemory(ctx context.Context, o Options, out io.Writer) error {
	return with(ctx, o, func(r *Rig, all recipes) error {
		rows, err := r.Cold(ctx, coldRounds)
		if err != nil {
			return err
		}
		report.Print(out, "Cold start", rows)
		if rows, err = r.Warm(ctx, all, warmRounds); err != nil {
			return err
		}
		report.Print(out, "Warm path", rows)
		for _, s := range []struct {
			heading string
			load    load
		}{
			{"Storms, Vault in memory", load{N: fleetSize}},
			{"Storms, 5 ms added to every call to Vault", load{N: fleetSize, Delay: network, Short: true}},
		} {
			if err := r.storms(ctx, all, s.load, s.heading, out); err != nil {
				return err
			}
			if err := r.stormsApart(ctx, all, s.load, s.heading, out); err != nil {
				return err
			}
		}
		return nil
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

func (r *Rig) storms(ctx context.Context, all recipes, o load, heading string, out io.Writer) error {
	r.opts.Progress("%s: %d instances", heading, o.N)
	rows, err := r.Storms(ctx, all, o)
	if err != nil {
		return fmt.Errorf("%s: %w", heading, err)
	}
	report.Print(out, heading, rows)
	return nil
}
