package converge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const (
	// maxRequest is how long a request to Vault can take.
	// https://developer.hashicorp.com/vault/docs/configuration#default_max_request_duration
	maxRequest = 90 * time.Second
	// LoginTime is how long a login can be in flight, with a margin for clocks.
	LoginTime = maxRequest + 5*time.Second
)

// removal is the grant of one instance to remove.
type removal struct {
	batch *Batch         // of the request
	by    ledger.Cause   // of the request
	at    time.Time      // of the request
	old   *ledger.Record // as read; nil if there is none
	next  ledger.Record  // the same with every object to remove
	// keepsNames holds the names until the last certificate with them has ended: the instance goes on running.
	keepsNames bool
	// verifies has the retained objects of a tombstone looked for in Vault.
	verifies bool
}

// remove removes all objects that the ledger names for an instance, by the recorded paths. The auth role goes first, so that
// no login is possible any more, then the identity entity, which ends every live token at once, and only then the objects
// that the tokens could use. The record is closed only when the tokens are cut.
func (c *Converger) remove(ctx context.Context, r removal) (Outcome, error) {
	next := r.next
	if !r.keepsNames { // the instance has ended, or counts as such
		now := c.Now().Round(0).UTC()
		next.SetQuarantineEnd(&now)
	}
	next.Retain(nil)
	if next.State == ledger.Deleted && len(next.Objects) == 0 && len(next.Retained) == len(r.next.Retained) {
		return c.completeRemoval(ctx, r)
	}
	if err := leaseError(r.old, c.Now()); err != nil {
		return Outcome{}, err
	}
	quiet := next.QuietUntil
	if quiet != nil && c.Now().Before(*quiet) {
		return Outcome{}, unfinished(next.InstanceID, *quiet)
	}
	w := c.begin(r.batch, r.old)
	if next.State != ledger.Deprovisioning && next.UncutUntil != nil && !c.Now().Before(*next.UncutUntil) {
		next.UncutUntil = nil // of an earlier auth role, whose tokens have expired
	}
	wasCut := next.State == ledger.Deleted && next.Cut != nil
	if next.State != ledger.Deprovisioning && !wasCut {
		next.Cut = ledger.NewSpan(r.by, r.at)
	}
	next.State = ledger.Deprovisioning
	if r.keepsNames {
		next.MakeFormer(next.Held()) // dated once nothing can issue a certificate any more
	}
	var err error
	if w.record, err = c.Ledger.Put(ctx, ledger.Write{Old: r.old, New: next, Owner: w.owner, KeepLease: true}); err != nil {
		return Outcome{}, err
	}
	done := Outcome{Action: Deprovisioned, Profile: next.Profile, FQDN: next.FQDN, Addresses: next.Addresses, Retained: next.RetainedPaths(), SecondCut: quiet != nil}
	for _, o := range next.Objects {
		done.Paths = append(done.Paths, o.Path)
	}
	sawLateLogin, err := w.removeObjects(ctx, &done)
	if err != nil {
		done.Action = "" // it is not done
		write := ledger.Write{Old: w.record, New: *w.record, Owner: w.owner}
		if fault.KindOf(err) == fault.Conflict && !r.keepsNames {
			// Everything that could use the names is gone. The objects left are foreign and must not hold them.
			write.Release = w.record.Names()
		}
		return done, c.fail(ctx, write, err)
	}
	w.endCut(done)
	if quiet == nil && (sawLateLogin || next.ExtraPolicies) {
		return done, w.awaitSecondCut(ctx, r)
	}
	record, err := w.Ledger.Put(ctx, w.closingWrite(r))
	if err != nil {
		return done, err
	}
	return done, c.revoke(ctx, record)
}

// endCut records when every token was refused. A second cut that found a late login moves that time. A removal without an object or an
// entity cut no token.
func (w *work) endCut(done Outcome) {
	record := *w.record
	if len(done.Paths) == 0 && done.Cut == 0 {
		record.Cut = nil
	}
	if cut := record.Cut; cut != nil && done.SecondCut && done.Cut > 0 {
		record.Cut = &ledger.Span{By: cut.By, From: cut.From}
	}
	record.Cut = record.Cut.Ended(done.CutAt)
	w.record = &record
}

