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
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// login is an auth role of the instance, with the identities of its logins.
type login struct {
	mount vault.LoginMount
	cut   vault.Cut
	// authType is the role's auth_type; empty where neither Vault nor the ledger has it.
	authType string
}

// removeLogin deletes an auth role and cuts the tokens that came from it. It returns the login, for a later cut, and the
// number of entities cut.
func (w *work) removeLogin(ctx context.Context, path string) (*login, int, error) {
	mount, _, _ := grant.SplitAuthRolePath(path)
	m, err := w.batch.loginMount(ctx, w.Cutter, mount)
	if err != nil {
		return nil, 0, err
	}
	id := w.record.InstanceID
	l := &login{mount: m, cut: vault.Cut{InstanceID: id, Sure: []string{id}}, authType: w.record.LoginType}
	// The role_id of Vault's answer is proof; a recorded one could have been written by anyone who can write the ledger.
	current, err := w.readLogin(ctx, l, path)
	if err != nil {
		return nil, 0, err
	}
	before := 0
	if roleID, _ := current["role_id"].(string); roleID != "" {
		w.recordLogin(current)
		l.authType, _ = current["auth_type"].(string)
		l.cut.Sure = append(l.cut.Sure, roleID)
		if err := w.recordRoleID(ctx, path, roleID); err != nil {
			return nil, 0, err
		}
		if !l.hasInstanceAlias() {
			// Only the role proves that the alias is the instance's. So the cut comes before the deletion, after which the run may
			// break off.
			if before, err = w.Cutter.CutOff(ctx, m, vault.Cut{InstanceID: id, Sure: []string{roleID}}); err != nil && fault.KindOf(err) != fault.Conflict {
				return nil, before, err
			}
		}
	}
	l.cut.Recorded = slices.DeleteFunc(w.record.RoleIDs(), func(id string) bool { return slices.Contains(l.cut.Sure, id) })
	if err := w.delete(ctx, path); err != nil {
		return nil, before, err
	}
	n, err := w.cutOff(ctx, l)
	if l.hasInstanceAlias() { // a login in flight has no other alias
		l.cut.Sure, l.cut.Recorded = l.cut.Sure[:1], nil
	}
	return l, before + n, err
}

// hasInstanceAlias reports whether the alias of a login by the auth role is the instance ID.
func (l *login) hasInstanceAlias() bool {
	return l.authType == "ec2" && l.mount.EC2Alias == "instance_id"
}

// recordLogin sets the record's login type and token lifetime from its auth role: a record of an earlier version lacks both.
// With several auth roles it sets nothing, since they may differ.
func (w *work) recordLogin(role map[string]any) {
	logins, _ := split(w.record.Objects)
	if w.record.LoginType != "" || len(logins) != 1 {
		return
	}
	w.record.LoginType, _ = role["auth_type"].(string)
	w.record.TokenMaxTTL = seconds(grant.SecondsOf(role["token_max_ttl"]))
}

// dropLogin removes an auth role of an instance that keeps another, or gets one. It records until when tokens may live that
// no cut reaches: a removal waits until then.
func (w *work) dropLogin(ctx context.Context, path string) error {
	l, _, err := w.removeLogin(ctx, path)
	if err != nil && fault.KindOf(err) != fault.Conflict {
		return err
	}
	if err != nil || w.hiddenTokensError(l) != nil {
		w.recordUncut()
	}
	return nil
}

// hiddenTokensError returns why a cut may not reach the tokens of a login; nil if the mount's settings name an identity
// after each instance, or after its auth role.
func (w *work) hiddenTokensError(l *login) error {
	const remedy = "run vault-ec2 setup with --set-alias, or use an auth mount of this program's own"
	m := l.mount
	switch {
	case m.ConfigErr != nil:
		return fmt.Errorf("it is unknown whether the tokens of instance %s are cut: %w", w.record.InstanceID, m.ConfigErr)
	case l.authType != "iam" && m.EC2Alias != "instance_id" && m.EC2Alias != "role_id":
		return fault.Conflictf("auth/%s has ec2_alias=%s: the identity behind the tokens of instance %s cannot be found; %s", m.Path, m.EC2Alias, w.record.InstanceID, remedy)
	case l.authType != "ec2" && m.IAMAlias != "role_id":
		return fault.Conflictf("auth/%s has iam_alias=%s: the identity behind the tokens of instance %s cannot be found; %s", m.Path, m.IAMAlias, w.record.InstanceID, remedy)
	}
	return nil
}

// uncutError returns an error while tokens of the instance may live that no cut reaches.
func (w *work) uncutError(l *login) error {
	if until := w.record.UncutUntil; until != nil {
		if !w.Now().Before(*until) {
			return nil // the last of them has expired
		}
		return fault.Conflictf("a token of instance %s that could not be cut may live until %s", w.record.InstanceID, until.Format(time.RFC3339))
	}
	return w.hiddenTokensError(l)
}

// longestToken is the longest lifetime of a token for which the record has none: Vault's default bound.
// https://developer.hashicorp.com/vault/docs/configuration#max_lease_ttl
const longestToken = 32 * 24 * time.Hour

// recordUncut sets in the record until when an uncut token may live, and returns that time.
func (w *work) recordUncut() time.Time {
	longest := time.Duration(w.record.TokenMaxTTL) * time.Second
	if longest == 0 {
		longest = longestToken
	}
	end := w.Now().Round(0).UTC().Add(longest)
	if until := w.record.UncutUntil; until != nil && until.After(end) {
		end = *until
	}
	w.record.UncutUntil = &end
	return end
}

// openError returns the error of a removal whose cut met conflicts, and records until when uncut tokens may live. It returns
// nil if there is no conflict, or those tokens have expired.
func (w *work) openError(conflicts []error) error {
	until := w.record.UncutUntil
	hasExpired := until != nil && !w.Now().Before(*until)
	if len(conflicts) == 0 || hasExpired {
		return nil
	}
	err := errors.Join(conflicts...)
	if until == nil && fault.KindOf(err) == fault.Conflict {
		end := w.recordUncut()
		err = fmt.Errorf("no new login is possible and all other objects are removed, but a live token may not be cut; it ends by %s at the latest, and the removal is done then: %w", end.Format(time.RFC3339), err)
	}
	return err
}

// recordRoleID writes the role_id of an auth role to the record.
func (w *work) recordRoleID(ctx context.Context, path, roleID string) error {
	if roleID == w.record.RoleID(path) {
		return nil
	}
	next := *w.record
	next.Objects = slices.Clone(next.Objects)
	next.SetRoleID(path, roleID)
	record, err := w.Ledger.Put(ctx, ledger.Write{Old: w.record, New: next, Owner: w.owner, KeepLease: true})
	if err == nil {
		w.record = record
	}
	return err
}

// delete deletes one path under the lease.
func (w *work) delete(ctx context.Context, path string) error {
	if err := w.checkLease(); err != nil {
		return err
	}
	return w.Vault.Delete(ctx, path)
}

// cutOff cuts the tokens of a login under the lease, and returns the number of entities cut.
func (w *work) cutOff(ctx context.Context, l *login) (int, error) {
	if err := w.checkLease(); err != nil {
		return 0, err
	}
	return w.Cutter.CutOff(ctx, l.mount, l.cut)
}
