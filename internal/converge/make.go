package converge

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// make makes the grant of a live instance, or takes the step that is due instead. Every path is in the ledger before it is
// in Vault, and the auth role is written last: a login is possible only when everything it grants exists.
func (c *Converger) make(ctx context.Context, req Request, f facts.Instance) (Outcome, error) {
	s := situation{request: req, facts: f, duties: c.Duties}
	s.profile, s.grant, s.renderErr = c.render(f)
	next, reason := s.decide(c.Now())
	if next == stepReadRecord {
		var err error
		var isOld bool
		if s.record, isOld, err = c.recordOf(ctx, req); err != nil {
			return Outcome{}, err
		}
		s.hasRead = true
		if next, reason = s.decide(c.Now()); isOld && next != stepInspect {
			if s.record, err = c.Ledger.Get(ctx, f.ID); err != nil {
				return Outcome{}, err
			}
			next, reason = s.decide(c.Now())
		}
	}
	switch next {
	case stepRemoveUnmatched:
		return c.removeUnmatched(ctx, req, f)
	case stepAwaitFacts:
		return Outcome{Action: NotYet, Profile: s.profile.Name}, nil
	case stepResumeRemoval:
		return c.removeLeaving(ctx, req, f)
	case stepCutQuarantined:
		return c.cutSeenAlive(ctx, req, s.record)
	case stepStayQuarantined:
		return Outcome{Action: InQuarantine}, nil
	case stepWithhold:
		return Outcome{Action: LeftAlone}, nil
	case stepRefuse:
		return c.refuse(ctx, s.record, f, reason)
	case stepKeep:
		return s.unchanged(), c.clearError(ctx, s.record)
	case stepInspect:
		return c.inspectAndWrite(ctx, &s)
	case stepReadRecord, stepTryAgain:
	}
	return Outcome{}, reason
}

// keepWithoutRole returns the error of a live instance whose role is unknown. Its grant stays. A refusal is recorded if the instance
// has a record: it is unknown whether any other instance belongs to this deployment. A removal that broke off goes on, since it does
// not depend on the role.
func (c *Converger) keepWithoutRole(ctx context.Context, req Request, s instance.Sighting) (Outcome, error) {
	old, err := c.Ledger.Get(ctx, req.ID)
	switch {
	case err != nil:
		return Outcome{}, err
	case old == nil:
		return Outcome{}, s.Err
	case old.InQuarantine() && c.Duties.Remove && hasMoreToCut(req, old):
		return c.cutSeenAlive(ctx, req, old)
	case old.InQuarantine():
		return Outcome{Action: InQuarantine}, nil
	case c.Duties.Remove && old.Leaves(s.Facts.LaunchTime) && hasMoreToRemove(req, old):
		return c.removeLeaving(ctx, req, s.Facts)
	case old.Leaves(s.Facts.LaunchTime):
		return Outcome{Action: LeftAlone}, nil
	}
	return c.refuse(ctx, old, s.Facts, s.Err)
}

// render returns the profile that fits an instance and the grant it renders; no profile and no error when none fits.
func (c *Converger) render(f facts.Instance) (*grant.Profile, *grant.Grant, error) {
	profile, err := c.Profiles.Match(f)
	if profile == nil || err != nil {
		return nil, nil, err
	}
	g, err := profile.Render(f, c.Realm)
	return profile, g, err
}

func (s *situation) unchanged() Outcome {
	return Outcome{Action: Unchanged, Profile: s.profile.Name, FQDN: s.grant.FQDN}
}