// closingWrite returns the write that ends a removal: it releases the names, and records the certificates to revoke.
func (w *work) closingWrite(r removal) ledger.Write {
	next := *w.record
	if w.RevokeCertificates {
		next.Revoking = w.prefixesToRevoke()
	}
	next.FormerRoleIDs = w.record.RoleIDs()
	if next.UncutUntil != nil {
		next.FormerRoleIDs = nil // their entities could not be shown to be the instance's, and have no live token
	}
	next.QuietUntil, next.UncutUntil = nil, nil
	next.State, next.Objects, next.LastError, next.Attempts = ledger.Deleted, nil, "", 0
	write := ledger.Write{Old: w.record, Owner: w.owner}
	next.Claims = nil
	switch {
	case r.keepsNames && next.InQuarantine(): // no successor gets the names while the instance lives
	case r.keepsNames:
		next.DateFormer(w.lastCertificate(next))
	default:
		next.Former = nil
		write.Release = w.record.Names()
	}
	write.New = next
	return write
}

// completeRemoval does the part that an earlier removal left: it releases the names of an instance that went on running, and
// starts the rest of a revocation.
func (c *Converger) completeRemoval(ctx context.Context, r removal) (Outcome, error) {
	record := r.old
	if record == nil {
		return Outcome{Action: Unchanged}, nil
	}
	if names := record.Names(); !r.keepsNames && (len(names) > 0 || record.LivesInQuarantine()) {
		next := *record
		next.Former, next.Claims = nil, nil
		now := c.Now().Round(0).UTC()
		next.SetQuarantineEnd(&now)
		var err error
		if record, err = c.Ledger.Put(ctx, ledger.Write{Old: record, New: next, Owner: c.NewOwner(), Release: names}); err != nil {
			return Outcome{}, err
		}
	}
	var unread error // no reason to put the revocation off
	if r.verifies && len(record.Retained) > 0 {
		record, unread = c.forgetLost(ctx, record)
	}
	return Outcome{Action: Unchanged, Retained: record.RetainedPaths()}, errors.Join(unread, c.revoke(ctx, record))
}

// awaitSecondCut leaves the record open until no login can be in flight that began before the auth role was deleted. Such a
// login has read the role, and makes its token when AWS has answered; the removal then runs again and cuts it. A removal
// waits only if a late token would have power by policies other than the instance's own, or if a late login was seen.
func (w *work) awaitSecondCut(ctx context.Context, r removal) error {
	next := *w.record
	quiet := w.Now().Round(0).UTC().Add(LoginTime)
	next.QuietUntil = &quiet
	next.Objects = slices.DeleteFunc(slices.Clone(next.Objects), func(o ledger.Object) bool { return o.Kind != grant.KindAuthRole })
	if w.RevokeCertificates {
		next.Revoking = w.prefixesToRevoke()
	}
	write := ledger.Write{Old: w.record, New: next, Owner: w.owner}
	if !r.keepsNames {
		write.Release = w.record.Names()
		write.New.Claims, write.New.Former = nil, nil
	}
	if _, err := w.Ledger.Put(ctx, write); err != nil {
		return err
	}
	return unfinished(next.InstanceID, quiet)
}

func unfinished(instanceID string, until time.Time) error {
	return fault.New(fault.Retry, fmt.Errorf("instance %s, until %s: %w", instanceID, until.Format(time.RFC3339), ErrUnfinished))
}

// removeObjects removes the recorded objects in order, and adds to done. It leaves foreign objects, removes all others, and
// returns the conflicts at the end. sawLateLogin reports whether a login ended after its auth role was deleted.
func (w *work) removeObjects(ctx context.Context, done *Outcome) (sawLateLogin bool, err error) {
	own, foreign := ownPaths(w.record.InstanceID, w.record.Objects)
	roles, rest := split(own)
	var conflicts []error
	count := func(n int, err error) error {
		done.Cut += n
		if err != nil && fault.KindOf(err) == fault.Conflict {
			conflicts = append(conflicts, err)
			return nil
		}
		return err
	}
	logins := make([]*login, len(roles))
	for i, role := range roles {
		l, n, err := w.removeLogin(ctx, role.Path)
		if err := count(n, err); err != nil {
			return sawLateLogin, err
		}
		logins[i] = l
		done.Objects++
	}
	done.CutAt = w.Now()
	kept, err := w.deleteAll(ctx, rest)
	if err != nil {
		return sawLateLogin, err
	}
	done.Objects += len(rest) - len(kept)
	for _, l := range logins {
		if err := w.delete(ctx, grant.AccessListPath(l.mount.Path, w.record.InstanceID)); err != nil {
			return sawLateLogin, err
		}
		// A login in flight while the auth role was deleted made its entity after the first cut.
		n, err := w.cutOff(ctx, l)
		sawLateLogin = sawLateLogin || n > 0
		if err := count(n, err); err != nil {
			return sawLateLogin, err
		}
		if err := w.uncutError(l); err != nil {
			conflicts = append(conflicts, err)
		}
	}
	foreign = append(foreign, kept...)
	if len(foreign) > 0 {
		err = fmt.Errorf("instance %s: %w", w.record.InstanceID, errors.Join(foreign...))
	}
	return sawLateLogin, errors.Join(err, w.openError(conflicts))
}

