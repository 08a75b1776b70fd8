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
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// door is an auth role of the instance's and what is known of the identities that came in by it.
type door struct {
	mount vault.LoginMount
	cut   vault.Cut
}

// closeDoor deletes an auth role and cuts the tokens that came from it. It returns what a later cut needs, and how many
// entities were cut.
func (w *work) closeDoor(ctx context.Context, path string) (*door, int, error) {
	mount := strings.TrimSuffix(strings.TrimPrefix(path, "auth/"), "/role/"+w.record.InstanceID)
	m, err := w.Cutter.LoginMount(ctx, mount)
	if err != nil {
		return nil, 0, errors.Join(err, w.erase(ctx, path)) // no new login, whatever is to be found out
	}
	d := &door{mount: m, cut: vault.Cut{InstanceID: w.record.InstanceID, Sure: []string{w.record.InstanceID}}}
	if w.aliasIsRoleID(m) || w.record.RoleID(path) == "" {
		// Vault's own word for the role_id; the ledger's may be anybody's. The role, once deleted, does not tell it.
		current, err := w.Vault.Read(ctx, path)
		if err != nil {
			return nil, 0, err
		}
		w.learnLogin(current)
		if roleID, _ := current["role_id"].(string); roleID != "" {
			d.cut.Sure = append(d.cut.Sure, roleID)
			if err := w.noteRoleID(ctx, path, roleID); err != nil {
				return nil, 0, err
			}
		}
	}
	d.cut.Recorded = slices.DeleteFunc(w.record.RoleIDs(), func(id string) bool { return slices.Contains(d.cut.Sure, id) })
	if err := w.erase(ctx, path); err != nil {
		return nil, 0, err
	}
	n, err := w.cutOff(ctx, d)
	return d, n, err
}

// learnLogin notes how the instance logs in, and how long its tokens live, by its auth role: a record from before these
// were noted says neither. Of several auth roles no one says it for all.
func (w *work) learnLogin(role map[string]any) {
	logins, _ := split(w.record.Objects)
	if w.record.LoginType != "" || len(logins) != 1 {
		return
	}
	w.record.LoginType, _ = role["auth_type"].(string)
	w.record.TokenMaxTTL = seconds(grant.SecondsOf(role["token_max_ttl"]))
}

// dropLogin closes a door of an instance that keeps another.
func (w *work) dropLogin(ctx context.Context, path string) (int, error) {
	_, n, err := w.closeDoor(ctx, path)
	return n, err
}

// replaceLogin deletes an auth role that Vault cannot change in place. Tokens from another way to log in are cut. Those of
// the same way stay, since the role that follows gives the same; their alias stays recorded.
func (w *work) replaceLogin(ctx context.Context, wanted grant.Object, current map[string]any) error {
	if grant.ChangesType(current, wanted) {
		_, err := w.dropLogin(ctx, wanted.Path)
		return err
	}
	roleID, _ := current["role_id"].(string)
	if err := w.noteRoleID(ctx, wanted.Path, roleID); err != nil {
		return err
	}
	return w.erase(ctx, wanted.Path)
}

// aliasIsRoleID reports whether an identity of the instance's may be named by the role_id of its auth role. While a grant
// is made, the record says how the instance is to log in and not how it did.
func (w *work) aliasIsRoleID(m vault.LoginMount) bool {
	return w.record.State != ledger.Deprovisioning || w.record.LoginType != "ec2" || m.EC2Alias != "instance_id"
}

// hidesTokens returns why the tokens of an instance may be out of the reach of a cut; nil when the mount's settings name
// an identity after each instance, or after its auth role.
func (w *work) hidesTokens(m vault.LoginMount) error {
	const remedy = "run the Vault setup with -set-alias, or use an auth mount of this program's own"
	kind := w.record.LoginType
	switch {
	case m.Unread != nil:
		return fmt.Errorf("whether the tokens of instance %s are cut cannot be told: %w", w.record.InstanceID, m.Unread)
	case kind != "iam" && m.EC2Alias != "instance_id" && m.EC2Alias != "role_id":
		return fault.Conflictf("auth/%s has ec2_alias=%s: the identity behind the tokens of instance %s cannot be found; %s", m.Path, m.EC2Alias, w.record.InstanceID, remedy)
	case kind != "ec2" && m.IAMAlias != "role_id":
		return fault.Conflictf("auth/%s has iam_alias=%s: the identity behind the tokens of instance %s cannot be found; %s", m.Path, m.IAMAlias, w.record.InstanceID, remedy)
	}
	return nil
}

// isCut returns an error while tokens of the instance may live that no cut reaches.
func (w *work) isCut(d *door) error {
	if until := w.record.UncutUntil; until != nil {
		if !w.Now().Before(*until) {
			return nil // the last of them has ended by itself
		}
		return fault.Conflictf("a token of instance %s that could not be cut may live until %s", w.record.InstanceID, until.Format(time.RFC3339))
	}
	return w.hidesTokens(d.mount)
}

// longestToken is the longest that a token can live of which the record does not say it: Vault's own standard bound.
// https://developer.hashicorp.com/vault/docs/configuration#max_lease_ttl
const longestToken = 32 * 24 * time.Hour

// untilDead notes in the record until when tokens may live that were not cut, and returns why the removal is not done;
// nil when they have ended by now.
func (w *work) untilDead(conflicts []error) error {
	until := w.record.UncutUntil
	if len(conflicts) == 0 || until != nil && !w.Now().Before(*until) {
		return nil
	}
	err := errors.Join(conflicts...)
	if until == nil && fault.KindOf(err) == fault.Conflict {
		longest := time.Duration(w.record.TokenMaxTTL) * time.Second
		if longest == 0 {
			longest = longestToken
		}
		end := w.Now().Round(0).UTC().Add(longest)
		w.record.UncutUntil = &end
		err = fmt.Errorf("no new login is possible and all else is removed, but a live token may not be cut; it ends by %s at the latest, and the removal is done then: %w", end.Format(time.RFC3339), err)
	}
	return err
}

func (w *work) noteRoleID(ctx context.Context, path, roleID string) error {
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

func (w *work) erase(ctx context.Context, path string) error {
	if err := w.held(); err != nil {
		return err
	}
	return w.Vault.Delete(ctx, path)
}

func (w *work) cutOff(ctx context.Context, d *door) (int, error) {
	if err := w.held(); err != nil {
		return 0, err
	}
	return w.Cutter.CutOff(ctx, d.mount, d.cut)
}
