package handler

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/certificates"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// CertificateSweeper finds and revokes the certificates of ended instances.
type CertificateSweeper interface {
	Sweep(ctx context.Context) certificates.Answer
	// Record records certificates that Vault's audit log names.
	Record(ctx context.Context, issued []certificates.Issued) certificates.Answer
}

// sweepCertificates answers mode certificates. A run without an invoker that read some certificates and ran out of time goes on by the
// queue.
func (h *ReconcileHandler) sweepCertificates(ctx context.Context, inv *invocation, in reconcile.Input, hasInvoker bool) ([]byte, error) {
	if h.Sweeper == nil {
		return nil, fault.Refusef("mode %s needs REVOKE_CERTIFICATES=all: deploy with RevokeCertificates=all, after vault-ec2 setup --revoke-certificates --revoke-stored-certificates gave the functions the rights", in.Mode)
	}
	var a certificates.Answer
	if len(in.Issued) > 0 {
		a = h.Sweeper.Record(ctx, in.Issued)
	} else {
		a = h.Sweeper.Sweep(ctx)
	}
	a.Namespace = h.Namespace
	read := 0
	for _, m := range a.Mounts {
		read += m.Read
	}
	inv.log.InfoContext(ctx, "certificates looked for", observe.KeyScanned, read, observe.KeyObjects, a.Revoked)
	for _, u := range a.Unread {
		inv.log.WarnContext(ctx, "not all certificates were looked for: the next run does it", observe.KeyReason, u.What, observe.KeyError, u.Error)
	}
	for _, e := range a.Ended {
		if e.Error != "" {
			inv.log.WarnContext(ctx, "an ended instance has valid certificates left: the next run revokes them", observe.KeyInstance, e.InstanceID, observe.KeyError, e.Error)
		}
	}
	if a.GetsOn() && !hasInvoker {
		h.queueSweep(ctx, inv)
	}
	return json.Marshal(a)
}

// queueSweep queues mode certificates, where stored certificates are revoked.
func (h *ReconcileHandler) queueSweep(ctx context.Context, inv *invocation) {
	if h.Sweeper == nil {
		return
	}
	body, err := json.Marshal(reconcile.Input{Mode: reconcile.Certificates})
	if err == nil && h.Own == nil {
		err = errors.New("RECONCILE_QUEUE_URL is not set")
	}
	if err == nil {
		err = h.Own.SendBody(ctx, body, 0)
	}
	if err != nil {
		inv.log.WarnContext(ctx, "the certificates of ended instances are not looked for: the next scheduled run does it", observe.KeyError, err)
	}
}
