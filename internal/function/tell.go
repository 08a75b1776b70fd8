package function

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// takenOver tells of the instances that were removed because this one takes a name of theirs: their own events will find
// nothing left.
func (v *invocation) takenOver(ctx context.Context, t event.Trigger, r result) {
	for _, o := range r.outcome.TakenOver {
		of := event.Trigger{InstanceID: o.InstanceID, Account: o.Account, Region: o.Region, Time: t.Time, Verify: true}
		log := v.log.With(observe.KeyInstance, o.InstanceID, observe.KeyAccount, o.Account, observe.KeyRegion, o.Region,
			observe.KeyProfile, o.Outcome.Profile, observe.KeyFQDN, o.Outcome.FQDN, observe.KeyTakenBy, t.InstanceID)
		if o.Err != nil {
			v.failed(ctx, log, of, result{outcome: o.Outcome, err: o.Err})
			continue
		}
		v.removed(ctx, log, of, result{outcome: o.Outcome})
	}
}

// removed tells of a removal, once: not again when it is only looked after once more.
func (v *invocation) removed(ctx context.Context, log *slog.Logger, t event.Trigger, r result) {
	o := r.outcome
	if o.Again {
		log.InfoContext(ctx, "looked after once more, now that no login can be under way", observe.KeyCut, o.Cut)
		return
	}
	if len(o.Paths) == 0 && o.Cut == 0 {
		v.metrics.Count(observe.Unchanged)
		log.DebugContext(ctx, "it never had anything: its record is closed")
		return
	}
	v.metrics.Count(observe.Deprovisioned)
	if !t.Verify || t.Hook != nil {
		v.metrics.Time(observe.TimeToCutOff, o.CutAt.Sub(t.Time))
	}
	v.audit(ctx, observe.AuditRemoved, t, result{outcome: o})
	log.InfoContext(ctx, "removed", observe.KeyCut, o.Cut, observe.KeyAudit, observe.AuditRemoved)
}

// audit keeps an event of the instance's for the bus.
func (v *invocation) audit(ctx context.Context, kind string, t event.Trigger, r result) {
	o := r.outcome
	d := audit.Detail{
		InstanceID: t.InstanceID, Account: t.Account, Region: t.Region,
		Profile: o.Profile, FQDN: o.FQDN, Addresses: o.Addresses, Objects: o.Paths,
	}
	if r.err != nil {
		d.Kind, d.Error = fault.KindOf(r.err).String(), r.err.Error()
	}
	v.keep(ctx, kind, d)
}

// keep fills in what every event tells.
func (v *invocation) keep(ctx context.Context, kind string, d audit.Detail) {
	d.Deployment, d.Function, d.RequestID = v.Deployment, v.Name, v.requestID
	v.trail.Add(ctx, audit.Event{Type: kind, Time: v.Now(), Detail: d})
}

func (v *invocation) failed(ctx context.Context, log *slog.Logger, t event.Trigger, r result) {
	kind := fault.KindOf(r.err)
	log = log.With(observe.KeyKind, kind.String(), observe.KeyError, fmt.Sprint(r.err))
	switch kind {
	case fault.Refuse:
		v.metrics.Count(observe.Refused)
		v.audit(ctx, observe.AuditRefused, t, r)
		log.ErrorContext(ctx, "refused", observe.KeyAudit, observe.AuditRefused)
	case fault.Conflict:
		v.metrics.Count(observe.Conflicting)
		v.audit(ctx, observe.AuditConflict, t, r)
		log.ErrorContext(ctx, "conflict", observe.KeyAudit, observe.AuditConflict)
	default:
		v.metrics.Count(observe.Retried)
		log.WarnContext(ctx, "not done, to be tried again")
	}
}
