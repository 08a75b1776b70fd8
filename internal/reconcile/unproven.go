package reconcile

import (
	"maps"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ownership"
)

// unprovenError is the error of the row of an unproven object.
const unprovenError = "no record names it, it is not part of a grant that a deployment marked, " +
	"and no run compares the instance it is named after: a function's Vault token or an administrator made it, and reconcile never removes it. " +
	"Read it, find who made it in Vault's audit log, and delete it by hand"

// rowsOfUnproven returns the rows of an instance that no run compares: it is stopped, or its auth role binds it to an account or
// region that is not compared. The rows are only reported, since the instance may be another stack's and run. Without them, a
// back door under an instance's name could hide in the place that its own auth role names.
func (c *comparison) rowsOfUnproven(s *subject) []Change {
	isAnothers := slices.ContainsFunc(slices.Collect(maps.Keys(s.contents)), func(path string) bool { return c.namesAnother(s, path) })
	isExplained := c.isGrant(s) && (isAnothers || !s.hasLiveRecord())
	if s.isBusy(c.now) || isExplained {
		return nil
	}
	var rows []Change
	for _, row := range c.rowsOfUntracked(s) {
		if slices.Contains(s.paths, row.Path) {
			row.Reason, row.Action, row.Error = Conflicting, None, unprovenError
			rows = append(rows, row)
		}
	}
	return rows
}

// isGrant reports whether the objects that were read of an instance look like a grant of any deployment: the auth role admits
// this one instance and names one of its policies, and each policy bears a marker for it.
func (c *comparison) isGrant(s *subject) bool {
	var role map[string]any
	var policies []string
	for path, data := range s.contents {
		name, isPolicy := grant.SplitPolicyPath(path)
		switch {
		case isPolicy && c.ownerOf(s, path) == ownership.Unknown:
			return false
		case isPolicy:
			policies = append(policies, name)
		case grant.KindOf(path, grant.Mounts{}) == grant.KindAuthRole:
			role = data
		}
	}
	return grant.Admits(role, s.id) && grant.HasTokenPolicy(role, policies)
}

// policiesOf returns the paths of the policies of an auth role that bear the instance's name.
func (s *subject) policiesOf(role map[string]any) []string {
	var paths []string
	for _, policy := range grant.TokenPolicies(role) {
		id, _, ok := grant.SplitObjectName(policy)
		if ok && id == s.id && strings.HasPrefix(policy, grant.NamePrefix(grant.KindPolicy)) {
			paths = append(paths, grant.PolicyPath(policy))
		}
	}
	return slices.Compact(paths)
}
