package main

import (
	"context"
	"flag"
	"os"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/soak"
)

// runSoak brings the world up with taps before everything and soaks it.
func runSoak(ctx context.Context) error {
	var o soak.Options
	flags := flag.NewFlagSet("lab soak", flag.ExitOnError)
	flags.DurationVar(&o.For, "for", 30*time.Minute, "how long instances come and go")
	flags.IntVar(&o.Instances, "instances", 500, "how many in all")
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano()), "of the dice, to repeat a run") //nolint:gosec // only a seed
	if err := flags.Parse(os.Args[2:]); err != nil {
		return err
	}
	world := options()
	world.VaultFaultTap = true
	return in(ctx, world, func(w *lab.World) error { return soak.Run(ctx, w, o, os.Stdout) })
}
