package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const (
	// readers is the number of instances that are compared at once. With more, each only waits longer for Vault.
	readers = 16
	// listers is the number of accounts and regions that are listed at once.
	listers = 4
	// maxFailures is the number of comparisons in a row that fail before the stretch is given up: Vault or the ledger is
	// down, and each further instance would wait for its own timeout.
	maxFailures = 40
)

var (
	errOutOfTime = errors.New("the time of this invocation is nearly over")
	errDown      = errors.New("too many comparisons failed in a row")
	errManyRows  = errors.New("the stretch has more rows than are held")
)

// survey is one listing of EC2, compared page by page with an inventory.
type survey struct {
	r         *Reconciler
	inventory *inventory
	input     Input
	until     time.Time    // when to stop
	mounts    grant.Mounts // of the profiles

	mu sync.Mutex
	// states are those of all instances that EC2 shows; empty for an instance that it could not be asked about.
	states map[string]facts.State
	// unknown are the instances that EC2 could not describe in a place, although it answered about others there.
	unknown []sighted
	// counts are the numbers of instances that EC2 shows, by place.
	counts map[facts.Place]int
	// failed are the errors of the places that could not be listed.
	failed map[facts.Place]error
	// changes are the rows so far.
	changes []Change
	// elsewhere counts the instances to remove that are outside the stretch.
	elsewhere map[facts.Place]int
	// failures counts the comparisons that failed in a row, without those of unreadable folders.
	failures int
	// compared counts the instances that were compared.
	compared int
	// unreadable are the errors of the folders that could neither be listed nor read.
	unreadable map[string]error
}

// sighted is one instance and the place that was asked.
type sighted struct {
	instance.Sighting
	place facts.Place
}

// newSurvey returns a survey of an inventory that has seen no instance.
func (r *Reconciler) newSurvey(held *inventory, in Input, inv *invocation) *survey {
	s := &survey{
		r: r, inventory: held, input: in, until: inv.until, mounts: r.Profiles.Mounts(),
		states: map[string]facts.State{}, counts: map[facts.Place]int{}, failed: map[facts.Place]error{}, elsewhere: map[facts.Place]int{},
		unreadable: map[string]error{},
	}
	for _, p := range inv.places {
		s.counts[p] = 0
	}
	return s
}

