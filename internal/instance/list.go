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
// instances that EC2 still lists. It fails if any page fails, since the list is then incomplete, or if each does. With IDs it
// also fails if an outage left all of them unknown. An error of one instance is in its sighting. A sighting that is not Found is
// of an instance that EC2 could not describe while a zone is out of service.
func (l *Lookup) List(ctx context.Context, p facts.Place, ids []string, each func([]Sighting) error) error {
	call, err := l.clients.ec2s.At(ctx, p)
	if err != nil {
		return fmt.Errorf("describing the instances of %s: %w", p.Name(), err)
	}
	if len(ids) == 0 {
		return l.list(ctx, call, p, filteredBy(nil), each)
	}
	s := l.splitter(call, p)
	var unknown []Sighting
	for chunk := range slices.Chunk(inRandomOrder(ids), maxFilterValues) {
		seen, err := s.describe(ctx, chunk)
		if err != nil {
			return err
		}
		var page []Sighting
		for id, found := range seen {
			switch {
			case found.Found:
				page = append(page, found)
			case found.Err != nil:
				found.Facts.ID = id
				unknown = append(unknown, found)
			}
		}
		if err := each(page); err != nil {
			return err
		}
	}
	switch {
	case len(unknown) == 0:
		return nil
	case !s.answered:
		return s.outage
	}
	return each(unknown)
}
