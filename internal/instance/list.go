package instance

import (
	"context"
	"fmt"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// Account is the function's own account. It asks STS once; the call needs no permission.
func (l *Lookup) Account(ctx context.Context) (string, error) {
	own, err := l.clients.identity(ctx)
	return own.AccountID, err
}

// List shows every instance of a place to each, page by page, terminated ones that EC2 still tells of included; with
// IDs, only those. It fails when any page does: what was shown until then is not the whole. An error of one instance
// stays in its sighting. An error of each ends the listing.
func (l *Lookup) List(ctx context.Context, p facts.Place, ids []string, each func([]Sighting) error) error {
	call, err := l.clients.ec2s.At(ctx, p)
	if err != nil {
		return fmt.Errorf("describing the instances of %s: %w", p, err)
	}
	if len(ids) == 0 {
		return l.list(ctx, call, p, nil, each)
	}
	for chunk := range slices.Chunk(ids, filterValues) {
		if err := l.list(ctx, call, p, chunk, each); err != nil {
			return err
		}
	}
	return nil
}
