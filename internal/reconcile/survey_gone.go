package reconcile

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// compareGone adds the rows of the instances in Vault or the ledger that EC2 does not show, or shows as ended or stopped.
func (s *survey) compareGone(ctx context.Context, places []facts.Place) error {
	complete := map[facts.Place]bool{}
	for _, p := range places {
		complete[p] = s.failed[p] == nil
	}
	for id, e := range s.inventory.entries {
		_, seen := s.states[id]
		isRemovable := !seen && e.place != nil && complete[*e.place] && e.unseen == ""
		if isRemovable && !s.inventory.inStretch(id) && len(s.input.InstanceIDs) == 0 {
			s.elsewhere[*e.place]++
		}
	}
	ids := s.inventory.ids()
	if len(s.input.InstanceIDs) > 0 {
		ids = slices.DeleteFunc(ids, func(id string) bool { return !slices.Contains(s.input.InstanceIDs, id) })
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(readers)
	for _, id := range ids {
		state, seen := s.states[id]
		if !s.isComparedAsGone(id) {
			continue
		}
		group.Go(func() error {
			u := s.subject(id)
			u.sighting = instance.Sighting{Found: seen, Facts: facts.Instance{ID: id, State: state}}
			if err := s.outOfTime(ctx); err != nil {
				return err
			}
			rows, err := s.compareOneGone(ctx, u, complete)
			return s.addRows(u, rows, err)
		})
	}
	return group.Wait()
}

// isComparedAsGone reports whether an instance of the inventory that is not live by EC2 is compared: it is gone, or it is stopped and
// has no record.
func (s *survey) isComparedAsGone(id string) bool {
	state, seen := s.states[id]
	stopped := state == facts.Stopping || state == facts.Stopped
	return !seen || s.isGone(state) || (stopped && s.inventory.of(id).place == nil)
}

// compareOneGone returns the rows of one instance of compareGone. complete reports of each compared place whether EC2 listed
// it to the end.
func (s *survey) compareOneGone(ctx context.Context, u *subject, complete map[facts.Place]bool) ([]Change, error) {
	if u.record != nil {
		u.place = u.record.Place()
	} else {
		place, err := s.placeOf(ctx, u)
		if err != nil {
			return nil, err
		}
		u.place = place
	}
	isComplete, isCompared := complete[u.place]
	if isCompared && !isComplete {
		return nil, nil // EC2 did not list the place
	}
	if s.input.Profile != "" && !u.isRecordedFor(s.input.Profile) {
		return nil, nil
	}
	var err error
	if u.leftovers, err = s.r.leftoversOf(ctx, s.inventory, u.id, u.record); err != nil {
		return nil, err
	}
	rows, err := s.compareSettled(ctx, u, func() ([]Change, error) { return s.rowsOfOneGone(ctx, u, isCompared) })
	if err != nil {
		return nil, err
	}
	return s.confirm(ctx, u, rows)
}

// rowsOfOneGone reads the objects of an instance of compareGone and returns its rows. isCompared reports whether its place is
// one of those that are compared.
func (s *survey) rowsOfOneGone(ctx context.Context, u *subject, isCompared bool) ([]Change, error) {
	if err := s.read(ctx, u); err != nil {
		return nil, err
	}
	isElsewhere := u.place != (facts.Place{}) && !isCompared
	if !isElsewhere && !u.isAlive() {
		return s.comparison().rowsOfGone(u), nil
	}
	if err := s.readLogin(ctx, u); err != nil {
		return nil, err
	}
	return s.comparison().rowsOfUnproven(u), nil
}
