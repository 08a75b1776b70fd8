package handler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// logOf returns the invocation's logger for one instance.
func (inv *invocation) logOf(r facts.Ref) *slog.Logger {
	return inv.log.With(observe.KeyInstance, r.ID, observe.KeyAccount, r.Account, observe.KeyRegion, r.Region)
}

// report writes the log line, the metrics and the audit events of one instance's result.
func (inv *invocation) report(ctx context.Context, t task, s instance.Sighting, r result, took time.Duration) {
	inv.reportHolders(ctx, t, r)
	inv.reportQuarantine(ctx, t, r)
	attributes := []any{
		observe.KeyState, s.Facts.State, observe.KeyDuration, took.Milliseconds(),
		observe.KeyProfile, r.outcome.Profile, observe.KeyFQDN, r.outcome.FQDN,
	}
	log := inv.logOf(t.Ref)
	if errors.Is(r.err, converge.ErrUnfinished) {
		if r.outcome.Action == converge.Deprovisioned {
			inv.reportRemoved(ctx, log.With(attributes...), t, r)
		}
		if errors.Is(r.err, converge.ErrCertificatesLeft) {
			log.WarnContext(ctx, "removed, but certificates of the instance are still valid", observe.KeyError, r.err)
		}
		return
	}
	isReplacing := errors.Is(r.err, converge.ErrReplacing)
	if r.outcome.Action == converge.LoginReset && (r.err == nil || isReplacing) {
		inv.metrics.Count(observe.LeftAlone)
		log.InfoContext(ctx, "login reset: the root volume is replaced, and the next login chooses a new nonce", append(attributes, observe.KeyAction, r.outcome.Action)...)
		return
	}
	if isReplacing {
		inv.metrics.Count(observe.LeftAlone)
		log.InfoContext(ctx, "the root volume is being replaced: the login is reset once EC2 shows the new one", attributes...)
		return
	}
	if r.err != nil {
		inv.reportFailed(ctx, log.With(attributes...), t, r)
		return
	}
	attributes = append(attributes, observe.KeyAction, r.outcome.Action, observe.KeyObjects, r.outcome.Objects)
	switch r.outcome.Action {
	case converge.Provisioned:
		inv.metrics.Count(observe.Provisioned)
		if t.isTimed() {
			inv.metrics.Time(observe.TimeToReady, inv.Now().Sub(t.At))
		}
		inv.audit(ctx, audit.Granted, t, r)
		log.InfoContext(ctx, "granted", append(attributes, observe.KeyAudit, audit.Granted)...)
	case converge.Deprovisioned:
		inv.reportRemoved(ctx, log.With(attributes...), t, r)
	case converge.Unmatched:
		inv.metrics.Count(observe.Unmatched)
		if log.Enabled(ctx, slog.LevelDebug) {
			log.DebugContext(ctx, "no profile fits", append(attributes, observe.KeyError, "the closest is "+closestOf(r.outcome))...)
		}
	case converge.Unchanged:
		inv.metrics.Count(observe.Unchanged)
		log.DebugContext(ctx, "nothing to do", attributes...)
	case converge.TornDown:
		inv.metrics.Count(observe.LeftAlone)
		log.WarnContext(ctx, "nothing is granted: this deployment is torn down; delete the item teardown from the ledger's table to take it up again", attributes...)
	case converge.InQuarantine:
		inv.metrics.Count(observe.LeftAlone)
		log.InfoContext(ctx, "left alone: the instance is in quarantine, and gets no grant until it is released", attributes...)
	default:
		inv.metrics.Count(observe.LeftAlone)
		log.DebugContext(ctx, "left alone", attributes...)
	}
}

// isTimed reports whether the time since t.At is measured: a repair has no event to measure from.
func (t task) isTimed() bool { return !t.Verify || t.hook != nil }