// inspectAndWrite reads the objects at the grant's paths, and writes the grant unless Vault and ledger hold it already.
func (c *Converger) inspectAndWrite(ctx context.Context, s *situation) (Outcome, error) {
	// IAM is asked while Vault is read. Nothing is written before both have answered.
	confirmed := make(chan confirmation, 1)
	go func() { confirmed <- c.confirmRole(ctx, s) }()
	found, unreadable := c.inspect(ctx, s.request, s.grant, s.record)
	role := <-confirmed
	f := role.facts
	switch {
	case role.err != nil:
		return c.refuse(ctx, s.record, f, role.err)
	case role.changed:
		return c.make(ctx, s.request, f) // as an instance of the other role
	case unreadable != nil:
		return c.refuse(ctx, s.record, f, unreadable)
	}
	// A path of the grant is not untracked, whatever it was when the lists were read.
	s.request.Untracked = slices.DeleteFunc(slices.Clone(s.request.Untracked), s.grant.Has)
	untracked, err := c.ownUntracked(ctx, s.request, s.record)
	if err != nil {
		return Outcome{}, err
	}
	if s.isAsRecorded() && len(untracked) == 0 && c.differing(s, found) == 0 {
		isHeld, err := c.holdsItsNames(ctx, s.record)
		if err != nil {
			return Outcome{}, err
		}
		if isHeld {
			return s.unchanged(), c.clearError(ctx, s.record)
		}
	}
	ttl, err := c.certificateTTL(ctx, s.record, s.grant)
	if err != nil {
		return Outcome{}, err
	}
	if err := c.checkRetained(ctx, s.grant, s.record); err != nil {
		return c.refuse(ctx, s.record, f, err)
	}
	if isTornDown, err := c.checkMayGrant(ctx, f); isTornDown || err != nil {
		return Outcome{Action: TornDown, Profile: s.profile.Name}, err
	}
	w := c.begin(s.request.Batch, s.record)
	w.awaitNames = s.request.AwaitNames
	done, err := w.grant(ctx, intent{request: s.request, facts: f, grant: s.grant, found: found, untracked: untracked, certificateTTL: ttl}, s.record)
	done.RemovedHolders = w.removedHolders
	return done, err
}

// checkMayGrant returns an error if the facts are stale, and reports whether the deployment is torn down. It is called
// last, right before the intent is written.
func (c *Converger) checkMayGrant(ctx context.Context, f facts.Instance) (isTornDown bool, err error) {
	since, err := c.Ledger.TornDown(ctx)
	if err != nil || since != nil {
		return since != nil, err
	}
	return false, staleError(f, c.Now())
}

// grant writes the intent, the objects and the active record.
func (w *work) grant(ctx context.Context, i intent, old *ledger.Record) (Outcome, error) {
	g := i.grant
	if err := w.intend(ctx, i, old); err != nil {
		return w.refuse(ctx, old, i.facts, err)
	}
	written, err := w.write(ctx, g, i.found)
	if err != nil {
		return Outcome{Holds: holds(old)}, w.fail(ctx, ledger.Write{Old: w.record, New: *w.record, Owner: w.owner}, err)
	}
	if err := w.activate(ctx); err != nil {
		return Outcome{}, err
	}
	done := Outcome{Action: Provisioned, Profile: g.Profile.Name, FQDN: g.FQDN, Objects: written, Addresses: w.record.Addresses}
	for _, o := range g.All() {
		done.Paths = append(done.Paths, o.Path)
	}
	return done, nil
}

// write writes every object that is missing or differs, or may be, the auth role last, and then removes the objects that the record
// names and the grant does not hold. It returns the number of objects written.
func (w *work) write(ctx context.Context, g *grant.Grant, found map[string]map[string]any) (int, error) {
	var wrong []grant.Object
	for _, o := range g.Objects {
		if w.mustWrite(g, o, found[o.Path]) {
			wrong = append(wrong, o)
		}
	}
	written := len(wrong)
	errs := sideBySide(wrong, func(o grant.Object) error {
		_, err := w.put(ctx, o, found[o.Path])
		return err
	})
	if err := joinAll(errs); err != nil {
		return written, err
	}
	current := found[g.AuthRole.Path]
	if grant.MustReplace(current, g.AuthRole) && w.mustWrite(g, g.AuthRole, current) {
		// Its tokens are cut too: a session that the new role refuses may hold one.
		if err := w.dropLogin(ctx, g.AuthRole.Path); err != nil {
			return written, err
		}
		current = nil
	}
	if w.mustWrite(g, g.AuthRole, current) {
		written++
		var err error
		if current, err = w.put(ctx, g.AuthRole, current); err != nil {
			return written, err
		}
	}
	roleID, _ := current["role_id"].(string)
	w.record.SetRoleID(g.AuthRole.Path, roleID)
	return written, w.deleteStale(ctx, g)
}

