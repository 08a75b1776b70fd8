package lifecycle

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

// remove takes away all that the ledger names for an instance, by the recorded paths. The auth role goes first, so
// that nobody can log in any more, then the identity entity, which ends every live token at once; only then what
// the tokens could do. old is the record as it stands, nil for none; next the same with all that is to go.
func (c *Converger) remove(ctx context.Context, old *ledger.Record, next ledger.Record) (Outcome, error) {
	if next.State == ledger.Deleted && len(next.Objects) == 0 {
		return Outcome{Action: Unchanged}, nil
	}
	if err := c.take(old); err != nil {
		return Outcome{}, err
	}
	quiet := next.QuietUntil
	if quiet != nil && c.Now().Before(*quiet) {
		return Outcome{}, settling(next.InstanceID, *quiet)
	}
	w := &work{Converger: c, owner: c.NewOwner()}
	next.State = ledger.Deprovisioning
	var err error
	if w.record, err = c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: w.owner, KeepLease: true}); err != nil {
		return Outcome{}, err
	}
	done := Outcome{Action: Deprovisioned, Profile: next.Profile, FQDN: next.FQDN, Addresses: next.Addresses, Again: quiet != nil}
	for _, o := range next.Objects {
		done.Paths = append(done.Paths, o.Path)
	}
	late, err := w.removeObjects(ctx, &done)
	if err != nil {
		write := ledger.Write{Old: w.record, New: *w.record, Owner: w.owner}
		if fault.KindOf(err) == fault.Conflict {
			// All that could use the names is gone; what is left belongs to somebody else and must not hold them.
			write.Release = w.record.Names()
		}
		return done, c.failed(ctx, write, err)
	}
	if quiet == nil && (late || next.ExtraPolicies) {
		return done, w.settle(ctx)
	}
	next = *w.record
	next.QuietUntil = nil
	next.State, next.Objects, next.LastError, next.Attempts = ledger.Deleted, nil, "", 0
	next.Former, next.FormerRoleIDs = nil, w.record.RoleIDs()
	_, err = c.Ledger.Put(ctx, ledger.Write{Old: w.record, New: next, Owner: w.owner, Release: w.record.Names()})
	return done, err
}

// loginTime is how long a login can be under way: Vault ends every request after its default_max_request_duration.
// https://developer.hashicorp.com/vault/docs/configuration#default_max_request_duration
const loginTime = 95 * time.Second

// settle leaves the record open until no login can be under way any more that began before the auth role went. Such a
// login has read the role and makes its token when AWS has answered; the removal then runs once more and cuts it. It
// is waited for where a late token would have power, by policies other than the instance's own, or where one was seen.
func (w *work) settle(ctx context.Context) error {
	next := *w.record
	quiet := w.Now().Round(0).UTC().Add(loginTime)
	next.QuietUntil = &quiet
	next.Objects = slices.DeleteFunc(slices.Clone(next.Objects), func(o ledger.Object) bool { return o.Kind != grant.KindAuthRole })
	if _, err := w.Ledger.Put(ctx, ledger.Write{Old: w.record, New: next, Owner: w.owner, Release: w.record.Names()}); err != nil {
		return err
	}
	return settling(next.InstanceID, quiet)
}

func settling(instanceID string, until time.Time) error {
	return fault.New(fault.Retry, fmt.Errorf("instance %s, until %s: %w", instanceID, until.Format(time.RFC3339), ErrSettling))
}

