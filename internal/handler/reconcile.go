package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// Examiner checks the surroundings of the functions: AWS, Vault, the ledger.
type Examiner interface {
	Examine(ctx context.Context) doctor.Report
}

// Sender sends to reconcile's own queue.
type Sender interface {
	SendBody(ctx context.Context, body []byte, delay time.Duration) error
}

const (
	// secondCutDelay is the time from the first cut to the second one: no login can be in flight, and the record's QuietUntil is
	// over.
	secondCutDelay = converge.LoginTime + 5*time.Second
	// perMessage is how many instances one message of reconcile's own queue names.
	perMessage = 200
)

// ReconcileHandler answers the invocations of the reconcile function. It keeps no state between invocations.
//
// An invocation is the Converger of the reconcile package, and its auditDrift serves the Observer. Reconcile decides which
// instance to converge and calls back for it; so the instance's log line, metrics and audit events are as in the other
// functions. The Instances and Hooks of the embedded Handler are not used.
type ReconcileHandler struct {
	Handler
	Reconciler *reconcile.Reconciler
	Doctor     Examiner
	Explainer  Explainer
	Finder     Finder
	// Sweeper finds the certificates of ended instances; nil where they are left valid.
	Sweeper CertificateSweeper
	Report  LedgerReader
	// Namespace is Vault's namespace, which the answers name; empty for the root one.
	Namespace string
	// Rehearse returns what compares the fleet by a packed bundle of profiles, or an error for a bundle that does not pass.
	Rehearse func(packed []byte) (Rehearsal, error)
	// NoProfiles is why there are no profiles; every input but a rehearsal and a question fails with it. nil if there are some.
	NoProfiles error
	// Own is the queue that continues a run without a waiting invoker; nil for no queue.
	Own Sender
}

// Invoke handles one payload: an input by hand, an event of the schedule, or the next part of a run from the function's
// own queue. A run that outlasts the invocation returns a cursor. An invoker by hand invokes again with it; a run without
// a waiting invoker continues by the queue.
func (h *ReconcileHandler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	inv, finish := h.begin(ctx)
	defer finish()
	in, hasInvoker, err := parseInput(payload)
	if err != nil {
		inv.metrics.Count(observe.Malformed)
		inv.log.ErrorContext(ctx, "payload refused", observe.KeyError, err)
		return nil, err
	}
	if len(in.Profiles) > 0 {
		return h.rehearse(ctx, inv, in, hasInvoker)
	}
	if in.Mode.IsQuestion() {
		return h.answerQuestion(ctx, inv, in, hasInvoker)
	}
	if in.Mode == reconcile.Quarantine { // it needs no profile: a removal deletes the recorded paths
		return h.order(ctx, inv, in, hasInvoker)
	}
	if h.NoProfiles != nil {
		return nil, h.NoProfiles
	}
	if in.Mode == reconcile.Release {
		return h.order(ctx, inv, in, hasInvoker)
	}
	if in.Mode == reconcile.Doctor {
		return json.Marshal(h.Doctor.Examine(ctx))
	}
	if in.Mode == reconcile.Teardown {
		return h.tearDown(ctx, inv, in, hasInvoker)
	}
	if in.Gone != nil {
		return h.removeGone(ctx, inv, in, hasInvoker)
	}
	if in.Mode == reconcile.Certificates {
		return h.sweepCertificates(ctx, inv, in, hasInvoker)
	}
	answer := h.Reconciler.Run(ctx, in, inv, reconcile.Observer{Log: inv.log, Drift: inv.auditDrift})
	answer.Namespace = h.Namespace
	defer inv.tagInstances(ctx) // a tag that could not be set is logged, and is no drift
	h.scheduleSecondCut(ctx, inv, answer.Unfinished, func(ids []string) reconcile.Input {
		return reconcile.Input{Mode: reconcile.Correct, Force: true, InstanceIDs: ids}
	})
	s := answer.Summary
	if in.Cursor != nil {
		s = s.Since(in.Cursor.Summary)
	}
	for name, n := range map[string]int{
		observe.DriftMissing: s.Missing, observe.DriftChanged: s.Changed, observe.DriftOrphaned: s.Orphaned, observe.DriftConflict: s.Conflicting,
		observe.DriftCorrected: s.Corrected, observe.DriftFailed: s.Failed, observe.DriftEnqueued: s.Enqueued,
	} {
		inv.metrics.Add(name, n)
	}
	blocked := 0 // written too: without data the alarm would end between two runs
	if answer.Blocked {
		blocked = 1
	}
	inv.metrics.Add(observe.Blocked, blocked)
	if answer.Cursor == nil {
		inv.metrics.Count(observe.Reconciled)
		isWhole := answer.Compared && len(in.InstanceIDs) == 0 && in.Profile == ""
		if isWhole && !hasInvoker {
			h.queueSweep(ctx, inv)
		}
		if isWhole {
			inv.metrics.Time(observe.SweepAge, time.Duration(answer.DurationMs)*time.Millisecond)
		}
	}
	return h.answer(ctx, in, answer, hasInvoker)
}

// tearDown removes all objects of the deployment, if the input confirms its ID.
func (h *ReconcileHandler) tearDown(ctx context.Context, inv *invocation, in reconcile.Input, hasInvoker bool) ([]byte, error) {
	if in.Confirm != h.Deployment {
		err := fault.Refusef("confirm is %+q, and this deployment is %q: nothing was touched", in.Confirm, h.Deployment)
		inv.log.ErrorContext(ctx, "teardown refused", observe.KeyError, err)
		return nil, err
	}
	answer := h.Reconciler.TearDown(ctx, in, inv, reconcile.Observer{Log: inv.log, Drift: inv.auditDrift})
	answer.Namespace = h.Namespace
	defer inv.tagInstances(ctx)
	h.scheduleSecondCut(ctx, inv, answer.Unfinished, func(ids []string) reconcile.Input {
		return reconcile.Input{Mode: reconcile.Teardown, Confirm: in.Confirm, InstanceIDs: ids}
	})
	return h.answer(ctx, in, answer, hasInvoker)
}

