package handler

import (
	"context"
	"encoding/json"
	"log/slog"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// Rehearsal compares the fleet, and examines the deployment, by profiles that are not active.
type Rehearsal struct {
	Reconciler *reconcile.Reconciler
	Doctor     Examiner
	Digest     string
}

// rehearse shows what other profiles would change, and changes nothing. Its rows are no drift: they are in the answer alone, and count
// for no metric and no audit event.
func (h *ReconcileHandler) rehearse(ctx context.Context, inv *invocation, in reconcile.Input, hasInvoker bool) ([]byte, error) {
	if !hasInvoker {
		return nil, fault.Refusef("reading the input: profiles are rehearsed only for an invoker that waits for the answer")
	}
	r, err := h.Rehearse(in.Profiles)
	if err != nil {
		inv.log.WarnContext(ctx, "the rehearsed profiles are refused", observe.KeyError, err)
		return refusal(in.Mode, err)
	}
	if in.Mode == reconcile.Doctor {
		return json.Marshal(r.Doctor.Examine(ctx))
	}
	answer := r.Reconciler.Run(ctx, in, inv, reconcile.Observer{Log: slog.New(slog.DiscardHandler)})
	answer.Namespace = h.Namespace
	inv.log.InfoContext(ctx, "profiles rehearsed", observe.KeyReason, bundle.Short(r.Digest), observe.KeyScanned, answer.Scanned,
		observe.KeySummary, answer.Summary, observe.KeyBlocked, answer.BlockedReason)
	return json.Marshal(answer)
}

// refusal returns the answer about profiles that do not pass. It is no error: a failed invocation would raise an alarm.
func refusal(mode reconcile.Mode, err error) ([]byte, error) {
	why := "the profiles are refused: " + err.Error()
	if mode == reconcile.Doctor {
		return json.Marshal(doctor.Report{Mode: string(mode), Checks: []doctor.Check{{Name: "profiles", Detail: why, Remedy: "correct them: vault-ec2 lint names each fault"}}})
	}
	return json.Marshal(reconcile.Answer{Mode: mode, Drift: []reconcile.Drift{}, Blocked: true, BlockedReason: why})
}