// ownPaths returns the recorded objects whose paths have the form of an instance's. Anyone who can write the ledger could
// otherwise have this function delete another's objects. foreign are the conflicts, one for each other path.
func ownPaths(instanceID string, recorded []ledger.Object) (own []ledger.Object, foreign []error) {
	for _, o := range recorded {
		if grant.IsPathOf(instanceID, o.Kind, o.Path) {
			own = append(own, o)
			continue
		}
		foreign = append(foreign, fault.Conflictf("the ledger records %q as a %s of the instance, and the path has not that form: it is left alone; find out who wrote the record", o.Path, o.Kind))
	}
	return own, foreign
}

// split returns the auth roles among objects, and the other objects. After a change of the auth mount there are several auth
// roles.
func split(objects []ledger.Object) (logins, rest []ledger.Object) {
	for _, o := range objects {
		if o.Kind == grant.KindAuthRole {
			logins = append(logins, o)
			continue
		}
		rest = append(rest, o)
	}
	return logins, rest
}

// prefixesToRevoke returns the lease prefixes of the record's PKI roles and those recorded before: a removal that awaits its
// second cut has dropped the PKI roles from the record already.
func (w *work) prefixesToRevoke() []string {
	prefixes := slices.Concat(w.record.Revoking, leasePrefixes(w.record.Objects))
	slices.Sort(prefixes)
	return slices.Compact(prefixes)
}

// leasePrefixes returns the prefixes of the leases that PKI roles issued.
func leasePrefixes(objects []ledger.Object) []string {
	var prefixes []string
	for _, o := range objects {
		if mount, role, isRole := grant.SplitPKIRolePath(o.Path); isRole && o.Kind == grant.KindPKIRole {
			prefixes = append(prefixes, grant.LeasePrefixes(mount, role)...)
		}
	}
	return prefixes
}

// revoke starts the revocation of all leased certificates of a removed instance's PKI roles, and revokes its stored ones as far as the
// ledger has them. It comes last: however many certificates there are, the rest of the removal is done, and the names are free.
func (c *Converger) revoke(ctx context.Context, record *ledger.Record) error {
	err := c.revokeLeased(ctx, record)
	if c.Certificates != nil {
		err = errors.Join(err, c.Certificates.Revoke(ctx, record.InstanceID))
	}
	if err != nil {
		return fault.New(fault.Retry, fmt.Errorf("instance %s: %w: %w: %w", record.InstanceID, ErrCertificatesLeft, ErrUnfinished, err))
	}
	return nil
}

// revokeLeased starts the revocation of the leases with the record's prefixes.
func (c *Converger) revokeLeased(ctx context.Context, record *ledger.Record) error {
	if len(record.Revoking) == 0 {
		return nil
	}
	var err error
	if c.RevokeCertificates { // otherwise it was switched off since, and only the record is cleared
		err = errors.Join(sideBySide(record.Revoking, func(prefix string) error { return c.Cutter.RevokePrefix(ctx, prefix) })...)
	}
	if err == nil {
		next := *record
		next.Revoking = nil
		_, err = c.Ledger.Put(ctx, ledger.Write{Old: record, New: next, Owner: c.NewOwner()})
	}
	return err
}

// deleteAll deletes objects side by side. foreign are the conflicts, one for each object that was left alone.
func (w *work) deleteAll(ctx context.Context, objects []ledger.Object) (foreign []error, err error) {
	var failed []error
	for _, err := range sideBySide(objects, func(o ledger.Object) error { return w.deleteObject(ctx, o) }) {
		if err != nil && fault.KindOf(err) == fault.Conflict {
			foreign = append(foreign, err)
			continue
		}
		failed = append(failed, err)
	}
	return foreign, errors.Join(failed...)
}

// deleteObject deletes one recorded object. It reads a policy just before: one without our marker is not ours to delete.
func (w *work) deleteObject(ctx context.Context, o ledger.Object) error {
	if o.Kind == grant.KindPolicy {
		if isOurs, err := w.isOursToDelete(ctx, o.Path); !isOurs {
			return err
		}
	}
	return w.delete(ctx, o.Path)
}