// answer returns an answer as JSON. A run without an invoker that is not done goes on by the queue.
func (h *ReconcileHandler) answer(ctx context.Context, in reconcile.Input, a reconcile.Answer, hasInvoker bool) ([]byte, error) {
	if a.Cursor != nil && !hasInvoker {
		if err := h.continueByQueue(ctx, in, a.Cursor); err != nil {
			return nil, err
		}
	}
	return json.Marshal(a)
}

// continueByQueue hands the rest of a run to the next invocation.
func (h *ReconcileHandler) continueByQueue(ctx context.Context, in reconcile.Input, at *reconcile.Cursor) error {
	if h.Own == nil {
		return errors.New("the run outlasted this invocation and RECONCILE_QUEUE_URL is not set: the rest waits for the next run, which begins at the start; set it, or give the function more time")
	}
	in.Cursor = at
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("handing on the rest of the run: %w", err)
	}
	return h.Own.SendBody(ctx, body, 0)
}

// removeGone removes what is recorded of accounts and instances by an operator's word. It is no comparison of the fleet, so it
// counts for no metric of one.
func (h *ReconcileHandler) removeGone(ctx context.Context, inv *invocation, in reconcile.Input, hasInvoker bool) ([]byte, error) {
	inv.log.WarnContext(ctx, "an operator said that these are gone", observe.KeyMode, in.Mode, observe.KeyAccount, in.Gone.Accounts,
		observe.KeyInstance, in.Gone.InstanceIDs, observe.KeyObjects, in.Gone.AtMost)
	answer := h.Reconciler.RemoveGone(ctx, in, inv, reconcile.Observer{Log: inv.log, Drift: inv.auditDrift})
	answer.Namespace = h.Namespace
	h.scheduleSecondCut(ctx, inv, answer.Unfinished, func(ids []string) reconcile.Input {
		return reconcile.Input{Mode: reconcile.Correct, Force: true, Gone: &reconcile.Gone{InstanceIDs: ids, AtMost: len(ids)}}
	})
	return h.answer(ctx, in, answer, hasInvoker)
}

// scheduleSecondCut queues an input for each part of these instances, delayed until no login can be in flight.
func (h *ReconcileHandler) scheduleSecondCut(ctx context.Context, inv *invocation, instanceIDs []string, input func(ids []string) reconcile.Input) {
	for part := range slices.Chunk(instanceIDs, perMessage) {
		body, err := json.Marshal(input(part))
		if err == nil && h.Own == nil {
			err = errors.New("RECONCILE_QUEUE_URL is not set: the next run does it")
		}
		if err == nil {
			err = h.Own.SendBody(ctx, body, secondCutDelay)
		}
		if err != nil {
			inv.log.WarnContext(ctx, "the second token cut of these removals is late: the next run does it", observe.KeyObjects, len(part), observe.KeyError, err)
		}
	}
}

// auditDrift adds the audit event of a row.
func (inv *invocation) auditDrift(ctx context.Context, d reconcile.Drift, at facts.Place, profile string) {
	inv.addAudit(ctx, audit.Drifted, audit.Detail{
		InstanceID: d.InstanceID, Account: at.Account, Region: at.Region, Profile: profile, Error: d.Error,
		Drift: &audit.Drift{Object: string(d.Object), Path: d.Path, Reason: string(d.Reason), Action: string(d.Action), Fields: d.Fields},
	})
}

// Converge converges one instance for reconcile, and reports it as the other functions do.
func (inv *invocation) Converge(ctx context.Context, req converge.Request, s instance.Sighting) (converge.Outcome, error) {
	r := inv.converge(ctx, task{Request: req, waits: req.Quarantine != nil || req.Release != nil}, s)
	return r.outcome, r.err
}

// parseInput reads a payload. hasInvoker reports whether an invoker waits for the answer. Unknown fields of an input by
// hand are refused: with a misspelt instanceIds the run would repair the whole fleet.
func parseInput(payload []byte) (in reconcile.Input, hasInvoker bool, err error) {
	payload = bytes.TrimSpace(payload)
	if len(payload) == 0 || bytes.Equal(payload, []byte("null")) {
		return in, true, nil
	}
	var probe struct {
		DetailType *string `json:"detail-type"`
		Records    []events.SQSMessage
	}
	if err := json.Unmarshal(payload, &probe); err != nil {
		return in, true, fault.Refusef("reading the payload: %w", err)
	}
	hasInvoker = true
	switch {
	case probe.DetailType != nil:
		return in, false, nil // an event of the schedule, whatever its other fields
	case len(probe.Records) > 1:
		return in, false, fault.Refusef("reading the payload: %d messages at once: the queue's mapping must have a BatchSize of 1", len(probe.Records))
	case len(probe.Records) == 1:
		payload, hasInvoker = []byte(probe.Records[0].Body), false
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return in, hasInvoker, fault.Refusef("reading the input: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return in, hasInvoker, fault.Refusef("reading the input: there is text after the JSON object")
	}
	if err := reconcile.CheckInput(in); err != nil {
		return in, hasInvoker, fault.Refusef("reading the input: %w", err)
	}
	return in, hasInvoker, nil
}
