package converge

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// look reads what stands at the paths that are about to be written for the first time or anew, and refuses what is
// somebody else's: a policy by its marker, all else by the ledger. Where the ledger knows nothing but every policy
// of the grant stands there with our marker, the ledger was lost and the objects are ours.
func (c *Converger) look(ctx context.Context, g *grant.Grant, old *ledger.Record) (map[string]map[string]any, error) {
	all := g.All()
	answers := make([]map[string]any, len(all))
	group, groupCtx := errgroup.WithContext(ctx)
	for i, o := range all {
		group.Go(func() (err error) {
			answers[i], err = c.Vault.Read(groupCtx, o.Path)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	policies, marked := 0, 0
	var foreign []string
	for i, o := range all {
		if o.Kind != grant.KindPolicy {
			continue
		}
		policies++
		switch {
		case answers[i] == nil:
		case c.ours(answers[i], g.InstanceID):
			marked++
		default:
			foreign = append(foreign, o.Path)
		}
	}
	lost := policies > 0 && marked == policies && (old == nil || len(old.Objects) == 0)
	found := map[string]map[string]any{}
	for i, o := range all {
		if answers[i] == nil {
			continue
		}
		found[o.Path] = answers[i]
		recorded := old != nil && old.Has(o.Path)
		if o.Kind != grant.KindPolicy && !recorded && !lost {
			foreign = append(foreign, o.Path)
		}
	}
	if len(foreign) > 0 && !c.Adopt {
		return nil, fault.Conflictf("instance %s: not made by this deployment (%s) and left alone: %v; remove it, or set CONFLICT_MODE to adopt",
			g.InstanceID, c.Realm.Deployment, foreign)
	}
	if !c.Adopt {
		known := func(path string) bool {
			return slices.ContainsFunc(all, func(o grant.Object) bool { return o.Path == path })
		}
		if err := c.anothersLogin(ctx, g.InstanceID, found[g.AuthRole.Path], known); err != nil {
			return nil, err
		}
	}
	if current := found[g.AuthRole.Path]; grant.MustReplace(current, g.AuthRole) && !c.Duties.Remove {
		return nil, fault.Refusef("instance %s: %s has auth_type %v and resolve_aws_unique_ids %v, which Vault cannot change in place: delete it by hand, or let a function that may remove replace it (reconcile in mode correct)",
			g.InstanceID, g.AuthRole.Path, current["auth_type"], current["resolve_aws_unique_ids"])
	}
	return found, nil
}

// ours tells by the marker whether a policy was made by this deployment for this instance.
func (c *Converger) ours(policy map[string]any, instanceID string) bool {
	m, ok := grant.MarkerOf(policy)
	return ok && m.Deployment == c.Realm.Deployment && m.InstanceID == instanceID
}