// joinAll joins the errors of a grant's objects. The grant needs them all, so one refusal refuses the grant, whatever else
// failed and in whichever order.
func joinAll(errs []error) error {
	final := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil || fault.KindOf(err) == fault.Retry })
	if len(final) == 0 {
		return errors.Join(errs...)
	}
	return fault.New(fault.KindOf(errors.Join(final...)), errors.Join(errs...))
}

// sideBySide calls do for all items at once and returns one error for each, in their order. A failure does not cancel its
// neighbours: a cancelled call may still take effect, after the lease is returned. All errors are returned, not only the
// first: a later one may be the timeout that fail looks for.
func sideBySide[T any](items []T, do func(T) error) []error {
	errs := make([]error, len(items))
	var group sync.WaitGroup
	for i, item := range items {
		group.Go(func() { errs[i] = do(item) })
	}
	group.Wait()
	return errs
}

// put writes one object and compares what Vault stored: Vault drops unknown fields and fills in missing ones, so an object could
// lock less than was sent. found is the object as read before, nil if there was none. If what is stored shows optional fields
// that found did not, the object is written again with them. It returns the object as stored.
func (w *work) put(ctx context.Context, o grant.Object, found map[string]any) (map[string]any, error) {
	sent := o.FieldsFor(found)
	got, err := w.store(ctx, o, sent)
	if err == nil && len(o.FieldsFor(got)) > len(sent) && len(o.Differences(got)) > 0 {
		return w.store(ctx, o, o.FieldsFor(got))
	}
	return got, err
}

// store writes fields of an object and returns the object as Vault stored it. It reads the object only where the answer of the
// write does not prove that: see docs/decisions/answers-of-writes.md.
func (w *work) store(ctx context.Context, o grant.Object, fields map[string]any) (map[string]any, error) {
	if err := w.checkLease(); err != nil {
		return nil, err
	}
	stored, err := w.Vault.Write(ctx, o.Path, fields)
	if err != nil {
		return nil, err
	}
	sent := grant.Object{Kind: o.Kind, Path: o.Path, Fields: fields}
	switch {
	case o.Kind == grant.KindPolicy:
		return fields, nil
	case o.Kind == grant.KindPKIRole && stored != nil && len(sent.Differences(stored)) == 0:
		return stored, nil
	}
	return w.readBack(ctx, o, fields)
}

// deleteStale removes the objects that the record names beyond the grant; they come after the grant's in the record. An
// auth role on another mount is removed only by a function that may delete one; otherwise it stays recorded, and is
// removed with the instance.
func (w *work) deleteStale(ctx context.Context, g *grant.Grant) error {
	n := len(g.Objects) + 1
	own, foreign := ownPaths(w.record.InstanceID, w.record.Objects[n:])
	logins, stale := split(own)
	if err := errors.Join(sideBySide(stale, func(o ledger.Object) error { return w.deleteObject(ctx, o) })...); err != nil {
		return err
	}
	if w.Duties.Remove {
		for _, o := range logins { // one by one: each may write its role_id to the record
			if err := w.dropLogin(ctx, o.Path); err != nil {
				return err
			}
		}
		logins = nil
	}
	if len(foreign) > 0 {
		return errors.Join(foreign...)
	}
	w.record.Objects = append(w.record.Objects[:n:n], logins...)
	return nil
}

// activate marks the record active. Names of an earlier grant are released when the last certificate with them has ended.
func (w *work) activate(ctx context.Context) error {
	next := *w.record
	next.State, next.Attempts = ledger.Active, 0
	now := w.Now().Round(0).UTC()
	next.Ready = next.Ready.Ended(now)
	var free []ledger.Name
	next.DateFormer(w.lastCertificate(next))
	next.Former = slices.DeleteFunc(next.Former, func(n ledger.FormerName) bool {
		ended := !n.Until.IsZero() && !now.Before(n.Until)
		if ended {
			free = append(free, n.Name)
		}
		return ended
	})
	_, err := w.Ledger.Put(ctx, ledger.Write{Old: w.record, New: next, Owner: w.owner, Release: free})
	return err
}
