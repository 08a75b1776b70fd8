package reconcile

import "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"

// byMode returns the row of an object of the grant as the modes of its profile have it: as it is where the drift is repaired, with no
// action where it is only shown, and nil where it is ignored. Converge leaves the same objects.
func (s *subject) byMode(o grant.Object, row Change) *Change {
	if !s.record.LeavesDrift(s.grant, o) {
		return &row
	}
	if s.grant.Profile.Reconcile.Of(o.Kind) == grant.DriftIgnore {
		return nil
	}
	row.Action, row.needsRemove, row.left = None, false, true
	row.Error = "not repaired, since profile " + s.grant.Profile.Name + " only detects drift of its " + string(o.Kind) + " objects; to have it repaired, change reconcile." + string(o.Kind) + " in the profile"
	return &row
}
