package function

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
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/lifecycle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// Examiner examines what surrounds the functions.
type Examiner interface {
	Examine(ctx context.Context) doctor.Report
}

// Sender sends to reconcile's own queue.
type Sender interface {
	SendBody(ctx context.Context, body []byte, delay time.Duration) error
}

const (
	// settleTime is a little more than how long a removal settles: Vault's longest request.
	settleTime = 100 * time.Second
	// perMessage is how many instances one message of reconcile's own names.
	perMessage = 200
)

// ReconcileHandler answers the invocations of the reconcile function. It holds nothing of an invocation.
type ReconcileHandler struct {
	Handler
	Reconciler *reconcile.Reconciler
	Doctor     Examiner
	// Own is the queue by which a run goes on that nobody waits for; nil for none.
	Own Sender
}

// Invoke handles one payload: an input by hand, an event of the schedule, or the next part of a run from the function's
// own queue. A run that outlasts the invocation answers with a cursor: whoever invoked by hand invokes again with it; a
// run that nobody waits for goes on by the queue.
func (h *ReconcileHandler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	run, finish := h.begin(ctx)
	defer finish()
	in, waitedFor, err := parseInput(payload)
	if err != nil {
		run.metrics.Count(observe.Malformed)
		run.log.ErrorContext(ctx, "payload refused", observe.KeyError, err)
		return nil, err
	}
	if in.Mode == reconcile.Doctor {
		return json.Marshal(h.Doctor.Examine(ctx))
	}
	if in.Mode == reconcile.Teardown {
		return h.tearDown(ctx, run, in, waitedFor)
	}
	answer := h.Reconciler.Run(ctx, in, run, reconcile.Witness{Log: run.log, Drift: run.drifted})
	defer run.show(ctx) // a tag that could not be set is told, and no drift
	h.lookAgain(ctx, run, reconcile.Input{Mode: reconcile.Correct, Force: true}, answer.Settling)
	s := answer.Summary
	if in.Cursor != nil {
		s = s.Since(in.Cursor.Summary)
	}
	for name, n := range map[string]int{
		observe.DriftMissing: s.Missing, observe.DriftChanged: s.Changed, observe.DriftOrphaned: s.Orphaned, observe.DriftConflict: s.Conflicting,
		observe.DriftCorrected: s.Corrected, observe.DriftFailed: s.Failed, observe.DriftEnqueued: s.Enqueued,
	} {
		run.metrics.Add(name, n)
	}
	blocked := 0 // told as well: an alarm that hears nothing would fall silent between two runs
	if answer.Blocked {
		blocked = 1
	}
	run.metrics.Add(observe.Blocked, blocked)
	if answer.Cursor == nil {
		run.metrics.Count(observe.Reconciled)
		if answer.Compared && len(in.InstanceIDs) == 0 && in.Profile == "" {
			run.metrics.Time(observe.SweepAge, time.Duration(answer.DurationMs)*time.Millisecond)
		}
	} else if !waitedFor {
		if err := h.goOn(ctx, in, answer.Cursor); err != nil {
			return nil, err
		}
	}
	return json.Marshal(answer)
}

// tearDown removes what the deployment made, once it is clear that this one is meant.
func (h *ReconcileHandler) tearDown(ctx context.Context, run *invocation, in reconcile.Input, waitedFor bool) ([]byte, error) {
	if in.Confirm != h.Deployment {
		err := fault.Refusef("confirm is %+q, and this deployment is %q: nothing was touched", in.Confirm, h.Deployment)
		run.log.ErrorContext(ctx, "teardown refused", observe.KeyError, err)
		return nil, err
	}
	answer := h.Reconciler.TearDown(ctx, in, run, reconcile.Witness{Log: run.log, Drift: run.drifted})
	defer run.show(ctx)
	h.lookAgain(ctx, run, reconcile.Input{Mode: reconcile.Teardown, Confirm: in.Confirm}, answer.Settling)
	if answer.Cursor != nil && !waitedFor {
		if err := h.goOn(ctx, in, answer.Cursor); err != nil {
			return nil, err
		}
	}
	return json.Marshal(answer)
}

// goOn hands the rest of a run to the next invocation.
func (h *ReconcileHandler) goOn(ctx context.Context, in reconcile.Input, at *reconcile.Cursor) error {
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

// lookAgain has removals looked after once more, by this input for these instances, when no login can be under way any
// more.
func (h *ReconcileHandler) lookAgain(ctx context.Context, run *invocation, in reconcile.Input, instanceIDs []string) {
	for part := range slices.Chunk(instanceIDs, perMessage) {
		in.InstanceIDs = part
		body, err := json.Marshal(in)
		if err == nil && h.Own == nil {
			err = errors.New("RECONCILE_QUEUE_URL is not set: the next run does it")
		}
		if err == nil {
			err = h.Own.SendBody(ctx, body, settleTime)
		}
		if err != nil {
			run.log.WarnContext(ctx, "removals are not looked after once more in time", observe.KeyObjects, len(part), observe.KeyError, err)
		}
	}
}

// drifted keeps the audit event of a row.
func (v *invocation) drifted(ctx context.Context, d reconcile.Drift, at instance.Place, profile string) {
	v.keep(ctx, observe.AuditDrift, audit.Detail{
		InstanceID: d.InstanceID, Account: at.Account, Region: at.Region, Profile: profile, Error: d.Error,
		Drift: &audit.Drift{Object: string(d.Object), Path: d.Path, Reason: string(d.Reason), Action: string(d.Action), Fields: d.Fields},
	})
}

// Converge makes true what one instance's present state asks for, and tells of it as the other functions do.
func (v *invocation) Converge(ctx context.Context, t event.Trigger, s instance.Sighting) (lifecycle.Outcome, error) {
	r := v.converge(ctx, t, s)
	return r.outcome, r.err
}

// parseInput takes a payload for what it is. waitedFor tells that somebody reads the answer. What is not known in an
// input by hand is refused: a misspelt instanceIds would set the whole fleet right.
func parseInput(payload []byte) (in reconcile.Input, waitedFor bool, err error) {
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
	waitedFor = true
	switch {
	case probe.DetailType != nil:
		return in, false, nil // a schedule's, whatever else it says
	case len(probe.Records) > 1:
		return in, false, fault.Refusef("reading the payload: %d messages at once: the queue's mapping must have a BatchSize of 1", len(probe.Records))
	case len(probe.Records) == 1:
		payload, waitedFor = []byte(probe.Records[0].Body), false
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return in, waitedFor, fault.Refusef("reading the input: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return in, waitedFor, fault.Refusef("reading the input: something stands behind it")
	}
	if err := reconcile.CheckInput(in); err != nil {
		return in, waitedFor, fault.Refusef("reading the input: %w", err)
	}
	return in, waitedFor, nil
}
