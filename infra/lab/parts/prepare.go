package parts

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Prepare builds and fetches the programs of all parts side by side, so that later runs start at once.
func Prepare(ctx context.Context, w *Workspace) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, step := range []func(context.Context, *Workspace) (string, error){buildVaults, Python, fetchDynamoDB} {
		group.Go(func() error {
			_, err := step(ctx, w)
			return err
		})
	}
	return group.Wait()
}

// buildVaults builds server and agent one after the other, since each build needs all cores and much memory.
func buildVaults(ctx context.Context, w *Workspace) (string, error) {
	if path, err := BuildVault(ctx, w); err != nil {
		return path, err
	}
	return BuildVaultAgent(ctx, w)
}
