package main

import (
	"context"
	"os"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/race"
)

// runRace starts a world and measures how often an instance's first login comes before its role.
func runRace(ctx context.Context) error {
	return in(ctx, options(), func(w *lab.World) error { return race.Run(ctx, w, os.Stdout) })
}
