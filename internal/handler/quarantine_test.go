package handler_test

import (
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/autoscaling"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

func TestOrder_NeedsAnInvokerThatWaits(t *testing.T) {
	h, _ := newReconcile()
	const in = `{"mode":"release","instanceIds":["i-0123456789abcdef0"],"by":"alice","reason":"ended"}`
	message := `{"Records":[{"messageId":"m","body":` + quoted(in) + `}]}`
	if _, err := h.Invoke(t.Context(), []byte(message)); fault.KindOf(err) != fault.Refuse {
		t.Errorf("want no release by a message of a queue, got %v", err)
	}
	out, err := h.Invoke(t.Context(), []byte(strings.Replace(in, "release", "quarantine", 1)))
	if err != nil || !strings.Contains(string(out), `"status":"refused"`) || !strings.Contains(string(out), `"ok":false`) {
		t.Errorf("want an unknown instance refused, got %s, %v", out, err)
	}
}

func quoted(s string) string { return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"` }

func TestOrder_IsAuditedAlsoIfTheRemovalFails(t *testing.T) {
	b := newBench()
	sent := &bus{}
	b.handler.Bus = sent
	mark := &ledger.Quarantine{By: "alice", Reason: "a strange login", Source: ledger.ByCommand, Since: b.now}
	b.outcomes[id(0)] = converge.Outcome{Quarantined: mark}
	b.errs[id(0)] = fault.Retryf("Vault is away")
	released := *mark
	released.ReleasedAt, released.ReleasedBy, released.ReleaseReason = &b.now, "bob", "a false alarm"
	b.outcomes[id(1)] = converge.Outcome{Action: converge.InQuarantine, Released: &released}
	for _, text := range []string{body(id(0), "running", at), body(id(1), "running", at)} {
		_, _ = b.handler.Invoke(t.Context(), []byte(text))
	}
	var got []string
	for _, e := range sent.events {
		if q := e.Detail.Quarantine; q != nil && q.Since.Equal(b.now) && q.Source == "command" {
			got = append(got, e.Type+" by "+q.By+": "+q.Reason)
		}
	}
	want := audit.Quarantined + " by alice: a strange login; " + audit.Released + " by bob: a false alarm"
	if strings.Join(got, "; ") != want {
		t.Errorf("want %q, got %q", want, got)
	}
	b.wrote(t, `"Quarantined":1`, `"Released":1`, "put into quarantine", "released from quarantine")
}

// Neither result is right for an instance under investigation: the owner of the hook chose one.
func TestLaunchHook_OfQuarantinedIsLeftToItsDefault(t *testing.T) {
	for _, continues := range []bool{false, true} {
		b, g := hookBench(converge.Duties{Make: true})
		b.handler.Hooks.ContinueOnRefusal = continues
		b.outcomes[id(0)] = converge.Outcome{Action: converge.InQuarantine}
		if _, err := b.handler.Invoke(t.Context(), []byte(hookBody(id(0), "vault-identity-ready", "LAUNCHING"))); err != nil {
			t.Error(err)
		}
		if len(g.calls) > 0 {
			t.Errorf("want no result for the hook, got %v", g.calls)
		}
		b.wrote(t, "is in quarantine: its lifecycle hook ends by its own default result")
	}
}

func TestTerminateHook_OfQuarantinedContinues(t *testing.T) {
	b, g := hookBench(converge.Duties{Remove: true})
	b.outcomes[id(0)] = converge.Outcome{Action: converge.InQuarantine}
	_, _ = b.handler.Invoke(t.Context(), []byte(hookBody(id(0), "vault-identity-terminate", "TERMINATING")))
	if len(g.calls) != 1 || !strings.Contains(g.calls[0], string(autoscaling.Continue)) {
		t.Errorf("want the hook continued, got %v", g.calls)
	}
}

// The other run may have died: an order is tried until its lease is over. A state change is left to the queue.
func TestOrder_WaitsForTheRunUnderWay(t *testing.T) {
	h, e := newReconcile()
	other := &busy{outside: e.bench.outside}
	h.Converger = other
	_, _ = h.Invoke(t.Context(), []byte(`{"mode":"quarantine","instanceIds":["i-0123456789abcdef0"],"by":"alice","reason":"r","account":"123456789012","region":"us-east-1"}`))
	if other.tries != 3 {
		t.Errorf("want the order tried until the record is free, got %d tries\n%s", other.tries, e.bench.log.String())
	}
}
