package converge_test

import (
	"errors"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// caused returns the request of an event, with its cause.
func (w *world) caused(by ledger.Cause, state facts.State) converge.Request {
	req := w.event(idA, state)
	req.By = by
	return req
}

// wantSpan fails if a span is not from the world's start to a time after it; without a cause it has no beginning.
func (w *world) wantSpan(what string, s *ledger.Span, by ledger.Cause, to time.Duration) {
	w.t.Helper()
	if s == nil || s.To == nil || s.By != by || (s.From != nil) != (by != "") {
		w.t.Fatalf("%s: want %q until %s, got %+v", what, by, to, s)
	}
	if (by != "" && !s.From.Equal(start)) || !s.To.Equal(start.Add(to)) {
		w.t.Errorf("%s: want it until %s, got %s to %s", what, to, s.From, s.To)
	}
}

// The time to ready is that of the first grant, from the first event that began it.
func TestReady_IsFromTheFirstEventThatBeganTheGrant(t *testing.T) {
	w, c := launched(t, both)
	first := w.caused(ledger.ByHook, facts.Running)
	w.breakOff(c, first, "vault write auth/", fault.New(fault.Retry, errors.New("sealed")))
	w.pass(5 * time.Minute) // a repair ends it
	w.mustAt(c, w.caused("", facts.Running), converge.Provisioned)
	w.wantSpan("ready", w.Records[idA].Ready, ledger.ByHook, 5*time.Minute)
	w.pass(time.Hour)
	w.show(idA, addAddress)
	w.mustAt(c, w.caused(ledger.ByEvent, facts.Running), converge.Provisioned)
	w.wantSpan("ready after a changed grant", w.Records[idA].Ready, ledger.ByHook, 5*time.Minute)
}

// A record of an earlier version has no time to ready, and a changed grant is not its first one.
func TestReady_OfAnEarlierRecordStaysUnknown(t *testing.T) {
	w, c := provisioned(t, both)
	w.edit(func(r *ledger.Record) { r.Ready = nil })
	w.show(idA, addAddress)
	w.mustAt(c, w.caused(ledger.ByEvent, facts.Running), converge.Provisioned)
	if s := w.Records[idA].Ready; s != nil {
		t.Errorf("want no time, got %+v", s)
	}
}

func TestCutTime_IsFromTheFirstEventThatBeganTheRemoval(t *testing.T) {
	w, c := provisioned(t, both)
	w.setState(facts.Terminated)
	w.breakOff(c, w.caused(ledger.ByEvent, facts.Terminated), "vault delete auth/", fault.New(fault.Retry, errors.New("sealed")))
	w.pass(5 * time.Minute)
	w.mustAt(c, w.caused("", facts.Terminated), converge.Deprovisioned)
	r := w.Records[idA]
	w.wantSpan("cut", r.Cut, ledger.ByEvent, 5*time.Minute)
	if r.State != ledger.Deleted || r.Ready == nil {
		t.Errorf("want the tombstone to have both times, got %+v", r)
	}
	w.setState(facts.Running) // and a new grant has its own times
	w.pass(time.Hour)
	w.mustAt(c, w.caused("", facts.Running), converge.Provisioned)
	w.wantSpan("ready again", w.Records[idA].Ready, "", 65*time.Minute)
	if s := w.Records[idA].Cut; s != nil {
		t.Errorf("want no cut of a live grant, got %+v", s)
	}
}

// The removal of an instance that never had a grant cut nothing.
func TestCutTime_IsNoneWithoutAGrant(t *testing.T) {
	w, c := launched(t, both)
	w.Records[idA] = ledger.Record{InstanceID: idA, State: ledger.Refused, Account: "123456789012", Region: "us-east-1"}
	w.setState(facts.Terminated)
	w.mustAt(c, w.caused(ledger.ByEvent, facts.Terminated), converge.Deprovisioned)
	if s := w.Records[idA].Cut; s != nil {
		t.Errorf("want no time, got %+v", s)
	}
}

// The time to cut-off of a quarantine is from its mark, also if Vault was away; what appears after it is removed by a repair.
func TestCutTime_OfAQuarantineIsFromItsMark(t *testing.T) {
	w, c := provisioned(t, both)
	w.breakOff(c, w.quarantines(idA), "vault delete auth/", fault.New(fault.Retry, errors.New("sealed")))
	w.pass(5 * time.Minute)
	w.must(c, idA, facts.Running, converge.Deprovisioned)
	w.wantSpan("cut", w.Records[idA].Cut, ledger.ByQuarantine, 5*time.Minute)
}
