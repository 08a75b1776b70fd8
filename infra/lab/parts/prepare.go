package parts

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Prepare builds and fetches all that the parts need, side by side, so that later runs start at once.
func Prepare(ctx context.Context, w *Workspace) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, step := range []func(context.Context, *Workspace) (string, error){BuildVault, Python, fetchDynamoDB} {
		group.Go(func() error {
			_, err := step(ctx, w)
			return err
		})
	}
	return group.Wait()
}
