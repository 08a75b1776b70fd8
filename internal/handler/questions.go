package handler

import (
	"context"
	"encoding/json"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/holders"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/report"
)

// Explainer explains one instance.
type Explainer interface {
	Explain(ctx context.Context, in reconcile.Input) reconcile.Explanation
}

// Finder finds the holders of names.
type Finder interface {
	Find(ctx context.Context, q holders.Question) holders.Answer
}

// LedgerReader reads the ledger for a report.
type LedgerReader interface {
	Read(ctx context.Context, after string) report.Answer
}

// whoAnswer is the answer to mode who.
type whoAnswer struct {
	holders.Answer
	Cursor *reconcile.Cursor `json:"cursor,omitempty"`
}

// reportAnswer is the answer to mode report.
type reportAnswer struct {
	report.Answer
	Cursor *reconcile.Cursor `json:"cursor,omitempty"`
}

// answerQuestion answers the modes explain, who and report. They only read, and count for no metric. Only an invoker gets an answer.
func (h *ReconcileHandler) answerQuestion(ctx context.Context, inv *invocation, in reconcile.Input, hasInvoker bool) ([]byte, error) {
	if !hasInvoker {
		return nil, fault.Refusef("reading the input: mode %s answers only an invoker that waits", in.Mode)
	}
	if in.Mode == reconcile.Explain {
		e := h.Explainer.Explain(ctx, in)
		e.Namespace = h.Namespace
		inv.log.InfoContext(ctx, "explained", observe.KeyInstance, e.InstanceID, observe.KeyState, e.Status)
		return json.Marshal(e)
	}
	after := ""
	if in.Cursor != nil {
		after = in.Cursor.After
	}
	if in.Mode == reconcile.Report {
		return h.readLedger(ctx, inv, after)
	}
	q := holders.Question{Names: in.Names, Current: in.Current, After: after}
	answer := whoAnswer{Answer: h.Finder.Find(ctx, q)}
	answer.Namespace = h.Namespace
	if answer.Next != "" {
		answer.Cursor = &reconcile.Cursor{After: answer.Next, Limit: 1}
	}
	inv.log.InfoContext(ctx, "holders looked for", observe.KeyObjects, len(answer.Holders), observe.KeyScanned, answer.Scanned)
	return json.Marshal(answer)
}

// readLedger answers mode report with the part of the ledger behind a key.
func (h *ReconcileHandler) readLedger(ctx context.Context, inv *invocation, after string) ([]byte, error) {
	answer := reportAnswer{Answer: h.Report.Read(ctx, after)}
	answer.Namespace, answer.RequestID = h.Namespace, inv.requestID
	if answer.Next != "" {
		answer.Cursor = &reconcile.Cursor{After: answer.Next, Limit: 1}
	}
	inv.log.InfoContext(ctx, "ledger read for a report", observe.KeyObjects, len(answer.Claims), observe.KeyScanned, len(answer.Instances))
	return json.Marshal(answer)
}
