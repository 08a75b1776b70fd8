package converge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// removal is what is to be removed of an instance.
type removal struct {
	old  *ledger.Record // as it stands; nil for none
	next ledger.Record  // the same with all that is to go
	// keepsNames holds its names until the last certificate with them has ended: the instance lives on.
	keepsNames bool
}

// remove takes away all that the ledger names for an instance, by the recorded paths. The auth role goes first, so
// that nobody can log in any more, then the identity entity, which ends every live token at once; only then what
// the tokens could do. The record says that it is done only when the tokens are cut.
func (c *Converger) remove(ctx context.Context, r removal) (Outcome, error) {
	next := r.next
	if next.State == ledger.Deleted && len(next.Objects) == 0 {
		return c.finish(ctx, r)
	}
	if err := c.take(r.old); err != nil {
		return Outcome{}, err
	}
	quiet := next.QuietUntil
	if quiet != nil && c.Now().Before(*quiet) {
		return Outcome{}, settling(next.InstanceID, *quiet)
	}
	w := &work{Converger: c, owner: c.NewOwner()}
	if next.State != ledger.Deprovisioning && next.UncutUntil != nil && !c.Now().Before(*next.UncutUntil) {
		next.UncutUntil = nil // of a way to log in that the instance had before: those tokens have ended
	}
	next.State = ledger.Deprovisioning
	if r.keepsNames {
		next.MakeFormer(next.Held()) // until when is known once nothing can issue a certificate any more
	}
	var err error
	if w.record, err = c.Ledger.Put(ctx, ledger.Write{Old: r.old, New: next, Owner: w.owner, KeepLease: true}); err != nil {
		return Outcome{}, err
	}
	done := Outcome{Action: Deprovisioned, Profile: next.Profile, FQDN: next.FQDN, Addresses: next.Addresses, SecondCut: quiet != nil}
	for _, o := range next.Objects {
		done.Paths = append(done.Paths, o.Path)
	}
	late, err := w.removeObjects(ctx, &done)
	if err != nil {
		done.Action = "" // it is not done
		write := ledger.Write{Old: w.record, New: *w.record, Owner: w.owner}
		if fault.KindOf(err) == fault.Conflict && !r.keepsNames {
			// All that could use the names is gone; what is left belongs to somebody else and must not hold them.
			write.Release = w.record.Names()
		}
		return done, c.failed(ctx, write, err)
	}
	if quiet == nil && (late || next.ExtraPolicies) {
		return done, w.settle(ctx, r)
	}
	record, err := w.Ledger.Put(ctx, w.done(r))
	if err != nil {
		return done, err
	}
	return done, c.revoke(ctx, record)
}

// done is the write by which a removal ends: names are given up, and what was issued is noted as to be revoked.
func (w *work) done(r removal) ledger.Write {
	next := *w.record
	if w.RevokeCertificates {
		next.Revoking = w.toRevoke()
	}
	next.FormerRoleIDs = w.record.RoleIDs()
	if next.UncutUntil != nil {
		next.FormerRoleIDs = nil // what they led to could not be shown to be the instance's, and has no token by now
	}
	next.QuietUntil, next.UncutUntil = nil, nil
	next.State, next.Objects, next.LastError, next.Attempts = ledger.Deleted, nil, "", 0
	write := ledger.Write{Old: w.record, Owner: w.owner}
	next.Claims = nil
	if r.keepsNames {
		next.DateFormer(w.lastCertificate(next))
	} else {
		next.Former = nil
		write.Release = w.record.Names()
	}
	write.New = next
	return write
}

// finish does what a removal left to do later: names of an instance that lived on, and the rest of a revocation.
func (c *Converger) finish(ctx context.Context, r removal) (Outcome, error) {
	record := r.old
	if record == nil {
		return Outcome{Action: Unchanged}, nil
	}
	if names := record.Names(); len(names) > 0 && !r.keepsNames {
		next := *record
		next.Former, next.Claims = nil, nil
		var err error
		if record, err = c.Ledger.Put(ctx, ledger.Write{Old: record, New: next, Owner: c.NewOwner(), Release: names}); err != nil {
			return Outcome{}, err
		}
	}
	return Outcome{Action: Unchanged}, c.revoke(ctx, record)
}

// LoginTime is how long a login can be under way: Vault ends every request after its default_max_request_duration.
// https://developer.hashicorp.com/vault/docs/configuration#default_max_request_duration
const LoginTime = 95 * time.Second

// settle leaves the record open until no login can be under way any more that began before the auth role went. Such a
// login has read the role and makes its token when AWS has answered; the removal then runs once more and cuts it. It
// is waited for where a late token would have power, by policies other than the instance's own, or where one was seen.
func (w *work) settle(ctx context.Context, r removal) error {
	next := *w.record
	quiet := w.Now().Round(0).UTC().Add(LoginTime)
	next.QuietUntil = &quiet
	next.Objects = slices.DeleteFunc(slices.Clone(next.Objects), func(o ledger.Object) bool { return o.Kind != grant.KindAuthRole })
	if w.RevokeCertificates {
		next.Revoking = w.toRevoke()
	}
	write := ledger.Write{Old: w.record, New: next, Owner: w.owner}
	if !r.keepsNames {
		write.Release = w.record.Names()
		write.New.Claims, write.New.Former = nil, nil
	}
	if _, err := w.Ledger.Put(ctx, write); err != nil {
		return err
	}
	return settling(next.InstanceID, quiet)
}

