package instance

import (
	"context"
	"fmt"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// Account returns the function's own account. It asks STS once; the call needs no permission.
func (l *Lookup) Account(ctx context.Context) (string, error) {
	own, err := l.clients.identity(ctx)
	return own.AccountID, err
}

// List passes every instance of a place to each, page by page, or only those with the given IDs. It includes terminated
// instances that EC2 still lists. It fails if any page fails, since the list is then incomplete, or if each does. An error of
// one instance is in its sighting; with IDs, also the error of one that EC2 cannot describe while a zone is out of service.
func (l *Lookup) List(ctx context.Context, p facts.Place, ids []string, each func([]Sighting) error) error {
	call, err := l.clients.ec2s.At(ctx, p)
	if err != nil {
		return fmt.Errorf("describing the instances of %s: %w", p.Name(), err)
	}
	if len(ids) == 0 {
		return l.list(ctx, call, p, filteredBy(nil), each)
	}
	s := splitter{lookup: l, call: call, place: p, callsLeft: maxSplitCalls}
	for chunk := range slices.Chunk(ids, maxFilterValues) {
		seen, err := s.describe(ctx, chunk)
		if err != nil {
			return err
		}
		var page []Sighting
		for id, found := range seen {
			if found.Err != nil {
				found.Facts.ID = id
			}
			if found.Found || found.Err != nil {
				page = append(page, found)
			}
		}
		if err := each(page); err != nil {
			return err
		}
	}
	return nil
}
