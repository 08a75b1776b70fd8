package handler_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/autoscaling"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// The decisions about a terminate hook's event, by the state that Auto Scaling shows.
const (
	removesGrant = "the grant is removed"
	keepsGrant   = "the wait is ended at once, the grant stays, the login is reset"
	asksAgain    = "Auto Scaling is asked again for ten minutes, then the wait is ended and the grant stays"
)

// decisions has every state that Auto Scaling can show. docs/auto-scaling.md has the same table.
var decisions = map[types.LifecycleState]string{
	"Terminating": removesGrant, "Terminating:Wait": removesGrant, "Terminating:Proceed": removesGrant, "Terminating:Retained": removesGrant, "Terminated": removesGrant,
	"Warmed:Terminating": removesGrant, "Warmed:Terminating:Wait": removesGrant, "Warmed:Terminating:Proceed": removesGrant,
	"Warmed:Terminating:Retained": removesGrant, "Warmed:Terminated": removesGrant,
	"ReplacingRootVolume": keepsGrant, "ReplacingRootVolume:Wait": keepsGrant, "ReplacingRootVolume:Proceed": keepsGrant, "RootVolumeReplaced": keepsGrant,
	"Pending": asksAgain, "Pending:Wait": asksAgain, "Pending:Proceed": asksAgain, "InService": asksAgain, "Quarantined": asksAgain,
	"EnteringStandby": asksAgain, "Standby": asksAgain, "Detaching": asksAgain, "Detached": asksAgain,
	"Warmed:Pending": asksAgain, "Warmed:Pending:Wait": asksAgain, "Warmed:Pending:Proceed": asksAgain, "Warmed:Pending:Retained": asksAgain,
	"Warmed:Stopped": asksAgain, "Warmed:Running": asksAgain, "Warmed:Hibernated": asksAgain,
}

func TestTerminateHook_DecidesEachGroupState(t *testing.T) {
	states := types.LifecycleState("").Values()
	if len(states) != len(decisions) {
		t.Errorf("Auto Scaling has %d states and %d are decided: decide the new ones here and in docs/auto-scaling.md", len(states), len(decisions))
	}
	for _, state := range states {
		want, decided := decisions[state]
		for late, isLate := range map[time.Duration]bool{time.Minute: false, 11 * time.Minute: true} {
			b, g := hookBench(removes)
			b.now = b.now.Add(late)
			b.handler.Converger = seesErrors{b.outside}
			g.states[id(1)] = autoscaling.GroupState{State: string(state)}
			b.outcomes[id(1)] = converge.Outcome{Action: converge.LeftAlone}
			if want == keepsGrant {
				b.outcomes[id(1)], b.errs[id(1)] = converge.Outcome{Action: converge.LoginReset}, fault.New(fault.Retry, converge.ErrReplacing)
			}
			again := b.batch(t.Context(), t, hookBody(id(1), "vault-identity-gone", "TERMINATING"))
			ended := strings.HasPrefix(strings.Join(g.calls, ""), "CONTINUE")
			comesBack := len(again) > 0
			request := converge.Request{}
			if seen := b.requests[id(1)]; len(seen) == 1 {
				request = seen[0]
			}
			got := fmt.Sprintf("%v %q %v %v", request.Leaving, request.Volume, ended, comesBack)
			expected := map[string]string{
				removesGrant: `true "" true false`,
				keepsGrant:   `false "replacing" true true`,
				asksAgain:    fmt.Sprintf(`false "" %v %v`, isLate, !isLate),
			}[want]
			if !decided || got != expected {
				t.Errorf("%s, %s after the event: want %q, that is %s; got %s (leaving, volume, wait ended, message back)", state, late, want, expected, got)
			}
		}
	}
}

// The event's Action says that the root volume is replaced. Without Auto Scaling's word it only has converge read the record.
func TestTerminateHook_ReportsAReplacedVolume(t *testing.T) {
	for state, want := range map[string]converge.Volume{"InService": converge.VolumeReplaced, "Pending:Wait": converge.VolumeReplaced, "": converge.VolumeReplaced, "ReplacingRootVolume:Wait": converge.VolumeReplacing, "Terminating:Wait": ""} {
		b, g := hookBench(removes)
		g.states[id(1)] = autoscaling.GroupState{State: state}
		b.outcomes[id(1)] = converge.Outcome{Action: converge.LoginReset}
		b.batch(t.Context(), t, strings.Replace(hookBody(id(1), "vault-identity-gone", "TERMINATING"), `"detail":{`, `"detail":{"Action":"ReplaceRootVolume",`, 1))
		if seen := b.requests[id(1)]; len(seen) != 1 || seen[0].Volume != want || fmt.Sprint(g.calls) != "[CONTINUE vault-identity-gone "+id(1)+"]" {
			t.Errorf("%q: want a request with volume %q and the wait ended, got %+v, %q", state, want, seen, g.calls)
		}
	}
}
