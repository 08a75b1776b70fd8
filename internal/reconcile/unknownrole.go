package reconcile

import "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"

// rowsWithoutFacts returns the row of an instance that AWS did not describe. If asking again does not help, it is the row of a
// refusal, and of an instance with a record only: it is unknown whether any other belongs to this deployment.
func (s *subject) rowsWithoutFacts(err error) []Change {
	switch {
	case !s.sighting.LacksRole() || fault.KindOf(err) != fault.Refuse:
		return []Change{s.failedRow(err)}
	case s.record == nil && len(s.paths) == 0:
		return nil
	}
	return []Change{s.refusalRow(err)}
}

// mayRestOnOldRole reports whether rows may rest on a role that IAM does not confirm: the instance has no grant yet, or the role
// yields the recorded one. Other rows would change or remove a grant.
func (s *subject) mayRestOnOldRole() bool {
	return s.grant != nil && (s.asRecorded || !s.hasLiveRecord() || len(s.record.Objects) == 0)
}
