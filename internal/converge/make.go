package converge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// make sees to it that Vault holds the instance's grant. Every path is in the ledger before it is in Vault, and the
// auth role comes last: a login is possible only when all it grants exists.
func (c *Converger) make(ctx context.Context, req Request, f facts.Instance) (Outcome, error) {
	profile, g, err := c.wanted(f)
	if profile == nil && err == nil {
		return c.unmatched(ctx, req, f)
	}
	if errors.Is(err, grant.ErrNotYet) && cmp.Or(req.Told, f.State) == facts.Pending {
		return Outcome{Action: NotYet, Profile: profile.Name}, nil
	}
	if err != nil && fault.KindOf(err) == fault.Retry {
		return Outcome{}, err
	}
	old, getErr := c.Ledger.Get(ctx, f.ID)
	if getErr != nil {
		return Outcome{}, getErr
	}
	if err := c.take(old); err != nil {
		return Outcome{}, err
	}
	if c.goesOn(req, old, f) {
		return c.leaving(ctx, req, f)
	}
	if ends, err := removed(old, f); ends {
		return Outcome{Action: LeftAlone}, err
	}
	if err != nil {
		return c.refused(ctx, old, f, err)
	}
	done := Outcome{Action: Unchanged, Profile: profile.Name, FQDN: g.FQDN}
	asRecorded := old != nil && old.State == ledger.Active && c.same(old, g)
	if asRecorded && !req.Verify {
		return done, c.settled(ctx, old)
	}
	if err := c.notStale(f); err != nil {
		return Outcome{}, err
	}
	f, again, err := c.first(ctx, old, profile, f)
	switch {
	case err != nil:
		return c.refused(ctx, old, f, err)
	case again:
		return c.make(ctx, req, f)
	}
	found, err := c.look(ctx, g, old)
	if err != nil {
		return c.refused(ctx, old, f, err)
	}
	// A path of the grant is no stray, whatever it was when the lists were read.
	req.Untracked = slices.DeleteFunc(slices.Clone(req.Untracked), func(path string) bool {
		return slices.ContainsFunc(g.All(), func(o grant.Object) bool { return o.Path == path })
	})
	strays, err := c.strays(ctx, req, old)
	stands := err == nil && asRecorded && len(strays) == 0 && differing(g, found) == 0
	if stands {
		stands, err = c.holdsItsNames(ctx, old)
	}
	if err != nil {
		return Outcome{}, err
	}
	if stands {
		return done, c.settled(ctx, old)
	}
	ttl, err := c.certificateTTL(ctx, old, g)
	if err != nil {
		return Outcome{}, err
	}
	if ends, err := c.mustNotBegin(ctx, f); ends {
		return Outcome{Action: TornDown, Profile: profile.Name}, err
	}
	w := &work{Converger: c, owner: c.NewOwner()}
	done, err = w.grant(ctx, intent{request: req, facts: f, grant: g, strays: strays, certificateTTL: ttl}, old, found)
	done.RemovedHolders = w.removedHolders
	return done, err
}

// grant writes the intent, the objects and the active record.
func (w *work) grant(ctx context.Context, i intent, old *ledger.Record, found map[string]map[string]any) (Outcome, error) {
	g := i.grant
	if err := w.intend(ctx, i, old); err != nil {
		return w.refused(ctx, old, i.facts, err)
	}
	written, err := w.write(ctx, g, found)
	if err != nil {
		return Outcome{Holds: holds(old)}, w.failed(ctx, ledger.Write{Old: w.record, New: *w.record, Owner: w.owner}, err)
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

// wanted is the profile that fits an instance and the grant it renders; no profile without an error when none fits.
func (c *Converger) wanted(f facts.Instance) (*grant.Profile, *grant.Grant, error) {
	profile, err := c.Profiles.Match(f)
	if profile == nil || err != nil {
		return nil, nil, err
	}
	g, err := profile.Render(f, c.Realm)
	return profile, g, err
}

// mustNotBegin tells, with the error if that is why, that no intent may be written now: the deployment is torn down, or the
// facts are too old, the sandbox having been frozen since they were looked at. That is asked last, after every call.
func (c *Converger) mustNotBegin(ctx context.Context, f facts.Instance) (ends bool, err error) {
	since, err := c.Ledger.TornDown(ctx)
	if err == nil && since == nil {
		err = c.notStale(f)
	}
	return err != nil || since != nil, err
}

// unmatched is for a live instance that no profile fits. What it may have been granted before is taken away by a
// function that may remove; the others do not even look.
func (c *Converger) unmatched(ctx context.Context, req Request, f facts.Instance) (Outcome, error) {
	if !c.Duties.Remove {
		return Outcome{Action: Unmatched}, nil
	}
	done, err := c.retire(ctx, req, true, func() error { return c.notStale(f) })
	if done.Action == Unchanged {
		done.Action = Unmatched
	}
	return done, err
}

// holdsItsNames reports whether every claim of the record is the instance's.
func (c *Converger) holdsItsNames(ctx context.Context, r *ledger.Record) (bool, error) {
	held := make([]bool, len(r.Held()))
	group, ctx := errgroup.WithContext(ctx)
	for i, name := range r.Held() {
		group.Go(func() error {
			holder, err := c.Ledger.Holder(ctx, name)
			held[i] = holder != nil && holder.InstanceID == r.InstanceID
			return err
		})
	}
	err := group.Wait()
	return err == nil && !slices.Contains(held, false), err
}

// differing counts the objects of a grant that are not in Vault as they should be.
func differing(g *grant.Grant, found map[string]map[string]any) int {
	n := 0
	for _, o := range g.All() {
		if current := found[o.Path]; current == nil || len(o.Differences(current)) > 0 {
			n++
		}
	}
	return n
}

// same tells whether the record says that exactly this grant was made. Auth roles left on another mount are for a
// function that may delete them.
func (c *Converger) same(r *ledger.Record, g *grant.Grant) bool {
	return r.Holds(g) && (!c.Duties.Remove || len(r.Objects) == len(g.Objects)+1)
}

// settled forgets an error that has passed, so that its return is told anew.
func (c *Converger) settled(ctx context.Context, old *ledger.Record) error {
	if old.LastError == "" {
		return nil
	}
	next := *old
	next.LastError, next.Attempts = "", 0
	_, err := c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: c.NewOwner()})
	return err
}

