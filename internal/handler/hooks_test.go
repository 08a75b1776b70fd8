package handler_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/autoscaling"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/handler"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// groups is an Auto Scaling that records the calls it gets.
type groups struct {
	mu     sync.Mutex
	states map[string]autoscaling.GroupState
	calls  []string
	err    error
}

func (g *groups) States(_ context.Context, refs []facts.Ref) map[facts.Ref]autoscaling.GroupState {
	out := map[facts.Ref]autoscaling.GroupState{}
	for _, r := range refs {
		out[r] = g.states[r.ID]
	}
	return out
}

func (g *groups) record(what string, r facts.Ref, h event.Hook) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls = append(g.calls, fmt.Sprintf("%s %s %s", what, h.Name, r.ID))
	return g.err
}

func (g *groups) Complete(_ context.Context, r facts.Ref, h event.Hook, result autoscaling.Result) error {
	return g.record(string(result), r, h)
}

func (g *groups) Prolong(_ context.Context, r facts.Ref, h event.Hook) error {
	return g.record("beat", r, h)
}

func hookBench(duties converge.Duties) (*bench, *groups) {
	b, g := newBench(), &groups{states: map[string]autoscaling.GroupState{}}
	b.handler.Hooks = handler.Hooks{Groups: g, Duties: duties, Prefix: "vault-identity-"}
	return b, g
}

func hookBody(id, name, transition string) string {
	kind := map[string]string{"LAUNCHING": "launch", "TERMINATING": "terminate"}[transition]
	return fmt.Sprintf(`{"version":"0","source":"aws.autoscaling","detail-type":"EC2 Instance-%s Lifecycle Action","account":"123456789012","region":"us-east-1","time":%q,`+
		`"detail":{"LifecycleActionToken":"t","AutoScalingGroupName":"g","LifecycleHookName":%q,"EC2InstanceId":%q,"LifecycleTransition":"autoscaling:EC2_INSTANCE_%s"}}`,
		kind, at, name, id, transition)
}

var makes, removes = converge.Duties{Make: true}, converge.Duties{Remove: true}

func TestLaunchHook_EndsByTheOutcome(t *testing.T) {
	for name, row := range map[string]struct {
		outcome   converge.Action
		err       error
		late      time.Duration
		continues bool
		call      string // empty for none
		again     string
	}{
		"granted":               {converge.Provisioned, nil, 0, false, "CONTINUE", "[]"},
		"compared and in order": {converge.Unchanged, nil, 0, false, "CONTINUE", "[]"},
		"to be retried":         {"", errors.New("sealed"), 0, false, "beat", "[m0]"},
		"refused":               {"", fault.Refusef("two profiles"), 0, false, "ABANDON", "[]"},
		"a conflict":            {"", fault.Conflictf("another deployment's"), 0, false, "ABANDON", "[]"},
		"no profile fits, and tags may come late": {converge.Unmatched, nil, 0, false, "beat", "[m0]"},
		"the deployment is torn down":             {converge.TornDown, nil, 0, false, "CONTINUE", "[]"},
		"gone meanwhile":                          {converge.LeftAlone, nil, 0, false, "ABANDON", "[]"},
		"refused, and settings let it go":         {"", fault.Refusef("two profiles"), 0, true, "CONTINUE", "[]"},
		"the same, whatever settings allow":       {converge.Unmatched, nil, 0, true, "beat", "[m0]"},
		"no profile fits, and no tag came":        {converge.Unmatched, nil, 5 * time.Minute, false, "", "[]"},
		"the same, and settings let it go":        {converge.Unmatched, nil, 5 * time.Minute, true, "CONTINUE", "[]"},
	} {
		b, g := hookBench(makes)
		b.now = b.now.Add(row.late)
		b.handler.Hooks.ContinueOnRefusal = row.continues
		b.errs[id(1)], b.outcomes[id(1)] = row.err, converge.Outcome{Action: row.outcome, Closest: func() string { return "alice-worker: match.regions" }}
		again := b.batch(t.Context(), t, hookBody(id(1), "vault-identity-ready", "LAUNCHING"))
		if row.outcome == converge.Unmatched && !row.continues && !strings.Contains(b.log.String(), "the closest is alice-worker: match.regions") {
			t.Errorf("%s: want the log to name the closest profile and its condition, got\n%s", name, b.log.String())
		}
		want := "[]"
		if row.call != "" {
			want = "[" + row.call + " vault-identity-ready " + id(1) + "]"
		}
		if fmt.Sprint(g.calls) != want || fmt.Sprint(again) != row.again {
			t.Errorf("%s: Auto Scaling got %q and %v is delivered again, want %s and %s", name, g.calls, again, want, row.again)
		}
		if seen := b.requests[id(1)]; len(seen) != 1 || !seen[0].Verify || seen[0].Leaving {
			t.Errorf("%s: want one comparison with Vault, whatever the ledger says, got %+v", name, seen)
		}
	}
}

