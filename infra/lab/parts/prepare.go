package parts

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Prepare builds and fetches all that the parts need, side by side, so that later runs start at once.
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

// buildVaults builds server and agent one after the other: together they would want the same cores and memory twice.
func buildVaults(ctx context.Context, w *Workspace) (string, error) {
	if path, err := BuildVault(ctx, w); err != nil {
		return path, err
	}
	return BuildVaultAgent(ctx, w)
}
