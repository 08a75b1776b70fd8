package converge

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ownership"
)

// inspect reads the objects at the paths of a grant, and refuses those that are not this deployment's. It returns the
// objects that exist, by path.
func (c *Converger) inspect(ctx context.Context, req Request, g *grant.Grant, old *ledger.Record) (found map[string]map[string]any, err error) {
	err = c.again(ctx, old, func() error {
		found, err = c.inspectOnce(ctx, req, g, old)
		return err
	})
	return found, err
}

func (c *Converger) inspectOnce(ctx context.Context, req Request, g *grant.Grant, old *ledger.Record) (map[string]map[string]any, error) {
	all := g.All()
	objects := make([]ownership.Object, len(all))
	for i, o := range all {
		objects[i] = ownership.Object{Kind: o.Kind, Path: o.Path}
	}
	if err := c.readGrant(ctx, req, old, objects); err != nil {
		return nil, err
	}
	evidence := ownership.OfGrant(c.instance(g.InstanceID), old, objects)
	found := map[string]map[string]any{}
	var foreign []string
	for _, o := range objects {
		if o.Data == nil {
			continue
		}
		found[o.Path] = o.Data
		if evidence.OwnerOf(o) != ownership.Ours {
			foreign = append(foreign, o.Path)
		}
	}
	if !c.Adopt {
		if len(foreign) > 0 {
			return nil, fault.Conflictf("instance %s: not made by this deployment (%s) and left alone: %v; remove it, or set CONFLICT_MODE to adopt",
				g.InstanceID, c.Realm.Deployment, foreign)
		}
		if err := c.checkNoOtherPolicy(ctx, g.InstanceID, found[g.AuthRole.Path], g.Has); err != nil {
			return nil, err
		}
	}
	current := found[g.AuthRole.Path]
	if grant.MustReplace(current, g.AuthRole) && !c.Duties.Remove && !c.leaves(old, g, g.AuthRole, current) {
		return nil, fault.Refusef("instance %s: %s has auth_type %v and resolve_aws_unique_ids %v, which Vault cannot change in place: delete it by hand, or let a function that may remove replace it (reconcile in mode correct)",
			g.InstanceID, g.AuthRole.Path, current["auth_type"], current["resolve_aws_unique_ids"])
	}
	return found, nil
}

// readAll fills in the data of objects.
func (c *Converger) readAll(ctx context.Context, objects []ownership.Object) error {
	return forEach(ctx, objects, c.read)
}

func (c *Converger) read(ctx context.Context, o *ownership.Object) (err error) {
	o.Data, err = c.Vault.Read(ctx, o.Path)
	return err
}

// forEach calls do for all objects at once. It returns the first error, which cancels the others.
func forEach(ctx context.Context, objects []ownership.Object, do func(context.Context, *ownership.Object) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range objects {
		group.Go(func() error { return do(ctx, &objects[i]) })
	}
	return group.Wait()
}

// differs reports whether an object is missing in Vault, where got is nil, or has other values there.
func differs(o grant.Object, got map[string]any) bool {
	return got == nil || len(o.Differences(got)) > 0
}

// leaves reports whether an object of a grant is left as it is, by its profile's modes. got is Vault's answer for it; nil if it is
// missing. A policy without our marker is ours only by adoption, which writes it.
func (c *Converger) leaves(old *ledger.Record, g *grant.Grant, o grant.Object, got map[string]any) bool {
	isAdopted := o.Kind == grant.KindPolicy && got != nil && c.instance(g.InstanceID).OwnerOf(got) != ownership.Ours
	isLost := got == nil && old != nil && !old.Has(o.Path) // retained by the record, and deleted since
	return old.LeavesDrift(g, o) && !isAdopted && !isLost
}

// differing counts the objects of a grant that differ and are not left as they are.
func (c *Converger) differing(s *situation, found map[string]map[string]any) int {
	n := 0
	for _, o := range s.grant.All() {
		if differs(o, found[o.Path]) && !c.leaves(s.record, s.grant, o, found[o.Path]) {
			n++
		}
	}
	return n
}

// holdsItsNames reports whether the instance of a record holds all claims of the record.
func (c *Converger) holdsItsNames(ctx context.Context, r *ledger.Record) (bool, error) {
	names := r.Held()
	held := make([]bool, len(names))
	group, ctx := errgroup.WithContext(ctx)
	for i, name := range names {
		group.Go(func() error {
			holder, err := c.Ledger.Holder(ctx, name)
			held[i] = holder != nil && holder.InstanceID == r.InstanceID
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return false, err
	}
	for _, h := range held {
		if !h {
			return false, nil
		}
	}
	return true, nil
}

// checkNotAdopted returns an error if a policy of a live instance bears another deployment's marker: a recorded policy, or
// one that its auth role names. The instance now belongs to that deployment, and the other recorded objects may too.
func (c *Converger) checkNotAdopted(ctx context.Context, r *ledger.Record) error {
	if r == nil {
		return nil
	}
	for _, o := range r.Objects {
		var err error
		switch o.Kind {
		case grant.KindPolicy:
			err = c.checkPolicy(ctx, r.InstanceID, o.Path)
		case grant.KindAuthRole:
			var role map[string]any
			if role, err = c.Vault.Read(ctx, o.Path); err == nil {
				err = c.checkNoOtherPolicy(ctx, r.InstanceID, role, r.Has)
			}
		case grant.KindPKIRole, grant.KindSSHRole, grant.KindGeneric: // they bear no marker
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkNoOtherPolicy returns an error if an auth role names a policy of the instance that bears another deployment's marker.
// It skips policies for which isKnown is true. An auth role bears no marker, and has the same path for both deployments.
func (c *Converger) checkNoOtherPolicy(ctx context.Context, instanceID string, role map[string]any, isKnown func(path string) bool) error {
	for _, policy := range grant.TokenPolicies(role) {
		path := grant.PolicyPath(policy)
		if id, _, ok := grant.SplitObjectName(policy); !ok || id != instanceID || isKnown(path) {
			continue
		}
		if err := c.checkPolicy(ctx, instanceID, path); err != nil {
			return err
		}
	}
	return nil
}

// checkPolicy returns an error if a policy bears another deployment's marker.
func (c *Converger) checkPolicy(ctx context.Context, instanceID, path string) error {
	current, err := c.Vault.Read(ctx, path)
	if err != nil {
		return err
	}
	if deployment, ok := c.instance(instanceID).NamesAnother(current); ok {
		return fault.Conflictf("instance %s: %s bears the marker of deployment %s: it and all objects beside it are left alone", instanceID, path, deployment)
	}
	return nil
}
