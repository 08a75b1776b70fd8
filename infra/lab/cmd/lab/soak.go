package main

import (
	"context"
	"flag"
	"os"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/soak"
)

// runSoak starts a world with taps before all services and soaks it.
func runSoak(ctx context.Context) error {
	var o soak.Options
	flags := flag.NewFlagSet("lab soak", flag.ExitOnError)
	flags.DurationVar(&o.For, "for", 30*time.Minute, "time during which instances are launched and terminated")
	flags.IntVar(&o.Instances, "instances", 500, "number of instances")
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano()), "seed of the random numbers, to repeat a run")
	cluster := flags.Bool("cluster", false, "run Vault as three nodes that go down and come back")
	if err := flags.Parse(os.Args[2:]); err != nil {
		return err
	}
	world := options()
	world.VaultFaultTap, world.VaultCluster = true, *cluster
	return in(ctx, world, func(w *lab.World) error { return soak.Run(ctx, w, o, os.Stdout) })
}