// cause returns the cause that the ledger records with the times of a grant.
func (t task) cause() ledger.Cause {
	switch {
	case t.hook != nil:
		return ledger.ByHook
	case t.isTimed():
		return ledger.ByEvent
	}
	return ""
}

// reportHolders reports the instances that were removed because this one takes a name of theirs: their own events will
// find nothing left.
func (inv *invocation) reportHolders(ctx context.Context, t task, r result) {
	for _, h := range r.outcome.RemovedHolders {
		of := task{Request: converge.Request{Ref: h.Ref, At: t.At, Verify: true}}
		log := inv.logOf(h.Ref).With(observe.KeyProfile, h.Outcome.Profile, observe.KeyFQDN, h.Outcome.FQDN, observe.KeyTakenBy, t.ID)
		if h.Err != nil {
			inv.reportFailed(ctx, log, of, result{outcome: h.Outcome, err: h.Err})
			continue
		}
		inv.reportRemoved(ctx, log, of, result{outcome: h.Outcome})
	}
}

// reportRemoved reports a removal once: the second cut of the same removal has a log line only.
func (inv *invocation) reportRemoved(ctx context.Context, log *slog.Logger, t task, r result) {
	o := r.outcome
	if o.SecondCut {
		log.InfoContext(ctx, "second token cut done: no login can be in flight", observe.KeyCut, o.Cut)
		return
	}
	if len(o.Paths) == 0 && o.Cut == 0 {
		inv.metrics.Count(observe.Unchanged)
		log.DebugContext(ctx, "the instance never had a grant: its record is closed")
		return
	}
	inv.metrics.Count(observe.Deprovisioned)
	if t.isTimed() {
		inv.metrics.Time(observe.TimeToCutOff, o.CutAt.Sub(t.At))
	}
	inv.audit(ctx, audit.Removed, t, result{outcome: o})
	removed := "removed"
	if t.Gone {
		removed = "removed by an operator's word"
	}
	log.InfoContext(ctx, removed, observe.KeyCut, o.Cut, observe.KeyAudit, audit.Removed)
}

// reportFailed reports a result with an error, by its fault kind.
func (inv *invocation) reportFailed(ctx context.Context, log *slog.Logger, t task, r result) {
	kind := fault.KindOf(r.err)
	log = log.With(observe.KeyKind, kind.String(), observe.KeyError, fmt.Sprint(r.err))
	switch kind {
	case fault.Refuse:
		inv.metrics.Count(observe.Refused)
		inv.audit(ctx, audit.Refused, t, r)
		log.ErrorContext(ctx, "refused", observe.KeyAudit, audit.Refused)
	case fault.Conflict:
		inv.metrics.Count(observe.Conflicting)
		inv.audit(ctx, audit.Conflict, t, r)
		log.ErrorContext(ctx, "conflict", observe.KeyAudit, audit.Conflict)
	default:
		inv.metrics.Count(observe.Retried)
		log.WarnContext(ctx, "not done, to be tried again")
	}
}

// audit adds an audit event about an instance's result.
func (inv *invocation) audit(ctx context.Context, kind string, t task, r result) {
	o := r.outcome
	d := audit.Detail{
		InstanceID: t.ID, Account: t.Account, Region: t.Region,
		Profile: o.Profile, FQDN: o.FQDN, Addresses: o.Addresses, Objects: o.Paths, ByWord: t.Gone,
	}
	if r.err != nil {
		d.Kind, d.Error = fault.KindOf(r.err).String(), r.err.Error()
	}
	inv.addAudit(ctx, kind, d)
}

// addAudit adds an audit event, with the fields that are the same in every event of the invocation.
func (inv *invocation) addAudit(ctx context.Context, kind string, d audit.Detail) {
	d.Deployment, d.Function, d.RequestID = inv.Deployment, inv.Name, inv.requestID
	inv.trail.Add(ctx, audit.Event{Type: kind, Time: inv.Now(), Detail: d})
}
