package main

import (
	"context"
	"os"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/race"
)

// runRace measures how often an instance's first login comes before its role.
func runRace(ctx context.Context) (err error) {
	w, err := start(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if closing := w.Close(); err == nil {
			err = closing
		}
	}()
	return race.Run(ctx, w, os.Stdout)
}
