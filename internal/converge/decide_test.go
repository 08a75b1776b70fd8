package converge

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// TestDecide_ReturnsTheStepThatIsDue starts from a running instance with an active record of exactly its grant, for a
// function that may only make.
func TestDecide_ReturnsTheStepThatIsDue(t *testing.T) {
	const id = "i-0123456789abcdef0"
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	refusal := fault.Refusef("the name is taken")
	leaving := func(s *situation) { since := now.Add(-time.Minute); s.record.LeavingSince = &since }
	removes := func(s *situation) { s.duties.Remove = true }
	for name, row := range map[string]struct {
		change func(*situation)
		want   step
		reason string
	}{
		"as recorded":                   {func(*situation) {}, stepKeep, ""},
		"as recorded, to be verified":   {func(s *situation) { s.request.Verify = true }, stepInspect, ""},
		"as recorded, with stale facts": {func(s *situation) { s.facts.ObservedAt = now.Add(-time.Hour) }, stepKeep, ""},
		"verified with stale facts": {func(s *situation) {
			s.request.Verify, s.facts.ObservedAt = true, now.Add(-MaxFactsAge-time.Second)
		}, stepTryAgain, "EC2 is asked again"},
		"record not read":        {func(s *situation) { s.record, s.hasRead = nil, false }, stepReadRecord, ""},
		"no record":              {func(s *situation) { s.record = nil }, stepInspect, ""},
		"another grant recorded": {func(s *situation) { s.record.Objects[0].SHA256 = "other" }, stepInspect, ""},
		"broken off":             {func(s *situation) { s.record.State = ledger.Provisioning }, stepInspect, ""},
		"old auth role, may remove": {func(s *situation) {
			removes(s)
			s.record.Objects = append(s.record.Objects, ledger.Object{Path: "auth/old/role/" + id})
		}, stepInspect, ""},
		"old auth role, may not": {func(s *situation) {
			s.record.Objects = append(s.record.Objects, ledger.Object{Path: "auth/old/role/" + id})
		}, stepKeep, ""},
		"no profile fits":             {func(s *situation) { s.profile, s.grant = nil, nil }, stepRemoveUnmatched, ""},
		"no profile, record not read": {func(s *situation) { s.profile, s.grant, s.hasRead = nil, nil, false }, stepRemoveUnmatched, ""},
		"facts incomplete, pending": {func(s *situation) {
			s.renderErr, s.request.Told, s.hasRead = notYet(), facts.Pending, false
		}, stepAwaitFacts, ""},
		"facts incomplete, running": {func(s *situation) {
			s.renderErr, s.request.Told, s.hasRead = notYet(), facts.Running, false
		}, stepTryAgain, "not there yet"},
		"facts incomplete, pending by EC2 and no event": {func(s *situation) {
			s.renderErr, s.request.Told, s.facts.State = notYet(), "", facts.Pending
		}, stepAwaitFacts, ""},
		"refused":                  {func(s *situation) { s.renderErr = refusal }, stepRefuse, "the name is taken"},
		"refused, record not read": {func(s *situation) { s.renderErr, s.hasRead = refusal, false }, stepReadRecord, ""},
		"two profiles fit":         {func(s *situation) { s.profile, s.grant, s.renderErr = nil, nil, refusal }, stepRefuse, "the name is taken"},
		"leased by another run": {func(s *situation) {
			s.record.LeaseOwner, s.record.LeaseExpiresAt = "other", now.Add(time.Second).UnixMilli()
		}, stepTryAgain, "is being worked on"},
		"leased, and refused": {func(s *situation) {
			s.renderErr, s.record.LeaseOwner, s.record.LeaseExpiresAt = refusal, "other", now.Add(time.Second).UnixMilli()
		}, stepTryAgain, "is being worked on"},
		"lease has run out": {func(s *situation) {
			s.record.LeaseOwner, s.record.LeaseExpiresAt = "other", now.Add(-time.Second).UnixMilli()
		}, stepKeep, ""},
		"leaving":                    {leaving, stepWithhold, ""},
		"leaving, and refused":       {func(s *situation) { leaving(s); s.renderErr = refusal }, stepWithhold, ""},
		"leaving, before its launch": {func(s *situation) { leaving(s); s.facts.LaunchTime = now }, stepKeep, ""},
		"leaving, removal done, may remove": {func(s *situation) {
			leaving(s)
			removes(s)
			s.record.State = ledger.Deleted
		}, stepWithhold, ""},
		"leaving, removal broke off, may remove": {func(s *situation) {
			leaving(s)
			removes(s)
			s.record.State = ledger.Deprovisioning
		}, stepResumeRemoval, ""},
		"leaving, removal broke off, may not": {func(s *situation) { leaving(s); s.record.State = ledger.Deprovisioning }, stepWithhold, ""},
		"leaving, certificates to revoke":     {func(s *situation) { leaving(s); removes(s); s.record.Revoking = []string{"p"} }, stepResumeRemoval, ""},
		"leaving, untracked objects":          {func(s *situation) { leaving(s); removes(s); s.request.Untracked = []string{"p"} }, stepResumeRemoval, ""},
		"removed after it was observed": {func(s *situation) {
			at := s.facts.ObservedAt
			s.record.State, s.record.DeletedAt = ledger.Deleted, &at
		}, stepTryAgain, "was removed after"},
		"removed before it was observed": {func(s *situation) {
			at := s.facts.ObservedAt.Add(-time.Second)
			s.record.State, s.record.DeletedAt = ledger.Deleted, &at
		}, stepInspect, ""},
		"removal begun after it was observed": {func(s *situation) {
			s.record.State, s.record.UpdatedAt = ledger.Deprovisioning, s.facts.ObservedAt
		}, stepTryAgain, "was removed after"},
		"removal begun before it was observed": {func(s *situation) {
			s.record.State, s.record.UpdatedAt = ledger.Deprovisioning, s.facts.ObservedAt.Add(-time.Second)
		}, stepInspect, ""},
	} {
		g := &grant.Grant{
			Profile: &grant.Profile{Name: "worker"}, InstanceID: id,
			Objects:  []grant.Object{{Kind: grant.KindPolicy, Path: "sys/policies/acl/ec2-" + id + "-a", Fields: map[string]any{"policy": "x"}}},
			AuthRole: grant.Object{Kind: grant.KindAuthRole, Path: "auth/aws/role/" + id, Fields: map[string]any{"auth_type": "ec2"}},
		}
		s := &situation{
			request: Request{Ref: facts.Ref{ID: id}, Told: facts.Running, At: now},
			facts:   facts.Instance{ID: id, State: facts.Running, ObservedAt: now.Add(-time.Second), LaunchTime: now.Add(-time.Hour)},
			duties:  Duties{Make: true}, profile: g.Profile, grant: g, hasRead: true,
			record: &ledger.Record{InstanceID: id, State: ledger.Active, Profile: "worker", UpdatedAt: now.Add(-time.Hour), Objects: objectsOf(g, nil)},
		}
		row.change(s)
		got, reason := s.decide(now)
		if got != row.want {
			t.Errorf("%s: the step is %q, want %q", name, got, row.want)
		}
		hasReason := reason != nil && row.reason != "" && strings.Contains(reason.Error(), row.reason)
		if !hasReason && (reason != nil || row.reason != "") {
			t.Errorf("%s: the reason is %v, want %q", name, reason, row.reason)
		}
		if got == stepTryAgain && fault.KindOf(reason) != fault.Retry {
			t.Errorf("%s: the reason %v is of kind %s: it would not come back", name, reason, fault.KindOf(reason))
		}
	}
}

func notYet() error {
	return fault.New(fault.Retry, errors.Join(errors.New("the DNS name is not there yet"), grant.ErrNotYet))
}
