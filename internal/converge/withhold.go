package converge

import (
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// removed tells, with the error if that is why, that an instance gets nothing now because it was removed: as it leaves, or
// after it was looked at.
func removed(r *ledger.Record, f facts.Instance) (ends bool, err error) {
	if r.Leaves(f.LaunchTime) {
		return true, nil
	}
	if removedSince(r, f) {
		return true, fault.Retryf("instance %s was removed after it was looked at: it is looked at again", f.ID)
	}
	return false, nil
}

// goesOn tells that this function is to take up the removal of an instance that leaves and still runs: it broke off, its
// certificates are not all revoked, or something was found that the record does not name.
func (c *Converger) goesOn(req Request, r *ledger.Record, f facts.Instance) bool {
	return c.Duties.Remove && r.Leaves(f.LaunchTime) && (r.State == ledger.Deprovisioning || len(r.Revoking) > 0 || len(req.Untracked) > 0)
}

// removedSince tells whether the instance was removed, or its removal was begun, after it was looked at.
func removedSince(r *ledger.Record, f facts.Instance) bool {
	switch {
	case r == nil:
		return false
	case r.State == ledger.Deprovisioning:
		return !f.ObservedAt.After(r.UpdatedAt)
	default:
		return r.DeletedAt != nil && !f.ObservedAt.After(*r.DeletedAt)
	}
}
