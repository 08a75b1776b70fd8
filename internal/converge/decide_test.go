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
	oldRole := func(s *situation) {
		s.record.Objects = append(s.record.Objects, ledger.Object{Path: "auth/old/role/" + id})
	}
	notYet := func(told facts.State, hasRead bool) func(*situation) {
		return func(s *situation) {
			s.renderErr = fault.New(fault.Retry, errors.Join(errors.New("the DNS name is not there yet"), grant.ErrNotYet))
			s.request.Told, s.hasRead = told, hasRead
		}
	}
	pending := func(s *situation) { s.facts.State = facts.Pending }
	asked := func(before time.Duration) func(*situation) {
		return func(s *situation) { s.request.At = now.Add(-before) }
	}
	started := func(before time.Duration) func(*situation) {
		return func(s *situation) { s.facts.LaunchTime = now.Add(-before) }
	}
	leased := func(left time.Duration) func(*situation) {
		return func(s *situation) { s.record.LeaseOwner, s.record.LeaseExpiresAt = "other", now.Add(left).UnixMilli() }
	}
	// removal has the record in a state of a removal that began or ended so long before the instance was observed.
	removal := func(state ledger.State, before time.Duration) func(*situation) {
		return func(s *situation) {
			at := s.facts.ObservedAt.Add(-before)
			if s.record.State = state; state == ledger.Deleted {
				s.record.DeletedAt = &at
			} else {
				s.record.UpdatedAt = at
			}
		}
	}
	unconfirmed := func(s *situation) { s.facts.RoleUnconfirmed = true }
	refused := func(s *situation) { s.renderErr = refusal }
	all := func(changes ...func(*situation)) func(*situation) {
		return func(s *situation) {
			for _, c := range changes {
				c(s)
			}
		}
	}
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
		"record not read":                                {func(s *situation) { s.record, s.hasRead = nil, false }, stepReadRecord, ""},
		"no record":                                      {func(s *situation) { s.record = nil }, stepInspect, ""},
		"another grant recorded":                         {func(s *situation) { s.record.Objects[0].SHA256 = "other" }, stepInspect, ""},
		"broken off":                                     {func(s *situation) { s.record.State = ledger.Provisioning }, stepInspect, ""},
		"old auth role, may remove":                      {all(oldRole, removes), stepInspect, ""},
		"old auth role, may not":                         {oldRole, stepKeep, ""},
		"no profile fits":                                {func(s *situation) { s.profile, s.grant = nil, nil }, stepRemoveUnmatched, ""},
		"no profile, record not read":                    {func(s *situation) { s.profile, s.grant, s.hasRead = nil, nil, false }, stepRemoveUnmatched, ""},
		"incomplete, pending for an hour":                {all(notYet(facts.Pending, false), pending), stepAwaitFacts, ""},
		"incomplete, pending by EC2 and no event":        {all(notYet("", true), pending), stepAwaitFacts, ""},
		"incomplete, running by its event alone":         {all(notYet(facts.Running, true), pending, asked(time.Hour)), stepTryAgain, "not there yet"},
		"incomplete, just asked for":                     {notYet(facts.Running, false), stepTryAgain, "not there yet"},
		"incomplete, asked for long ago":                 {all(notYet(facts.Running, true), asked(LateTime)), stepRefuse, "until 5m0s after the start"},
		"incomplete, asked for long ago, not read":       {all(notYet(facts.Running, false), asked(LateTime)), stepReadRecord, ""},
		"incomplete, just started":                       {all(notYet(facts.Running, false), asked(time.Hour), started(LateTime-time.Second)), stepTryAgain, "not there yet"},
		"incomplete, a tag changed just after the start": {all(notYet(facts.Pending, false), started(time.Minute)), stepTryAgain, "not there yet"},
		"incomplete, a tag changed long after the start": {notYet(facts.Pending, true), stepRefuse, "until 5m0s after the start"},
		"incomplete, no event, long after the start":     {notYet("", true), stepRefuse, "until 5m0s after the start"},
		"incomplete, asked for long ago, leaving":        {all(notYet(facts.Running, true), asked(LateTime), leaving), stepWithhold, ""},
		"refused":                                {refused, stepRefuse, "the name is taken"},
		"refused, record not read":               {func(s *situation) { s.renderErr, s.hasRead = refusal, false }, stepReadRecord, ""},
		"two profiles fit":                       {func(s *situation) { s.profile, s.grant, s.renderErr = nil, nil, refusal }, stepRefuse, "the name is taken"},
		"leased by another run":                  {leased(time.Second), stepTryAgain, "is being worked on"},
		"leased, and refused":                    {all(leased(time.Second), refused), stepTryAgain, "is being worked on"},
		"lease has run out":                      {leased(-time.Second), stepKeep, ""},
		"leaving":                                {leaving, stepWithhold, ""},
		"leaving, and refused":                   {all(leaving, refused), stepWithhold, ""},
		"leaving, before its launch":             {func(s *situation) { leaving(s); s.facts.LaunchTime = now }, stepKeep, ""},
		"leaving, removal done, may remove":      {all(leaving, removes, removal(ledger.Deleted, time.Second)), stepWithhold, ""},
		"leaving, removal broke off, may remove": {all(leaving, removes, removal(ledger.Deprovisioning, time.Second)), stepResumeRemoval, ""},
		"leaving, removal broke off, may not":    {all(leaving, removal(ledger.Deprovisioning, time.Second)), stepWithhold, ""},
		"leaving, certificates to revoke":        {func(s *situation) { leaving(s); removes(s); s.record.Revoking = []string{"p"} }, stepResumeRemoval, ""},
		"leaving, untracked objects":             {func(s *situation) { leaving(s); removes(s); s.request.Untracked = []string{"p"} }, stepResumeRemoval, ""},
		"removed after it was observed":          {removal(ledger.Deleted, 0), stepTryAgain, "was removed after"},
		"removed before it was observed":         {removal(ledger.Deleted, time.Second), stepInspect, ""},
		"role unconfirmed, as recorded":          {unconfirmed, stepKeep, ""},
		"role unconfirmed, to be verified":       {all(unconfirmed, func(s *situation) { s.request.Verify = true }), stepInspect, ""},
		"role unconfirmed, no record":            {all(unconfirmed, func(s *situation) { s.record = nil }), stepInspect, ""},
		"role unconfirmed, refused before":       {all(unconfirmed, func(s *situation) { s.record = &ledger.Record{InstanceID: id, State: ledger.Refused} }), stepInspect, ""},
		"role unconfirmed, another grant":        {all(unconfirmed, func(s *situation) { s.record.Objects[0].SHA256 = "other" }), stepTryAgain, "IAM does not answer"},
		"role unconfirmed, no profile fits":      {all(unconfirmed, func(s *situation) { s.profile, s.grant = nil, nil }), stepTryAgain, "IAM does not answer"},
		"role unconfirmed, refused":              {all(unconfirmed, refused), stepTryAgain, "IAM does not answer"},
		"role unconfirmed, leaving":              {all(unconfirmed, leaving), stepWithhold, ""},
		"removal begun after it was observed":    {removal(ledger.Deprovisioning, 0), stepTryAgain, "was removed after"},
		"removal begun before it was observed":   {removal(ledger.Deprovisioning, time.Second), stepInspect, ""},
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
			record: &ledger.Record{InstanceID: id, State: ledger.Active, Profile: "worker", UpdatedAt: now.Add(-time.Hour), Objects: (&Converger{}).objectsOf(g, nil, nil, nil)},
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
		if got == stepRefuse && fault.KindOf(reason) != fault.Refuse {
			t.Errorf("%s: the reason %v is of kind %s: it would not be recorded", name, reason, fault.KindOf(reason))
		}
		if got == stepTryAgain && fault.KindOf(reason) != fault.Retry {
			t.Errorf("%s: the reason %v is of kind %s: it would not come back", name, reason, fault.KindOf(reason))
		}
	}
}
