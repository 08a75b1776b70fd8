package reconcile

import (
	"maps"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// unprovenError is the error of an unproven object's row: what it is, and the next step.
const unprovenError = "no record names it, it is not part of a grant that a deployment marked, and no run compares the instance it is named after: " +
	"a function's Vault token or an administrator made it, and reconcile never removes it. " +
	"Read it, find who made it in Vault's audit log, and delete it by hand"

// unproven compares an instance that no run compares: it is stopped, or bound to an account or region that is not compared.
// What it finds is only reported, since the instance may be another stack's and run. A back door under an instance's name would
// otherwise be hidden by the place that its own auth role names.
func (c *comparison) unproven(s *subject) []Change {
	ofAnother := slices.ContainsFunc(slices.Collect(maps.Keys(s.contents)), func(path string) bool { return c.anothers(s, path) })
	if s.busy(c.now) || s.isGrant() && (ofAnother || !s.live()) {
		return nil
	}
	var rows []Change
	for _, row := range c.strays(s) {
		if slices.Contains(s.paths, row.Path) {
			row.Reason, row.Action, row.Error = Conflicting, None, unprovenError
			rows = append(rows, row)
		}
	}
	return rows
}

// marked reports whether a policy bears the marker of some deployment for this instance.
func (s *subject) marked(path string) bool {
	m, ok := grant.MarkerOf(s.contents[path])
	return ok && m.InstanceID == s.id
}

// isGrant reports whether all there is of an instance that no record names looks like a grant of this program, by whatever
// deployment: the auth role admits this one instance and gives its policies, and all of them bear a marker for it.
func (s *subject) isGrant() bool {
	var role map[string]any
	var policies []string
	for path, data := range s.contents {
		switch {
		case strings.HasPrefix(path, "auth/"):
			role = data
		case folderOf(path) == policyFolder:
			if !s.marked(path) {
				return false
			}
			policies = append(policies, path[len(policyFolder)+1:])
		}
	}
	return grant.Admits(role, s.id) && grant.GivesOneOf(role, policies)
}

// given returns the paths of the policies under the instance's name that an auth role gives.
func (s *subject) given(role map[string]any) []string {
	var paths []string
	for _, policy := range grant.Gives(role) {
		if id, _, ok := grant.SplitObjectName(policy); ok && id == s.id && strings.HasPrefix(policy, prefixOf(grant.KindPolicy)) {
			paths = append(paths, grant.PolicyPath(policy))
		}
	}
	return slices.Compact(paths)
}