func settling(instanceID string, until time.Time) error {
	return fault.New(fault.Retry, fmt.Errorf("instance %s, until %s: %w", instanceID, until.Format(time.RFC3339), ErrUnfinished))
}

// lastCertificate returns when the last certificate with the names of a record has ended, if none is issued from now on;
// zero where the record does not say how long they are good.
func (c *Converger) lastCertificate(r ledger.Record) time.Time {
	if r.CertificateTTL == 0 && len(issuedBy(r.Objects)) > 0 {
		return time.Time{}
	}
	return c.Now().Round(0).UTC().Add(time.Duration(r.CertificateTTL) * time.Second)
}

// removeObjects removes in order. What belongs to somebody else is left, with all the rest removed. late tells that a
// login was seen that ended after the auth role was gone.
func (w *work) removeObjects(ctx context.Context, done *Outcome) (late bool, err error) {
	own, foreign := w.ownPaths()
	logins, rest := split(own)
	var conflicts []error // cuts and deletes what it can, and reports them at the end
	cut := func(n int, err error) error {
		done.Cut += n
		if err != nil && fault.KindOf(err) == fault.Conflict {
			conflicts = append(conflicts, err)
			return nil
		}
		return err
	}
	doors := make([]*door, len(logins))
	for i, login := range logins {
		d, n, err := w.closeDoor(ctx, login.Path)
		if err := cut(n, err); err != nil {
			return late, err
		}
		doors[i] = d
		done.Objects++
	}
	done.CutAt = w.Now()
	others, err := w.deleteAll(ctx, rest)
	if err != nil {
		return late, err
	}
	done.Objects += len(rest) - len(others)
	for _, d := range doors {
		if err := w.erase(ctx, "auth/"+d.mount.Path+"/identity-accesslist/"+w.record.InstanceID); err != nil {
			return late, err
		}
		// A login that was under way while the auth role went made its entity after the first cut.
		n, err := w.cutOff(ctx, d)
		late = late || n > 0
		if err := cut(n, err); err != nil {
			return late, err
		}
		if err := w.isCut(d); err != nil {
			conflicts = append(conflicts, err)
		}
	}
	foreign = append(foreign, others...)
	if len(foreign) > 0 {
		err = fmt.Errorf("instance %s: %w", w.record.InstanceID, errors.Join(foreign...))
	}
	return late, errors.Join(err, w.untilDead(conflicts))
}

// ownPaths takes the objects whose paths are the instance's by their form out of the record: whoever can write the ledger
// must not have this function delete another's. foreign are the conflicts, one for each of the others.
func (w *work) ownPaths() (own []ledger.Object, foreign []error) {
	for _, o := range w.record.Objects {
		if grant.IsPathOf(w.record.InstanceID, o.Kind, o.Path) {
			own = append(own, o)
			continue
		}
		foreign = append(foreign, fault.Conflictf("the ledger records %q as a %s of the instance's, and its path has not that form: it is left alone; look who wrote the record", o.Path, o.Kind))
	}
	return own, foreign
}

// split takes the auth roles, several where the auth mount was changed, from what they grant.
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

// toRevoke returns the lease prefixes of what the record's PKI roles issued, with those noted before: a removal that settled
// has dropped the PKI roles from the record already.
func (w *work) toRevoke() []string {
	prefixes := slices.Concat(w.record.Revoking, issuedBy(w.record.Objects))
	slices.Sort(prefixes)
	return slices.Compact(prefixes)
}

// issuedBy are the lease prefixes of what PKI roles issued.
func issuedBy(objects []ledger.Object) []string {
	var prefixes []string
	for _, o := range objects {
		if i := strings.LastIndex(o.Path, "/roles/"); i > 0 && o.Kind == grant.KindPKIRole {
			mount, role := o.Path[:i], o.Path[i+len("/roles/"):]
			prefixes = append(prefixes, mount+"/issue/"+role, mount+"/sign/"+role)
		}
	}
	return prefixes
}

// revoke starts the revocation of what the PKI roles of a removed instance issued, as far as it is leased. It comes last:
// however many certificates there are, all else is done, and names are free.
func (c *Converger) revoke(ctx context.Context, record *ledger.Record) error {
	if len(record.Revoking) == 0 {
		return nil
	}
	var err error
	if c.RevokeCertificates { // else it was switched off since, and the record only forgets
		err = errors.Join(sideBySide(record.Revoking, func(prefix string) error { return c.Cutter.RevokePrefix(ctx, prefix) })...)
	}
	if err == nil {
		next := *record
		next.Revoking = nil
		_, err = c.Ledger.Put(ctx, ledger.Write{Old: record, New: next, Owner: c.NewOwner()})
	}
	if err != nil {
		return fault.New(fault.Retry, fmt.Errorf("instance %s: its certificates are not all revoked: %w: %w", record.InstanceID, ErrUnfinished, err))
	}
	return nil
}

// deleteAll deletes side by side; foreign are the conflicts, one for each object that was left alone.
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

// deleteObject deletes one recorded object. A policy is read once more just before: one that does not bear our
// marker now is not ours to delete.
func (w *work) deleteObject(ctx context.Context, o ledger.Object) error {
	if o.Kind == grant.KindPolicy {
		current, err := w.Vault.Read(ctx, o.Path)
		if err != nil {
			return err
		}
		if current == nil {
			return nil
		}
		if !w.ours(current, w.record.InstanceID) {
			return fault.Conflictf("%s does not bear the marker of this deployment (%s) any more and is left alone", o.Path, w.Realm.Deployment)
		}
	}
	return w.erase(ctx, o.Path)
}
