// Command prepare builds and fetches the programs of the lab's parts side by side, so that later runs start at once. It is apart
// from the command lab so that it compiles in moments: Vault's build is what a first run waits for longest.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := prepare(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1) //nolint:gocritic // stop only unregisters the signal
	}
}

// prepare expects to run in infra/lab, as make runs it.
func prepare(ctx context.Context) error {
	progress := func(format string, args ...any) { fmt.Fprintf(os.Stderr, "lab: "+format+"\n", args...) }
	w, err := parts.NewWorkspace(filepath.Join("..", ".."), "", progress)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		_, err := vaultserver.Find(ctx, w)
		return err
	})
	for _, step := range []func(context.Context, *parts.Workspace) (string, error){parts.Python, parts.FetchDynamoDB, parts.FetchAuthorizationReference} {
		group.Go(func() error {
			_, err := step(ctx, w)
			return err
		})
	}
	return group.Wait()
}
