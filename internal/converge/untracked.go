package converge

import (
	"context"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ownership"
)

// ownUntracked returns the untracked objects of a request that are this deployment's, as objects to record and to remove. The
// others stay, even with CONFLICT_MODE=adopt, which is only for making grants.
func (c *Converger) ownUntracked(ctx context.Context, req Request, old *ledger.Record) ([]ledger.Object, error) {
	if len(req.Untracked) == 0 {
		return nil, nil
	}
	mounts := c.Profiles.Mounts()
	objects := make([]ownership.Object, len(req.Untracked))
	for i, path := range req.Untracked {
		objects[i] = ownership.Object{Kind: grant.KindOf(path, mounts), Path: path}
	}
	if err := c.readAll(ctx, objects); err != nil {
		return nil, err
	}
	evidence := ownership.OfUntracked(c.instance(req.ID), old, objects)
	var out []ledger.Object
	for _, o := range objects {
		owner := evidence.OwnerOf(o)
		if o.Kind == grant.KindAuthRole && o.Data == nil {
			owner = evidence.OwnerOfLeftovers() // an identity entity or an accesslist entry is all there is
		}
		isRecorded := old != nil && (old.Has(o.Path) || old.Retains(o.Path))
		if isRecorded || owner != ownership.Ours {
			continue
		}
		own := ledger.Object{Kind: o.Kind, Path: o.Path, Retain: c.Profiles.Retains(o.Path)} // by the profile: the record is lost
		if o.Kind == grant.KindAuthRole {
			own.RoleID, _ = o.Data["role_id"].(string)
		}
		out = append(out, own)
	}
	return out, nil
}

// withUntracked returns the record, or a new tombstone, with the request's own untracked objects among those to remove.
func (c *Converger) withUntracked(ctx context.Context, req Request, old *ledger.Record) (ledger.Record, error) {
	next := ledger.Record{InstanceID: req.ID, Account: req.Account, Region: req.Region, State: ledger.Deleted, EventTime: req.At.UTC()}
	if old != nil {
		next = *old
	}
	untracked, err := c.ownUntracked(ctx, req, old)
	if err != nil {
		return next, err
	}
	login := grant.AuthRolePath(c.Realm.AuthMount, req.ID)
	if len(next.Objects) == 0 && len(untracked) > 0 && !slices.Contains(req.Untracked, login) {
		// A role that is missing in the lists was made after them: another run works on this instance.
		role, err := c.Vault.Read(ctx, login)
		if err != nil || role != nil {
			return next, err
		}
	}
	next.Objects = slices.Concat(next.Objects, untracked)
	return next, nil
}
