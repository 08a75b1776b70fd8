package handler_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/report"
)

// ledgerRead answers mode report, and keeps the key behind which it read.
type ledgerRead struct {
	calls []string
	next  string
}

func (l *ledgerRead) Read(_ context.Context, after string) report.Answer {
	l.calls = append(l.calls, after)
	return report.Answer{Mode: "report", Deployment: "lab", Instances: []report.Instance{{InstanceID: "i-0a"}}, Next: l.next, Complete: l.next == ""}
}

func TestReport_IsAnsweredInPartsAndNotCounted(t *testing.T) {
	h, e := newReconcile()
	read := &ledgerRead{next: "instance#i-0a"}
	h.Report, h.Namespace = read, "team/a"
	h.NoProfiles = errors.New("no profiles are active") // the ledger is there without them
	out, err := h.Invoke(t.Context(), []byte(`{"mode":"report"}`))
	for _, want := range []string{`"mode":"report"`, `"namespace":"team/a"`, `"instanceId":"i-0a"`, `"complete":false`, `"cursor":{"after":"instance#i-0a","limit":1`} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("want %s, got %s, %v", want, out, err)
		}
	}
	read.next = ""
	out, err = h.Invoke(t.Context(), []byte(`{"mode":"report","cursor":{"after":"instance#i-0a","limit":1}}`))
	if err != nil || strings.Contains(string(out), "cursor") || !strings.Contains(string(out), `"complete":true`) {
		t.Errorf("want the end, got %s, %v", out, err)
	}
	if got := strings.Join(read.calls, "|"); got != "|instance#i-0a" {
		t.Errorf("want each part read behind the one before, got %q", got)
	}
	if metrics := e.bench.metrics.String(); strings.Contains(metrics, "Drift") || strings.Contains(metrics, "Reconciled") || strings.Contains(metrics, "Blocked") {
		t.Errorf("a report is no comparison of the fleet, and an alarm would take it for one: %s", metrics)
	}
}

// A message of a queue would be read for nothing, and other fields would be ignored.
func TestReport_NeedsAnInvokerAndNoOtherField(t *testing.T) {
	h, _ := newReconcile()
	read := &ledgerRead{}
	h.Report = read
	for _, in := range []string{
		`{"Records":[{"messageId":"m","body":` + quoted(`{"mode":"report"}`) + `}]}`, `{"mode":"report","instanceIds":["i-0123456789abcdef0"]}`, `{"mode":"report","force":true}`, `{"mode":"report","names":["web-1"]}`,
	} {
		if out, err := h.Invoke(t.Context(), []byte(in)); fault.KindOf(err) != fault.Refuse {
			t.Errorf("%s: want it refused, got %s, %v", in, out, err)
		}
	}
	if len(read.calls) > 0 {
		t.Errorf("want nothing read, got %d", len(read.calls))
	}
}
