package converge

import (
	"errors"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// step is the next step of making a grant.
type step string

// The steps. Only stepInspect leads to a grant.
const (
	stepReadRecord      step = "read the record"
	stepRemoveUnmatched step = "remove the grant of an instance that no profile fits"
	stepAwaitFacts      step = "await the event that completes the facts"
	stepTryAgain        step = "try again"
	stepResumeRemoval   step = "resume the removal of a leaving instance"
	stepCutQuarantined  step = "go on with the removal of an instance in quarantine"
	stepStayQuarantined step = "leave an instance in quarantine without a grant"
	stepWithhold        step = "withhold the grant from a removed instance"
	stepRefuse          step = "refuse"
	stepKeep            step = "keep the grant as recorded"
	stepInspect         step = "inspect Vault, and write what differs"
)

// situation is the input of decide: everything that is known before Vault is asked.
type situation struct {
	request Request
	facts   facts.Instance
	duties  Duties
	// profile fits the instance; nil if none does.
	profile *grant.Profile
	grant   *grant.Grant // rendered from profile; nil if it could not be
	// renderErr is why there is no grant although a profile fits, or more than one does.
	renderErr error
	// record is the instance's; nil if there is none, or if it has not been read.
	record  *ledger.Record
	hasRead bool // the record was read
}

// decide returns the next step of making a grant, and the reason of a step that returns an error. It is pure: the record
// and Vault are read by the steps that it returns. A role that IAM does not confirm leads to a first grant, or to the grant as
// recorded; a step that refuses, changes or removes on the ground of that role is tried again.
func (s *situation) decide(now time.Time) (step, error) {
	next, reason := s.decideByRole(now)
	if !s.facts.RoleUnconfirmed {
		return next, reason
	}
	changes := next == stepInspect && holds(s.record) && !s.record.Holds(s.grant)
	if changes || next == stepRemoveUnmatched || next == stepRefuse {
		return stepTryAgain, unconfirmedError(s.facts)
	}
	return next, reason
}

// unconfirmedError returns the error of an instance for which IAM does not answer.
func unconfirmedError(f facts.Instance) error {
	return fault.Retryf("instance %s: IAM does not answer, and the role %s of an earlier answer only makes first grants: its grant stays as it is until IAM answers", f.ID, f.IAMRoleARN)
}

// decideByRole is decide for a role that IAM confirms.
func (s *situation) decideByRole(now time.Time) (step, error) {
	isIncomplete := errors.Is(s.renderErr, grant.ErrNotYet)
	mayComeLate := isIncomplete && MayComeLate(s.facts, s.request.asked(), now)
	switch {
	case s.profile == nil && s.renderErr == nil:
		return stepRemoveUnmatched, nil
	case mayComeLate && s.facts.State == facts.Pending && s.request.Told != facts.Running:
		return stepAwaitFacts, nil
	case mayComeLate:
		return stepTryAgain, s.renderErr
	case !s.hasRead:
		return stepReadRecord, nil
	}
	if err := leaseError(s.record, now); err != nil {
		return stepTryAgain, err
	}
	switch {
	case s.record.InQuarantine() && s.duties.Remove && hasMoreToCut(s.request, s.record):
		return stepCutQuarantined, nil
	case s.record.InQuarantine():
		return stepStayQuarantined, nil
	}
	leaves := s.record.Leaves(s.facts.LaunchTime)
	switch {
	case leaves && s.duties.Remove && hasMoreToRemove(s.request, s.record):
		return stepResumeRemoval, nil
	case leaves:
		return stepWithhold, nil
	case removedSince(s.record, s.facts):
		return stepTryAgain, fault.Retryf("instance %s was removed after EC2 was asked about it: EC2 is asked again", s.facts.ID)
	case isIncomplete:
		return stepRefuse, overdueError(s.renderErr)
	case s.renderErr != nil:
		return stepRefuse, s.renderErr
	case s.isAsRecorded() && !s.request.Verify:
		return stepKeep, nil
	}
	if err := staleError(s.facts, now); err != nil {
		return stepTryAgain, err
	}
	return stepInspect, nil
}

// isAsRecorded reports whether the record says that exactly this grant was made. Auth roles left on another mount count
// only for a function that may delete them.
func (s *situation) isAsRecorded() bool {
	r := s.record
	return r != nil && r.State == ledger.Active && r.Holds(s.grant) && (!s.duties.Remove || len(r.Objects) == len(s.grant.Objects)+1)
}

// hasMoreToRemove reports whether the removal of a leaving instance broke off, has certificates left to revoke, or missed
// objects that the record does not name.
func hasMoreToRemove(req Request, r *ledger.Record) bool {
	return r.State == ledger.Deprovisioning || len(r.Revoking) > 0 || len(req.Untracked) > 0
}

// removedSince reports whether the instance was removed, or its removal was begun, after its facts were observed.
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
