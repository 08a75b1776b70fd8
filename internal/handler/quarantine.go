package handler

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// order carries out mode quarantine or release. Only an invoker that waits can order: no message of a queue releases an instance.
func (h *ReconcileHandler) order(ctx context.Context, inv *invocation, in reconcile.Input, hasInvoker bool) ([]byte, error) {
	if !hasInvoker {
		return nil, fault.Refusef("reading the input: mode %s is for an invoker that waits", in.Mode)
	}
	defer inv.tagInstances(ctx)
	answer := h.Reconciler.Order(ctx, in, inv)
	answer.Namespace = h.Namespace
	for _, o := range answer.Instances {
		level := slog.LevelInfo
		if o.Error != "" {
			level = slog.LevelError
		}
		inv.log.Log(ctx, level, "order carried out", observe.KeyMode, in.Mode, observe.KeyInstance, o.InstanceID, observe.KeyState, o.Status,
			observe.KeyBy, in.By, observe.KeyReason, in.Reason, observe.KeyCut, o.Cut, observe.KeyError, o.Error)
	}
	h.scheduleSecondCut(ctx, inv, answer.Unfinished, func(ids []string) reconcile.Input {
		return reconcile.Input{Mode: reconcile.Correct, Force: true, InstanceIDs: ids}
	})
	return json.Marshal(answer)
}

// reportQuarantine reports the mark that a run wrote or ended. The removal of the grant is reported by itself.
func (inv *invocation) reportQuarantine(ctx context.Context, t task, r result) {
	if q := r.outcome.Quarantined; q != nil {
		inv.metrics.Count(observe.Quarantined)
		inv.auditQuarantine(ctx, audit.Quarantined, t, r, q, audit.Quarantine{By: q.By, Reason: q.Reason})
		inv.logOf(t.Ref).WarnContext(ctx, "put into quarantine", observe.KeyBy, q.By, observe.KeyReason, q.Reason, observe.KeyAudit, audit.Quarantined)
	}
	if q := r.outcome.Released; q != nil {
		inv.metrics.Count(observe.Released)
		inv.auditQuarantine(ctx, audit.Released, t, r, q, audit.Quarantine{By: q.ReleasedBy, Reason: q.ReleaseReason})
		inv.logOf(t.Ref).WarnContext(ctx, "released from quarantine", observe.KeyBy, q.ReleasedBy, observe.KeyReason, q.ReleaseReason, observe.KeyAudit, audit.Released)
	}
}

func (inv *invocation) auditQuarantine(ctx context.Context, kind string, t task, r result, q *ledger.Quarantine, d audit.Quarantine) {
	d.Source, d.Since = string(q.Source), q.Since
	inv.addAudit(ctx, kind, audit.Detail{
		InstanceID: t.ID, Account: t.Account, Region: t.Region, Profile: r.outcome.Profile, FQDN: r.outcome.FQDN, Quarantine: &d,
	})
}
