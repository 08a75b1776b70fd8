package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const (
	// readers is how many instances are read from Vault side by side. Past a few only the waiting grows.
	readers = 16
	// listers is how many accounts and regions are listed side by side.
	listers = 4
	// maxFailures is how many comparisons may fail in a row before the pass is given up: Vault or the ledger is down, and
	// each further instance would wait for its own timeout.
	maxFailures = 40
)

var (
	errOutOfTime = errors.New("the time of this invocation is nearly over")
	errDown      = errors.New("too many comparisons failed in a row")
)

// survey is one look at EC2, compared page by page with what Vault and the ledger hold.
type survey struct {
	r         *Reconciler
	inventory *inventory
	input     Input
	until     time.Time // when to stop

	mu        sync.Mutex
	states    map[string]facts.State // of every instance EC2 shows
	counts    map[facts.Place]int    // how many, by place
	failed    map[facts.Place]error
	changes   []Change
	elsewhere map[facts.Place]int // instances to be removed that are outside the stretch
	failures  int                 // in a row
}

// sighted is one instance and where it was seen.
type sighted struct {
	instance.Sighting
	place facts.Place
}

// survey lists EC2 last, place by place, and compares on the way. An error means that it was given up.
func (r *Reconciler) survey(ctx context.Context, held *inventory, in Input, inv *invocation) (*survey, error) {
	s := &survey{
		r: r, inventory: held, input: in, until: inv.until,
		states: map[string]facts.State{}, counts: map[facts.Place]int{}, failed: map[facts.Place]error{}, elsewhere: map[facts.Place]int{},
	}
	for _, p := range inv.places {
		s.counts[p] = 0
	}
	whole, cancel := context.WithTimeout(ctx, inv.until.Sub(r.Now()))
	defer cancel()
	found := make(chan sighted)
	var compared, listed errgroup.Group
	for range readers {
		compared.Go(func() error { return s.compareAll(whole, found) })
	}
	listed.SetLimit(listers)
	patience := newPatience(inv.patience)
	for _, p := range inv.places {
		listed.Go(func() error {
			err := patience.list(whole, p, func(ctx context.Context, each func(func() error) error) error {
				return r.Instances.List(ctx, p, in.InstanceIDs, func(page []instance.Sighting) error {
					return each(func() error { return s.addPage(whole, p, page, found) })
				})
			})
			if err != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.failed[p] = err
			}
			return nil
		})
	}
	_ = listed.Wait() // a place that failed is noted and keeps to itself
	close(found)
	if err := compared.Wait(); err != nil {
		return s, err
	}
	if err := s.outOfTime(whole); err != nil {
		return s, err
	}
	if err := s.compareGone(whole, inv.places); err != nil {
		return s, err
	}
	s.askAboutHolders(whole)
	return s, nil
}

// askAboutHolders looks at those that hold a wanted name and that no listing showed: it may not have been theirs to show.
func (s *survey) askAboutHolders(ctx context.Context) {
	var refs []facts.Ref
	for _, c := range s.changes {
		place, recorded := s.inventory.recorded[c.heldBy]
		if _, seen := s.states[c.heldBy]; c.heldBy != "" && recorded && !seen {
			refs = append(refs, facts.Ref{ID: c.heldBy, Place: facts.Place{Account: place.Account, Region: place.Region}})
		}
	}
	if len(refs) == 0 {
		return
	}
	for ref, seen := range s.r.Instances.Look(ctx, refs) {
		switch {
		case seen.Err != nil:
			s.states[ref.ID] = "" // not known, and so not gone
		case seen.Found:
			s.states[ref.ID] = seen.Facts.State
		}
	}
}

func (s *survey) outOfTime(ctx context.Context) error {
	if ctx.Err() != nil || !s.r.Now().Before(s.until) {
		return errOutOfTime
	}
	return nil
}

// addPage takes a page of EC2's: notes every instance and hands those to compare on.
func (s *survey) addPage(ctx context.Context, p facts.Place, page []instance.Sighting, found chan<- sighted) error {
	for _, i := range page {
		id := i.Facts.ID
		_, recorded := s.inventory.recorded[id]
		s.mu.Lock()
		s.states[id] = i.Facts.State
		s.counts[p]++
		if recorded && !s.inventory.inStretch(id) && s.isToRemove(i) {
			s.elsewhere[p]++
		}
		s.mu.Unlock()
		if !s.inventory.inStretch(id) || !s.isComparable(i) {
			continue
		}
		select {
		case found <- sighted{Sighting: i, place: p}:
		case <-ctx.Done():
			return errOutOfTime
		}
	}
	return nil
}

// isComparable tells whether an instance is one to compare now: a stopped one is compared when it runs again.
func (s *survey) isComparable(i instance.Sighting) bool {
	return i.Err != nil || i.Facts.State == facts.Pending || i.Facts.State == facts.Running
}

// isGone tells whether EC2 says that an instance has ended.
func (s *survey) isGone(state facts.State) bool {
	return state == facts.Terminated || state == facts.ShuttingDown && s.r.OnShuttingDown
}

// isToRemove tells whether an instance that has a record is to be removed.
func (s *survey) isToRemove(i instance.Sighting) bool {
	if i.Err != nil || !s.isComparable(i) {
		return i.Err == nil && s.isGone(i.Facts.State)
	}
	profile, err := s.r.Profiles.Match(i.Facts)
	return profile == nil && err == nil
}

