package reconcile

import (
	"maps"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ownership"
)

// unprovenError is the error of an unproven object's row: what it is, and the next step.
const unprovenError = "no record names it, it is not part of a grant that a deployment marked, and no run compares the instance it is named after: " +
	"a function's Vault token or an administrator made it, and reconcile never removes it. " +
	"Read it, find who made it in Vault's audit log, and delete it by hand"

// rowsOfUnproven returns the rows of an instance that no run compares: it is stopped, or bound to an account or region that is
// not compared. The rows are only reported, since the instance may be another stack's and run. Without them, a back door
// under an instance's name could hide in the place that its own auth role names.
func (c *comparison) rowsOfUnproven(s *subject) []Change {
	isAnothers := slices.ContainsFunc(slices.Collect(maps.Keys(s.contents)), func(path string) bool { return c.namesAnother(s, path) })
	isAccounted := c.isGrant(s) && (isAnothers || !s.hasLiveRecord())
	if s.isBusy(c.now) || isAccounted {
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

// isGrant reports whether all objects of an instance without a record look like a grant of this program, by whatever
// deployment: the auth role admits this one instance and gives its policies, and each policy bears a marker for it.
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
		case grant.KindOf(path, nil) == grant.KindAuthRole:
			role = data
		}
	}
	return grant.Admits(role, s.id) && grant.GivesOneOf(role, policies)
}

// policiesOf returns the paths of the policies under the instance's name that an auth role gives.
func (s *subject) policiesOf(role map[string]any) []string {
	var paths []string
	for _, policy := range grant.Gives(role) {
		id, _, ok := grant.SplitObjectName(policy)
		if ok && id == s.id && strings.HasPrefix(policy, grant.NamePrefix(grant.KindPolicy)) {
			paths = append(paths, grant.PolicyPath(policy))
		}
	}
	return slices.Compact(paths)
}
