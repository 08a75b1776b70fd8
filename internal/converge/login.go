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
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// door is an auth role of the instance's and what is known of the identities that came in by it.
type door struct {
	mount vault.LoginMount
	cut   vault.Cut
	// kind is the role's auth_type; empty where neither Vault nor the ledger says it.
	kind string
}

// closeDoor deletes an auth role and cuts the tokens that came from it. It returns what a later cut needs, and how many
// entities were cut.
func (w *work) closeDoor(ctx context.Context, path string) (*door, int, error) {
	mount := strings.TrimSuffix(strings.TrimPrefix(path, "auth/"), "/role/"+w.record.InstanceID)
	m, err := w.Cutter.LoginMount(ctx, mount)
	if err != nil {
		return nil, 0, err
	}
	d := &door{mount: m, cut: vault.Cut{InstanceID: w.record.InstanceID, Sure: []string{w.record.InstanceID}}, kind: w.record.LoginType}
	// Vault's own word for the role_id; the ledger's may be anybody's. The role, once deleted, does not tell it.
	current, err := w.Vault.Read(ctx, path)
	if err != nil {
		return nil, 0, err
	}
	before := 0
	if roleID, _ := current["role_id"].(string); roleID != "" {
		w.learnLogin(current)
		d.kind, _ = current["auth_type"].(string)
		d.cut.Sure = append(d.cut.Sure, roleID)
		if err := w.noteRoleID(ctx, path, roleID); err != nil {
			return nil, 0, err
		}
		if !d.byInstanceID() {
			// A run that ends between the role's deletion and the cut behind it leaves nothing that shows whose the alias is.
			if before, err = w.Cutter.CutOff(ctx, m, vault.Cut{InstanceID: d.cut.InstanceID, Sure: []string{roleID}}); err != nil && fault.KindOf(err) != fault.Conflict {
				return nil, before, err
			}
		}
	}
	d.cut.Recorded = slices.DeleteFunc(w.record.RoleIDs(), func(id string) bool { return slices.Contains(d.cut.Sure, id) })
	if err := w.erase(ctx, path); err != nil {
		return nil, before, err
	}
	n, err := w.cutOff(ctx, d)
	if d.byInstanceID() { // what logs in meanwhile has no other alias
		d.cut.Sure, d.cut.Recorded = d.cut.Sure[:1], nil
	}
	return d, before + n, err
}

// byInstanceID reports whether the alias of a login by the door is the instance ID.
func (d *door) byInstanceID() bool { return d.kind == "ec2" && d.mount.EC2Alias == "instance_id" }

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

// dropLogin closes a door of an instance that keeps another, or gets one. Tokens that no cut reaches are noted: a removal
// waits for their end.
func (w *work) dropLogin(ctx context.Context, path string) error {
	d, _, err := w.closeDoor(ctx, path)
	if err != nil && fault.KindOf(err) != fault.Conflict {
		return err
	}
	if err != nil || w.hidesTokens(d) != nil {
		w.noteUncut()
	}
	return nil
}

// hidesTokens returns why the tokens that came in by a door may be out of the reach of a cut; nil when the mount's settings
// name an identity after each instance, or after its auth role.
func (w *work) hidesTokens(d *door) error {
	const remedy = "run the Vault setup with -set-alias, or use an auth mount of this program's own"
	m := d.mount
	switch {
	case m.Unread != nil:
		return fmt.Errorf("whether the tokens of instance %s are cut cannot be told: %w", w.record.InstanceID, m.Unread)
	case d.kind != "iam" && m.EC2Alias != "instance_id" && m.EC2Alias != "role_id":
		return fault.Conflictf("auth/%s has ec2_alias=%s: the identity behind the tokens of instance %s cannot be found; %s", m.Path, m.EC2Alias, w.record.InstanceID, remedy)
	case d.kind != "ec2" && m.IAMAlias != "role_id":
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
	return w.hidesTokens(d)
}

// longestToken is the longest that a token can live of which the record does not say it: Vault's own standard bound.
// https://developer.hashicorp.com/vault/docs/configuration#max_lease_ttl
const longestToken = 32 * 24 * time.Hour

// noteUncut notes in the record until when a token may live that was not cut, and returns it.
func (w *work) noteUncut() time.Time {
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

// untilDead notes in the record until when tokens may live that were not cut, and returns why the removal is not done;
// nil when they have ended by now.
func (w *work) untilDead(conflicts []error) error {
	until := w.record.UncutUntil
	if len(conflicts) == 0 || until != nil && !w.Now().Before(*until) {
		return nil
	}
	err := errors.Join(conflicts...)
	if until == nil && fault.KindOf(err) == fault.Conflict {
		end := w.noteUncut()
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