// work is one run under a lease.
type work struct {
	*Converger
	owner  string
	record *ledger.Record // as last written, with the lease
	// removedHolders are the instances that were removed for a name of theirs.
	removedHolders []RemovedHolder
}

// held fails when the lease has run out, or will before a call could end: a sandbox that wakes after a freeze must
// not write into somebody else's run. It compares wall-clock time, which goes on while a sandbox is frozen.
func (w *work) held() error {
	if left := w.record.LeaseExpiresAt - w.Now().Round(0).UnixMilli(); left < leaseMargin.Milliseconds() {
		return fault.New(fault.Retry, fmt.Errorf("the lease on instance %s has run out: %w", w.record.InstanceID, ledger.ErrChanged))
	}
	return nil
}

// write makes every object that is not there as it should be, the auth role last, and then removes what the record
// names but the grant no longer holds. It counts the objects written.
func (w *work) write(ctx context.Context, g *grant.Grant, found map[string]map[string]any) (int, error) {
	var wrong []grant.Object
	for _, o := range g.Objects {
		if current := found[o.Path]; current == nil || len(o.Differences(current)) > 0 {
			wrong = append(wrong, o)
		}
	}
	written := len(wrong)
	errs := sideBySide(wrong, func(o grant.Object) error {
		_, err := w.put(ctx, o)
		return err
	})
	if err := allNeeded(errs); err != nil {
		return written, err
	}
	current := found[g.AuthRole.Path]
	if grant.MustReplace(current, g.AuthRole) {
		// Its tokens go too: a session that the new role does not let in may hold one.
		if err := w.dropLogin(ctx, g.AuthRole.Path); err != nil {
			return written, err
		}
		current = nil
	}
	if current == nil || len(g.AuthRole.Differences(current)) > 0 {
		written++
		var err error
		if current, err = w.put(ctx, g.AuthRole); err != nil {
			return written, err
		}
	}
	roleID, _ := current["role_id"].(string)
	w.record.SetRoleID(g.AuthRole.Path, roleID)
	return written, w.deleteStale(ctx, g)
}

// allNeeded joins the errors of a grant's objects. A refusal of one refuses the grant, which needs them all, whatever
// else failed and in whichever order.
func allNeeded(errs []error) error {
	final := slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil || fault.KindOf(err) == fault.Retry })
	if len(final) == 0 {
		return errors.Join(errs...)
	}
	return fault.New(fault.KindOf(errors.Join(final...)), errors.Join(errs...))
}

// sideBySide does the same to all items at once and gives each one's error, in their order. One failure does not cancel
// its neighbours: a cancelled call may still take effect, after the lease is given back. And every error counts: of
// two, the second may be the one that ran out of time.
func sideBySide[T any](items []T, do func(T) error) []error {
	errs := make([]error, len(items))
	var group sync.WaitGroup
	for i, item := range items {
		group.Go(func() { errs[i] = do(item) })
	}
	group.Wait()
	return errs
}

// put writes one object, reads it back and compares: Vault drops what it does not know and fills in what was left
// out, and a lock that is not as it was meant is none.
func (w *work) put(ctx context.Context, o grant.Object) (map[string]any, error) {
	if err := w.held(); err != nil {
		return nil, err
	}
	if err := w.Vault.Write(ctx, o.Path, o.Fields); err != nil {
		return nil, err
	}
	got, err := w.Vault.Read(ctx, o.Path)
	if err != nil {
		return nil, err
	}
	if got == nil {
		return nil, fault.Retryf("%s was written and is not there when read back", o.Path)
	}
	if fields := o.Differences(got); len(fields) > 0 {
		return nil, fault.Refusef("%s was written but reads back with other values in %v: this version of Vault does not take them, or somebody else writes the same object", o.Path, fields)
	}
	return got, nil
}

// deleteStale removes what the record names beyond the grant. Those objects stand behind the grant's in the record.
// An auth role on another mount goes only by a function that may delete one; else it stays recorded, to go with the
// instance.
func (w *work) deleteStale(ctx context.Context, g *grant.Grant) error {
	n := len(g.Objects) + 1
	logins, stale := split(w.record.Objects[n:])
	if err := errors.Join(sideBySide(stale, func(o ledger.Object) error { return w.deleteObject(ctx, o) })...); err != nil {
		return err
	}
	if w.Duties.Remove {
		for _, o := range logins { // one by one: each may note its role_id in the record
			if err := w.dropLogin(ctx, o.Path); err != nil {
				return err
			}
		}
		logins = nil
	}
	w.record.Objects = append(w.record.Objects[:n:n], logins...)
	return nil
}

// activate marks the record active with what is left in it. Names of an earlier grant are given up when the last
// certificate with them has ended.
func (w *work) activate(ctx context.Context) error {
	next := *w.record
	next.State, next.Attempts = ledger.Active, 0
	now := w.Now().Round(0).UTC()
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