// survey lists EC2 place by place, compares each page as it comes, and then the instances that EC2 did not show. With an
// error, which wraps errOutOfTime, errDown or errManyRows, the result has the rows so far.
func (r *Reconciler) survey(ctx context.Context, held *inventory, in Input, inv *invocation) (*survey, error) {
	s := r.newSurvey(held, in, inv)
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
	_ = listed.Wait() // the functions above keep their errors in failed
	s.addUnknown(whole, found)
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

// askAboutHolders asks EC2 about the holders of contested names that no listing showed: they may be outside the listed places or
// IDs.
func (s *survey) askAboutHolders(ctx context.Context) {
	var refs []facts.Ref
	for _, c := range s.changes {
		place, recorded := s.inventory.recordedAt(c.heldBy)
		if _, seen := s.states[c.heldBy]; c.heldBy != "" && recorded && !seen {
			refs = append(refs, facts.Ref{ID: c.heldBy, Place: place})
		}
	}
	if len(refs) == 0 {
		return
	}
	for ref, seen := range s.r.Instances.Describe(ctx, refs) {
		switch {
		case seen.Err != nil && !seen.LacksRole():
			s.states[ref.ID] = "" // unknown, and so not gone
		case seen.Found:
			s.states[ref.ID] = seen.Facts.State
		}
	}
}

// outOfTime returns errOutOfTime when the invocation's time is over.
func (s *survey) outOfTime(ctx context.Context) error {
	if ctx.Err() != nil || !s.r.Now().Before(s.until) {
		return errOutOfTime
	}
	return nil
}

// addPage counts the instances of one page of EC2, and sends those to compare to found.
func (s *survey) addPage(ctx context.Context, p facts.Place, page []instance.Sighting, found chan<- sighted) error {
	for _, i := range page {
		id := i.Facts.ID
		known := s.inventory.of(id)
		s.mu.Lock()
		if !i.Found {
			s.unknown = append(s.unknown, sighted{Sighting: i, place: p})
			s.mu.Unlock()
			continue
		}
		s.states[id] = i.Facts.State
		s.counts[p]++
		if known.place != nil && known.unseen == "" && !s.inventory.inStretch(id) && s.isToRemove(i) {
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

// isComparable reports whether an instance is compared with its grant. A stopped instance is compared when it runs again.
func (s *survey) isComparable(i instance.Sighting) bool {
	return i.Err != nil || i.Facts.State.IsLive()
}

// isGone reports whether a state of EC2 means that the grant must go.
func (s *survey) isGone(state facts.State) bool {
	return state == facts.Terminated || (state == facts.ShuttingDown && s.r.OnShuttingDown)
}

// isToRemove reports whether a recorded instance is to be removed: it has ended, or no profile fits it.
func (s *survey) isToRemove(i instance.Sighting) bool {
	if i.Err != nil || !s.isComparable(i) {
		return i.Err == nil && s.isGone(i.Facts.State)
	}
	profile, err := s.r.Profiles.Match(i.Facts)
	return profile == nil && err == nil && !i.Facts.RoleUnconfirmed
}

// compareAll compares the instances of found until it is closed. After an error it only drains found.
func (s *survey) compareAll(ctx context.Context, found <-chan sighted) error {
	var gaveUp error
	for i := range found {
		if gaveUp != nil {
			continue
		}
		u := s.subject(i.Facts.ID)
		u.sighting, u.place = i.Sighting, i.place
		rows, err := s.comparePresent(ctx, u)
		gaveUp = s.addRows(u, rows, err)
	}
	return gaveUp
}

// addRows adds the rows of one comparison, or one failed row if it failed. It returns errDown when too many comparisons failed
// in a row, and errManyRows when there are more rows than are held and a shorter stretch would have less.
func (s *survey) addRows(u *subject, rows []Change, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.failures = 0
	case errors.Is(err, errUnreadable): // the trouble of one folder
		rows = []Change{u.failedRow(err)}
	default:
		s.failures++
		rows = []Change{u.failedRow(err)}
	}
	s.changes = append(s.changes, rows...)
	s.compared++
	switch {
	case s.failures >= maxFailures:
		return fmt.Errorf("%w, the last one: %w", errDown, err)
	case len(s.changes) > heldRows && s.inventory.half() >= minStretch:
		return errManyRows
	}
	return nil
}

// comparison returns a comparison as of now.
func (s *survey) comparison() *comparison {
	return &comparison{deployment: s.r.Realm.Deployment, now: s.r.Now(), mounts: s.mounts}
}

// comparePresent returns the rows of an instance that EC2 shows as pending or running.
func (s *survey) comparePresent(ctx context.Context, u *subject) ([]Change, error) {
	c := s.comparison()
	if u.isBusy(c.now) {
		return nil, nil
	}
	f := u.sighting.Facts
	// The rest of a removal depends on no role.
	isLeaving := (u.record.Leaves(f.LaunchTime) || u.record.InQuarantine()) && (u.sighting.Err == nil || u.sighting.LacksRole())
	if err := u.sighting.Err; err != nil && !isLeaving {
		if s.input.Profile != "" && !u.isRecordedFor(s.input.Profile) {
			return nil, nil
		}
		return u.rowsWithoutFacts(err), nil // a fault of AWS with this instance only
	}
	if u.record.InQuarantine() || (u.record != nil && u.record.State == ledger.Deprovisioning) {
		var err error
		if u.leftovers, err = s.r.leftoversOf(ctx, s.inventory, u.id, u.record); err != nil {
			return nil, err
		}
	}
	u.profile, u.refusal = s.r.Profiles.Match(f)
	if u.profile != nil && u.refusal == nil {
		if u.grant, u.refusal = s.render(u, f); u.refusal == nil {
			u.checkClaims(s.inventory.roster)
		}
	}
	fits := u.profile != nil && u.profile.Name == s.input.Profile
	if s.input.Profile != "" && !fits && !u.isRecordedFor(s.input.Profile) {
		return nil, nil
	}
	if f.RoleUnconfirmed && !isLeaving && !u.mayRestOnOldRole() {
		return []Change{u.failedRow(fmt.Errorf("IAM does not answer, and the role %s of an earlier answer only makes first grants", f.IAMRoleARN))}, nil
	}
	rows, err := s.compareSettled(ctx, u, func() ([]Change, error) {
		err := s.read(ctx, u)
		return c.rowsOfPresent(u), err
	})
	if err != nil {
		return nil, err
	}
	return s.confirm(ctx, u, rows)
}

// compareSettled returns the rows of compare, which reads the instance's objects. It calls compare again while a lagging read may
// explain the row of an object.
func (s *survey) compareSettled(ctx context.Context, u *subject, compare func() ([]Change, error)) (rows []Change, err error) {
	isOfObject := func(c Change) bool { return c.Object != KindRecord }
	s.r.Looks.Until(ctx, func() bool {
		u.contents = map[string]map[string]any{}
		rows, err = compare()
		return err != nil || !slices.ContainsFunc(rows, isOfObject) || !converge.MayLag(u.record, s.r.Now())
	})
	return rows, err
}

// isRecordedFor reports whether the record names a profile.
func (s *subject) isRecordedFor(profile string) bool {
	return s.record != nil && s.record.Profile == profile
}

// render returns an instance's grant. The guard checked a grant that equals the recorded one when it was made. It checks any
// other grant here, and again before it is written.
func (s *survey) render(u *subject, f facts.Instance) (*grant.Grant, error) {
	g, err := u.profile.Draft(f, s.r.Realm)
	if err == nil {
		if u.asRecorded = u.record != nil && u.record.State == ledger.Active && u.record.Holds(g); u.asRecorded {
			return g, nil
		}
	}
	return u.profile.Render(f, s.r.Realm)
}

// subject returns an instance as the inventory has it.
func (s *survey) subject(id string) *subject {
	held := s.inventory
	u := &subject{id: id, record: held.recordOf(id), leftovers: held.leftovers(id), contents: map[string]map[string]any{}}
	u.setPaths(held)
	return u
}

// checkClaims sets lacking, holder and contested by the claims of the ledger.
func (s *subject) checkClaims(claims *roster) {
	for _, name := range ledger.NamesOf(s.grant) {
		switch holder := claims.holderOf(name); {
		case holder == "":
			s.lacking = append(s.lacking, name)
		case holder != s.id && s.holder == "":
			s.holder, s.contested = holder, name
		}
	}
}