func (s *survey) compareAll(ctx context.Context, found <-chan sighted) error {
	var gaveUp error
	for i := range found {
		if gaveUp == nil {
			gaveUp = s.addRows(s.comparePresent(ctx, i))
		}
	}
	return gaveUp
}

// addRows keeps what a comparison found. It fails when too many did in a row.
func (s *survey) addRows(rows []Change, subject *subject, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failures++
		rows = []Change{subject.failedRow(err)}
	} else {
		s.failures = 0
	}
	s.changes = append(s.changes, rows...)
	if s.failures >= maxFailures {
		return fmt.Errorf("%w, the last one: %w", errDown, err)
	}
	return nil
}

func (s *survey) comparison() *comparison {
	return &comparison{deployment: s.r.Realm.Deployment, now: s.r.Now(), pkiMounts: s.r.Profiles.PKIMounts()}
}

// comparePresent compares one instance that is there.
func (s *survey) comparePresent(ctx context.Context, i sighted) ([]Change, *subject, error) {
	u := s.subject(i.Facts.ID)
	u.sighting, u.place = i.Sighting, i.place
	if i.Err != nil {
		return []Change{u.failedRow(i.Err)}, u, nil //nolint:nilerr // AWS's fault with this instance, and nobody else's
	}
	c := s.comparison()
	if u.isBusy(c.now) {
		return nil, u, nil
	}
	u.profile, u.refusal = s.r.Profiles.Match(i.Facts)
	if u.profile != nil && u.refusal == nil {
		if u.grant, u.refusal = s.render(u, i.Facts); u.refusal == nil {
			u.checkClaims(s.inventory.claims)
		}
	}
	if s.input.Profile != "" && (u.profile == nil || u.profile.Name != s.input.Profile) && (u.record == nil || u.record.Profile != s.input.Profile) {
		return nil, u, nil
	}
	if err := s.read(ctx, u); err != nil {
		return nil, u, err
	}
	return s.confirm(ctx, u, c.rowsOfPresent(u))
}

// render gives an instance's grant. What is exactly as it was made and recorded went through the guard then; all else
// does now, as it will once more before anything is written.
func (s *survey) render(u *subject, f facts.Instance) (*grant.Grant, error) {
	g, err := u.profile.Draft(f, s.r.Realm)
	if err == nil {
		if u.asRecorded = u.record != nil && u.record.State == ledger.Active && u.record.Holds(g); u.asRecorded {
			return g, nil
		}
	}
	return u.profile.Render(f, s.r.Realm)
}

func (s *survey) subject(id string) *subject {
	n := s.inventory
	return &subject{id: id, record: s.inventory.records[id], paths: n.paths[id], leftovers: n.leftovers[id], contents: map[string]map[string]any{}}
}

// checkClaims holds the grant's names against the claims there are.
func (s *subject) checkClaims(claims map[ledger.Name]string) {
	for _, name := range ledger.NamesOf(s.grant) {
		switch holder := claims[name]; {
		case holder == "":
			s.lacking = append(s.lacking, name)
		case holder != s.id && s.holder == "":
			s.holder, s.contested = holder, name
		}
	}
}

// compareGone compares what Vault and the ledger hold of instances that EC2 did not show, or showed as ended.
func (s *survey) compareGone(ctx context.Context, places []facts.Place) error {
	complete := map[facts.Place]bool{}
	for _, p := range places {
		complete[p] = s.failed[p] == nil
	}
	for id, place := range s.inventory.recorded {
		if _, seen := s.states[id]; !seen && complete[place] && !s.inventory.inStretch(id) && len(s.input.InstanceIDs) == 0 {
			s.elsewhere[place]++
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
		u := s.subject(id)
		stopped := state == facts.Stopping || state == facts.Stopped
		if seen && !s.isGone(state) && (!stopped || u.hasLiveRecord()) {
			continue
		}
		group.Go(func() error {
			u.sighting = instance.Sighting{Found: seen, Facts: facts.Instance{ID: id, State: state}}
			if err := s.outOfTime(ctx); err != nil {
				return err
			}
			return s.addRows(s.compareOneGone(ctx, u, complete))
		})
	}
	return group.Wait()
}

func (s *survey) compareOneGone(ctx context.Context, u *subject, complete map[facts.Place]bool) ([]Change, *subject, error) {
	if u.record != nil {
		u.place = facts.Place{Account: u.record.Account, Region: u.record.Region}
	} else {
		place, err := s.placeOf(ctx, u)
		if err != nil {
			return nil, u, err
		}
		u.place = place
	}
	answered, compared := complete[u.place]
	uncompared := u.place != (facts.Place{}) && !compared
	if compared && !answered {
		return nil, u, nil // EC2 did not answer for its place
	}
	if s.input.Profile != "" && (u.record == nil || u.record.Profile != s.input.Profile) {
		return nil, u, nil
	}
	if err := s.read(ctx, u); err != nil {
		return nil, u, err
	}
	if !uncompared && !u.isAlive() {
		return s.confirm(ctx, u, s.comparison().rowsOfGone(u))
	}
	if err := s.readLogin(ctx, u); err != nil {
		return nil, u, err
	}
	rows, err := s.existing(ctx, s.comparison().rowsOfUnproven(u))
	if err != nil {
		return nil, u, err
	}
	return s.confirm(ctx, u, rows)
}