func TestLaunchHook_WaitsForAHeldName(t *testing.T) {
	b, g := hookBench(makes)
	b.handler.Hooks.NameWait = 10 * time.Minute
	b.batch(t.Context(), t, hookBody(id(1), "vault-identity-ready", "LAUNCHING"), body(id(2), "running", at))
	sent, err := time.Parse(time.RFC3339, at)
	if err != nil {
		t.Fatal(err)
	}
	if seen := b.requests[id(1)]; len(seen) != 1 || !seen[0].AwaitNames.Equal(sent.Add(10*time.Minute)) {
		t.Errorf("want a held name awaited for ten minutes after the hook's event, got %+v, %q", seen, g.calls)
	}
	if seen := b.requests[id(2)]; len(seen) != 1 || !seen[0].AwaitNames.IsZero() {
		t.Errorf("want an instance without a hook refused at once, got %+v", seen)
	}
	b.batch(t.Context(), t, hookBody(id(3), "vault-identity-ready", "LAUNCHING"), body(id(3), "running", "2026-01-02T03:04:09Z"))
	if seen := b.requests[id(3)]; len(seen) != 1 || !seen[0].AwaitNames.Equal(sent.Add(10*time.Minute)) {
		t.Errorf("want a later event in the batch not to prolong the wait, got %+v", seen)
	}
}

func TestTerminateHook_RemovesOnlyIfGroupConfirms(t *testing.T) {
	for name, row := range map[string]struct {
		state   autoscaling.GroupState
		late    time.Duration
		leaving bool
		call    string
		again   string
	}{
		"shown as waiting":             {autoscaling.GroupState{State: "Terminating:Wait"}, 0, true, "CONTINUE", "[]"},
		"shown as proceeding":          {autoscaling.GroupState{State: "Terminating:Proceed"}, 0, true, "CONTINUE", "[]"},
		"still shown in service":       {autoscaling.GroupState{State: "InService"}, 0, false, "beat", "[m0]"},
		"in service long after":        {autoscaling.GroupState{State: "InService"}, 11 * time.Minute, false, "CONTINUE", "[]"},
		"no longer in a group":         {autoscaling.GroupState{}, 0, false, "CONTINUE", "[]"},
		"Auto Scaling does not answer": {autoscaling.GroupState{Err: errors.New("throttled")}, 0, false, "beat", "[m0]"},
		"shown in the warm pool":       {autoscaling.GroupState{State: "Warmed:Pending:Wait"}, 11 * time.Minute, false, "CONTINUE", "[]"},
	} {
		b, g := hookBench(removes)
		b.now = b.now.Add(row.late)
		b.handler.Converger = seesErrors{b.outside}
		g.states[id(1)] = row.state
		b.outcomes[id(1)] = converge.Outcome{Action: converge.LeftAlone}
		again := b.batch(t.Context(), t, hookBody(id(1), "vault-identity-gone", "TERMINATING"))
		if fmt.Sprint(g.calls) != "["+row.call+" vault-identity-gone "+id(1)+"]" || fmt.Sprint(again) != row.again {
			t.Errorf("%s: Auto Scaling got %q and %v is delivered again, want %s and %s", name, g.calls, again, row.call, row.again)
		}
		seen := b.requests[id(1)]
		isWrong := len(seen) > 0 && seen[0].Leaving != row.leaving
		if isWrong || (row.leaving && len(seen) != 1) {
			t.Errorf("%s: want leaving to be %v, got %+v", name, row.leaving, seen)
		}
	}
}

// seesErrors fails for a sighting with an error, as converge does.
type seesErrors struct{ *outside }

func (s seesErrors) Converge(ctx context.Context, t converge.Request, seen instance.Sighting) (converge.Outcome, error) {
	if seen.Err != nil {
		return converge.Outcome{}, seen.Err
	}
	return s.outside.Converge(ctx, t, seen)
}

func TestWarmPool_ReturnKeepsTheGrant(t *testing.T) {
	b, g := hookBench(removes)
	g.states[id(1)] = autoscaling.GroupState{State: "Terminating:Wait"}
	b.outcomes[id(1)] = converge.Outcome{Action: converge.LeftAlone}
	b.batch(t.Context(), t, strings.Replace(hookBody(id(1), "vault-identity-gone", "TERMINATING"), `"detail":{`, `"detail":{"Destination":"WarmPool",`, 1))
	if seen := b.requests[id(1)]; len(seen) != 1 || seen[0].Leaving || fmt.Sprint(g.calls) != "[CONTINUE vault-identity-gone "+id(1)+"]" {
		t.Errorf("want nothing removed and the wait ended, got %+v, %q", seen, g.calls)
	}
}

