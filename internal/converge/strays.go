package converge

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// strays are those of a trigger's strays that may be taken into the record, to be removed with it. A policy tells by
// its marker whose it is. What cannot carry one is ours if the record was lost and every policy of the instance's that
// stands there is marked ours, and the auth role only if it gives one of them; or if it is only what logins left behind,
// of an instance that the ledger knows was granted something. All else is somebody's, or nobody can tell whose, and
// stays, also where settings say to adopt: that is for making.
func (c *Converger) strays(ctx context.Context, req Request, old *ledger.Record) ([]ledger.Object, error) {
	if len(req.Untracked) == 0 {
		return nil, nil
	}
	answers := make([]map[string]any, len(req.Untracked))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, path := range req.Untracked {
		group.Go(func() (err error) {
			answers[i], err = c.Vault.Read(groupCtx, path)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var marked []string
	foreign := 0
	for i, path := range req.Untracked {
		switch {
		case c.kindOf(path) != grant.KindPolicy || answers[i] == nil:
		case c.ours(answers[i], req.ID):
			marked = append(marked, strings.TrimPrefix(path, grant.PolicyPath("")))
		default:
			foreign++
		}
	}
	lost := (old == nil || len(old.Objects) == 0) && len(marked) > 0 && foreign == 0
	granted := old != nil && old.Profile != ""
	var out []ledger.Object
	for i, path := range req.Untracked {
		kind := c.kindOf(path)
		var take bool
		switch {
		case old != nil && old.Has(path):
		case kind == grant.KindPolicy:
			take = answers[i] != nil && c.ours(answers[i], req.ID)
		case kind == grant.KindAuthRole && answers[i] == nil:
			take = granted || lost // nothing but an identity entity or an accesslist entry
		case kind == grant.KindAuthRole:
			take = lost && grant.GivesOneOf(answers[i], marked)
		default:
			take = lost
		}
		if !take {
			continue
		}
		o := ledger.Object{Kind: kind, Path: path}
		if kind == grant.KindAuthRole {
			o.RoleID, _ = answers[i]["role_id"].(string)
		}
		out = append(out, o)
	}
	return out, nil
}

// withStrays is the record, or a new tombstone, with the trigger's strays among what is to go.
func (c *Converger) withStrays(ctx context.Context, req Request, old *ledger.Record) (ledger.Record, error) {
	next := ledger.Record{InstanceID: req.ID, Account: req.Account, Region: req.Region, State: ledger.Deleted, EventTime: req.At.UTC()}
	if old != nil {
		next = *old
	}
	strays, err := c.strays(ctx, req, old)
	if err != nil {
		return next, err
	}
	login := grant.AuthRolePath(c.Realm.AuthMount, req.ID)
	if len(next.Objects) == 0 && len(strays) > 0 && !slices.Contains(req.Untracked, login) {
		// A role that no list showed was made since: somebody is at work there.
		role, err := c.Vault.Read(ctx, login)
		if err != nil || role != nil {
			return next, err
		}
	}
	next.Objects = slices.Concat(next.Objects, strays)
	return next, nil
}

// takenOver is an error when a policy of a live instance bears another deployment's marker, one that is recorded or one
// that its auth role gives: the instance is that one's now, and what the record names besides may be as well.
func (c *Converger) takenOver(ctx context.Context, r *ledger.Record) error {
	if r == nil {
		return nil
	}
	for _, o := range r.Objects {
		var err error
		switch o.Kind {
		case grant.KindPolicy:
			err = c.anothers(ctx, r.InstanceID, o.Path)
		case grant.KindAuthRole:
			var role map[string]any
			if role, err = c.Vault.Read(ctx, o.Path); err == nil {
				err = c.anothersLogin(ctx, r.InstanceID, role, r.Has)
			}
		case grant.KindPKIRole, grant.KindGeneric: // they bear no marker
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// anothersLogin is an error when an auth role gives a policy of the instance's that is not known, by its path, and bears
// another deployment's marker: auth roles bear none, and both deployments' stands at one path.
func (c *Converger) anothersLogin(ctx context.Context, instanceID string, role map[string]any, known func(path string) bool) error {
	for _, policy := range grant.Gives(role) {
		path := grant.PolicyPath(policy)
		if id, _, ours := grant.SplitObjectName(policy); !ours || id != instanceID || known(path) {
			continue
		}
		if err := c.anothers(ctx, instanceID, path); err != nil {
			return err
		}
	}
	return nil
}

// anothers is an error when a policy bears another deployment's marker.
func (c *Converger) anothers(ctx context.Context, instanceID, path string) error {
	current, err := c.Vault.Read(ctx, path)
	if err != nil {
		return err
	}
	if m, ok := grant.MarkerOf(current); ok && m.Deployment != c.Realm.Deployment {
		return fault.Conflictf("instance %s: %s bears the marker of deployment %s: it and all beside it is left alone", instanceID, path, m.Deployment)
	}
	return nil
}

// kindOf tells the kind of object that stands at a path.
func (c *Converger) kindOf(path string) grant.Kind {
	switch {
	case strings.HasPrefix(path, grant.PolicyPath("")):
		return grant.KindPolicy
	case strings.HasPrefix(path, "auth/"):
		return grant.KindAuthRole
	}
	folder := path[:strings.LastIndexByte(path, '/')+1]
	if mount, isRoles := strings.CutSuffix(folder, "/roles/"); isRoles && slices.Contains(c.Profiles.PKIMounts(), mount) {
		return grant.KindPKIRole
	}
	return grant.KindGeneric
}
