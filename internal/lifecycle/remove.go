package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// remove takes away all that the ledger names for an instance, by the recorded paths. The auth role goes first, so
// that nobody can log in any more, then the identity entity, which ends every live token at once; only then what
// the tokens could do.
func (c *Converger) remove(ctx context.Context, old *ledger.Record) (Outcome, error) {
	if old.State == ledger.Deleted {
		return Outcome{Action: Unchanged}, nil
	}
	if err := c.take(old); err != nil {
		return Outcome{}, err
	}
	w := &work{Converger: c, owner: c.NewOwner()}
	next := *old
	next.State = ledger.Deprovisioning
	var err error
	if w.record, err = c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: w.owner, KeepLease: true}); err != nil {
		return Outcome{}, err
	}
	done := Outcome{Action: Deprovisioned, Profile: old.Profile, FQDN: old.FQDN}
	if err := w.removeObjects(ctx, &done); err != nil {
		write := ledger.Write{Old: w.record, New: *w.record, Owner: w.owner}
		if fault.KindOf(err) == fault.Conflict {
			// All that could use the names is gone; what is left belongs to somebody else and must not hold them.
			write.Release = w.record.Names()
		}
		return done, c.failed(ctx, write, err)
	}
	next = *w.record
	next.State, next.Objects, next.LastError, next.Attempts = ledger.Deleted, nil, "", 0
	next.Former = nil
	_, err = c.Ledger.Put(ctx, ledger.Write{Old: w.record, New: next, Owner: w.owner, Release: w.record.Names()})
	return done, err
}

// removeObjects removes in order. What belongs to somebody else is left, with all the rest removed.
func (w *work) removeObjects(ctx context.Context, done *Outcome) error {
	var logins, rest []ledger.Object // several logins where the auth mount was changed
	for _, o := range w.record.Objects {
		if o.Kind == grant.KindAuthRole {
			logins = append(logins, o)
			continue
		}
		rest = append(rest, o)
	}
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
			return err
		}
		done.Objects++
	}
	if w.RevokeCertificates {
		if err := w.revoke(ctx, rest); err != nil {
			return err
		}
	}
	foreign, err := w.deleteAll(ctx, rest)
	if err != nil {
		return err
	}
	done.Objects += len(rest) - len(foreign)
	for _, login := range logins {
		mount, id := loginOf(login.Path)
		if err := w.erase(ctx, "auth/"+mount+"/identity-accesslist/"+id); err != nil {
			return err
		}
		// A login that was under way while the auth role went made its entity after the first cut.
		if err := cut(w.cutOff(ctx, mount, aliases(w.record.RoleID(login.Path), id)...)); err != nil {
			return err
		}
	}
	if len(foreign) > 0 {
		err = fmt.Errorf("instance %s: %w", w.record.InstanceID, errors.Join(foreign...))
	}
	return errors.Join(err, conflict)
}

// dropLogin deletes an auth role and cuts the tokens that came from it. The role_id, which can be the alias of its
// logins, is read and recorded first where a crash kept it from being: the role, once deleted, does not tell it.
func (w *work) dropLogin(ctx context.Context, path, roleID string) (int, error) {
	if roleID == "" {
		current, err := w.Vault.Read(ctx, path)
		if err != nil {
			return 0, err
		}
		if roleID, _ = current["role_id"].(string); roleID != "" {
			if err := w.noteRoleID(ctx, path, roleID); err != nil {
				return 0, err
			}
		}
	}
	if err := w.erase(ctx, path); err != nil {
		return 0, err
	}
	mount, id := loginOf(path)
	return w.cutOff(ctx, mount, aliases(roleID, id)...)
}

func (w *work) noteRoleID(ctx context.Context, path, roleID string) error {
	next := *w.record
	next.Objects = slices.Clone(next.Objects)
	for i := range next.Objects {
		if next.Objects[i].Path == path {
			next.Objects[i].RoleID = roleID
		}
	}
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

// aliases are the names an instance's entity can have: the role_id, or the instance ID where the mount's
// ec2_alias says so. https://developer.hashicorp.com/vault/api-docs/auth/aws#configure-identity-integration
func aliases(roleID, instanceID string) []string {
	if roleID == "" {
		return []string{instanceID}
	}
	return []string{roleID, instanceID}
}

// loginOf takes the path of an auth role apart.
func loginOf(path string) (mount, instanceID string) {
	path = strings.TrimPrefix(path, "auth/")
	i := strings.LastIndex(path, "/role/")
	return path[:i], path[i+len("/role/"):]
}

// revoke revokes what the PKI roles issued, as far as it is leased.
func (w *work) revoke(ctx context.Context, objects []ledger.Object) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, o := range objects {
		if o.Kind != grant.KindPKIRole {
			continue
		}
		i := strings.LastIndex(o.Path, "/roles/")
		mount, role := o.Path[:i], o.Path[i+len("/roles/"):]
		for _, by := range []string{"/issue/", "/sign/"} {
			group.Go(func() error {
				if err := w.held(); err != nil {
					return err
				}
				return w.Cutter.RevokePrefix(ctx, mount+by+role)
			})
		}
	}
	return group.Wait()
}

// deleteAll deletes side by side; foreign are the conflicts, one for each object that was left alone.
func (w *work) deleteAll(ctx context.Context, objects []ledger.Object) (foreign []error, err error) {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	for _, o := range objects {
		group.Go(func() error {
			err := w.deleteObject(ctx, o)
			if err != nil && fault.KindOf(err) == fault.Conflict {
				mu.Lock()
				defer mu.Unlock()
				foreign = append(foreign, err)
				return nil
			}
			return err
		})
	}
	err = group.Wait()
	return foreign, err
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
		if !w.ours(current, w.record.InstanceID) && !w.Adopt {
			return fault.Conflictf("%s does not bear the marker of this deployment (%s) any more and is left alone", o.Path, w.Realm.Deployment)
		}
	}
	return w.erase(ctx, o.Path)
}