func TestHook_OfOthersIsIgnored(t *testing.T) {
	for name, row := range map[string]struct {
		duties converge.Duties
		body   string
	}{
		"another team's name":          {makes, hookBody(id(1), "drain", "LAUNCHING")},
		"the prefix in another case":   {makes, hookBody(id(1), "Vault-ready", "LAUNCHING")},
		"a launch, for deprovision":    {removes, hookBody(id(1), "vault-identity-ready", "LAUNCHING")},
		"a termination, for provision": {makes, hookBody(id(1), "vault-identity-gone", "TERMINATING")},
	} {
		b, g := hookBench(row.duties)
		if again := b.batch(t.Context(), t, row.body); len(again)+len(g.calls)+len(b.requests) > 0 {
			t.Errorf("%s: want it ignored, got %v, %q, %v", name, again, g.calls, b.requests)
		}
		b.wrote(t, `"Ignored":1`)
	}
}

func TestHook_SharesARunWithTheStateChange(t *testing.T) {
	b, g := hookBench(makes)
	b.batch(t.Context(), t, hookBody(id(1), "vault-identity-ready", "LAUNCHING"), body(id(1), "running", "2026-01-02T03:04:09Z"), hookBody(id(1), "vault-identity-two", "LAUNCHING"))
	slices.Sort(g.calls)
	if seen := b.requests[id(1)]; len(seen) != 1 || !seen[0].Verify || fmt.Sprint(g.calls) != fmt.Sprintf("[CONTINUE vault-identity-ready %s CONTINUE vault-identity-two %s]", id(1), id(1)) {
		t.Errorf("want one comparison and both waits ended, got %+v, %q", seen, g.calls)
	}
}

func TestTerminateHook_EndsBeforeTheSecondCut(t *testing.T) {
	b, g := hookBench(removes)
	g.states[id(1)] = autoscaling.GroupState{State: "Terminating:Wait"}
	b.errs[id(1)] = fault.New(fault.Retry, converge.ErrUnfinished)
	again := b.batch(t.Context(), t, hookBody(id(1), "vault-identity-gone", "TERMINATING"))
	if fmt.Sprint(g.calls) != "[CONTINUE vault-identity-gone "+id(1)+"]" || fmt.Sprint(again) != "[m0]" {
		t.Errorf("want the wait ended and the message kept for the second look, got %q, %v", g.calls, again)
	}
}

// busy is a Converger whose first two tries find another run at work on the instance.
type busy struct {
	*outside
	tries int
}

func (b *busy) Converge(ctx context.Context, t converge.Request, s instance.Sighting) (converge.Outcome, error) {
	if b.tries++; b.tries < 3 {
		return converge.Outcome{}, fault.New(fault.Retry, ledger.ErrChanged)
	}
	return b.outside.Converge(ctx, t, s)
}

func TestHook_WaitsForTheRunUnderWay(t *testing.T) {
	b, g := hookBench(makes)
	b.handler.Converger = &busy{outside: b.outside}
	if again := b.batch(t.Context(), t, hookBody(id(1), "vault-identity-ready", "LAUNCHING")); len(again) > 0 || fmt.Sprint(g.calls) != "[CONTINUE vault-identity-ready "+id(1)+"]" {
		t.Errorf("want the wait ended in the same invocation, got %v, %q", again, g.calls)
	}
	b, _ = hookBench(makes)
	other := &busy{outside: b.outside}
	b.handler.Converger = other
	if again := b.batch(t.Context(), t, body(id(1), "running", at)); fmt.Sprint(again) != "[m0]" || other.tries != 1 {
		t.Errorf("want a state change left to the queue, got %v after %d tries", again, other.tries)
	}
}

func TestHook_RetriesCompletionAfterAnyOutcome(t *testing.T) {
	for name, err := range map[string]error{"granted": nil, "refused": fault.Refusef("two profiles")} {
		b, g := hookBench(makes)
		b.handler.Hooks.ContinueOnRefusal = true
		b.errs[id(1)], g.err = err, errors.New("throttled")
		if again := b.batch(t.Context(), t, hookBody(id(1), "vault-identity-ready", "LAUNCHING")); fmt.Sprint(again) != "[m0]" {
			t.Errorf("%s: want the message delivered again, since the hook would end by its own default result, got %v", name, again)
		}
	}
}

// Tags are set right after the launch. Their event says only that the instance is pending.
func TestLaunchHook_OutweighsALaterPendingEvent(t *testing.T) {
	b, _ := hookBench(makes)
	b.batch(t.Context(), t, hookBody(id(1), "vault-identity-ready", "LAUNCHING"), body(id(1), "pending", "2026-01-02T03:04:09Z"))
	if seen := b.requests[id(1)]; len(seen) != 1 || seen[0].Told != facts.Running {
		t.Errorf("want one run that is retried while a value is missing: at pending it would wait for the next event, and the hook be abandoned; got %+v", seen)
	}
}