// removeObjects removes in order. What belongs to somebody else is left, with all the rest removed. late tells that a
// login was seen that ended after the auth role was gone.
func (w *work) removeObjects(ctx context.Context, done *Outcome) (late bool, err error) {
	logins, rest := split(w.record.Objects)
	var conflict error // cuts and deletes what it can, and reports it at the end
	cut := func(n int, err error) error {
		done.Cut += n
		if err != nil && fault.KindOf(err) == fault.Conflict {
			conflict = err
			return nil
		}
		return err
	}
	for _, login := range logins {
		if err := cut(w.dropLogin(ctx, login.Path, login.RoleID)); err != nil {
			return late, err
		}
		done.Objects++
	}
	done.CutAt = w.Now()
	if w.RevokeCertificates {
		if err := w.revoke(ctx, rest); err != nil {
			return late, err
		}
	}
	foreign, err := w.deleteAll(ctx, rest)
	if err != nil {
		return late, err
	}
	done.Objects += len(rest) - len(foreign)
	for _, login := range logins {
		mount, id := loginOf(login.Path)
		if err := w.erase(ctx, "auth/"+mount+"/identity-accesslist/"+id); err != nil {
			return late, err
		}
		// A login that was under way while the auth role went made its entity after the first cut.
		n, err := w.cutOff(ctx, mount, w.aliases(w.record.RoleID(login.Path), id)...)
		late = late || n > 0
		if err := cut(n, err); err != nil {
			return late, err
		}
	}
	if len(foreign) > 0 {
		err = fmt.Errorf("instance %s: %w", w.record.InstanceID, errors.Join(foreign...))
	}
	return late, errors.Join(err, conflict)
}

// dropLogin deletes an auth role and cuts the tokens that came from it. The role_id, which can be the alias of its
// logins, is read and recorded first where a crash kept it from being: the role, once deleted, does not tell it.
func (w *work) dropLogin(ctx context.Context, path, roleID string) (int, error) {
	if roleID == "" {
		current, err := w.Vault.Read(ctx, path)
		if err != nil {
			return 0, err
		}
		roleID, _ = current["role_id"].(string)
	}
	if roleID != "" && roleID != w.record.RoleID(path) {
		if err := w.noteRoleID(ctx, path, roleID); err != nil {
			return 0, err
		}
	}
	if err := w.erase(ctx, path); err != nil {
		return 0, err
	}
	mount, id := loginOf(path)
	return w.cutOff(ctx, mount, w.aliases(roleID, id)...)
}

func (w *work) noteRoleID(ctx context.Context, path, roleID string) error {
	next := *w.record
	next.Objects = slices.Clone(next.Objects)
	next.SetRoleID(path, roleID)
	record, err := w.Ledger.Put(ctx, ledger.Write{Old: w.record, New: next, Owner: w.owner, KeepLease: true})
	if err == nil {
		w.record = record
	}
	return err
}

func (w *work) erase(ctx context.Context, path string) error {
	if err := w.held(); err != nil {
		return err
	}
	return w.Vault.Delete(ctx, path)
}

func (w *work) cutOff(ctx context.Context, mount string, aliases ...string) (int, error) {
	if err := w.held(); err != nil {
		return 0, err
	}
	return w.Cutter.CutOff(ctx, mount, aliases...)
}

// aliases are the names an instance's entities can have: each role_id its auth role had, or the instance ID where the
// mount's ec2_alias says so.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#configure-identity-integration
func (w *work) aliases(roleID, instanceID string) []string {
	names := append([]string{instanceID}, w.record.RoleIDs()...)
	if roleID != "" && !slices.Contains(names, roleID) {
		names = append(names, roleID)
	}
	return names
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

// loginOf takes the path of an auth role apart.
func loginOf(path string) (mount, instanceID string) {
	path = strings.TrimPrefix(path, "auth/")
	i := strings.LastIndex(path, "/role/")
	return path[:i], path[i+len("/role/"):]
}

// revoke revokes what the PKI roles issued, as far as it is leased.
func (w *work) revoke(ctx context.Context, objects []ledger.Object) error {
	var prefixes []string
	for _, o := range objects {
		if o.Kind == grant.KindPKIRole {
			i := strings.LastIndex(o.Path, "/roles/")
			mount, role := o.Path[:i], o.Path[i+len("/roles/"):]
			prefixes = append(prefixes, mount+"/issue/"+role, mount+"/sign/"+role)
		}
	}
	return errors.Join(sideBySide(prefixes, func(prefix string) error {
		if err := w.held(); err != nil {
			return err
		}
		return w.Cutter.RevokePrefix(ctx, prefix)
	})...)
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
