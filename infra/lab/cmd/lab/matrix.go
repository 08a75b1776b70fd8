package main

import (
	"context"
	"os"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/matrix"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

// runMatrix runs the integration tests on the programs that are named, or on every version of vaultserver.Versions.
func runMatrix(ctx context.Context) error {
	w, err := parts.NewWorkspace(root, "", progress)
	if err != nil {
		return err
	}
	programs := os.Args[2:]
	if len(programs) == 0 {
		for _, v := range vaultserver.Versions() {
			programs = append(programs, v.Number)
		}
	}
	return matrix.Run(ctx, w, programs, os.Stdout)
}
