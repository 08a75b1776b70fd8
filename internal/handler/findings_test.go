package handler_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/handler"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const (
	ownAccount    = "123456789012"
	memberAccount = "210987654321"
)

// finding is an event of GuardDuty.
type finding struct {
	sender, account, severity, service string
	lastSeen                           string
}

func (f finding) body(id string) string {
	return fmt.Sprintf(`{"version":"0","source":"aws.guardduty","detail-type":"GuardDuty Finding","account":%q,"region":"us-east-1","time":%q,
		"detail":{"accountId":%q,"region":"us-east-1","id":"f1","type":"Backdoor:EC2/C&CActivity.B","severity":%s,
		"resource":{"resourceType":"Instance","instanceDetails":{"instanceId":%q}},"service":{"archived":false%s,"eventLastSeen":%q}}}`,
		f.sender, at, f.account, f.severity, id, f.service, f.lastSeen)
}

func high() finding {
	return finding{sender: ownAccount, account: ownAccount, severity: "7", lastSeen: at}
}

func findingBench() *bench {
	b := newBench()
	b.handler.Findings = handler.Findings{Severity: 7, OwnAccount: func(context.Context) (string, error) { return ownAccount, nil }}
	return b
}

func TestFinding_OrdersAQuarantineIfItCounts(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*finding)
		orders bool
		says   string
	}{
		"of the least severity":         {func(*finding) {}, true, ""},
		"by GuardDuty's administrator":  {func(f *finding) { f.account = memberAccount }, true, ""},
		"by its own account":            {func(f *finding) { f.account, f.sender = memberAccount, memberAccount }, true, ""},
		"of a lower severity":           {func(f *finding) { f.severity = "6.9" }, false, "its severity is below 7"},
		"a sample":                      {func(f *finding) { f.service = `,"additionalInfo":{"sample":true}` }, false, "it is a sample"},
		"archived":                      {func(f *finding) { f.service = `,"archived":true` }, false, "it is archived"},
		"by an account about another":   {func(f *finding) { f.sender = memberAccount }, false, "was sent by account"},
		"by one account about a second": {func(f *finding) { f.sender, f.account = memberAccount, "333344445555" }, false, "was sent by account"},
	} {
		t.Run(name, func(t *testing.T) {
			b, f := findingBench(), high()
			row.change(&f)
			if _, err := b.handler.Invoke(t.Context(), []byte(f.body(id(0)))); err != nil {
				t.Fatal(err)
			}
			requests := b.requests[id(0)]
			if !row.orders {
				if len(requests) > 0 {
					t.Errorf("want the instance left alone, got %+v", requests)
				}
				b.wrote(t, row.says, id(0), "f1")
				return
			}
			want := converge.Order{By: "GuardDuty", Reason: "Backdoor:EC2/C&CActivity.B, finding f1", Source: ledger.ByFinding, LastSeen: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
			if len(requests) != 1 || requests[0].Quarantine == nil || *requests[0].Quarantine != want || requests[0].Account != f.account {
				t.Errorf("want one order in account %s, got %+v", f.account, requests)
			}
		})
	}
}

func TestFinding_CountsOnlyWhereItIsAskedFor(t *testing.T) {
	b := newBench()
	_, err := b.handler.Invoke(t.Context(), []byte(high().body(id(0))))
	if err != nil || len(b.requests) > 0 {
		t.Errorf("want the instance left alone, got %+v, %v", b.requests, err)
	}
	b.wrote(t, `"Ignored":1`, "no finding puts an instance into quarantine here")
}

// An unknown own account decides nothing: the queue delivers the finding again.
func TestFinding_WaitsForTheOwnAccount(t *testing.T) {
	b, f := findingBench(), high()
	b.handler.Findings.OwnAccount = func(context.Context) (string, error) { return "", errors.New("STS is away") }
	f.account = memberAccount
	out, err := b.handler.Invoke(t.Context(), []byte(`{"Records":[{"messageId":"m","body":`+escaped(t, f.body(id(0)))+`}]}`))
	if err != nil || !strings.Contains(string(out), `"itemIdentifier":"m"`) || len(b.requests) > 0 {
		t.Errorf("want the message to stay, got %s, %+v, %v", out, b.requests, err)
	}
	b.wrote(t, "STS is away", `"Retried":1`)
}

// escaped returns a text as JSON.
func escaped(t *testing.T, text string) string {
	t.Helper()
	out, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// The order of a batch decides nothing: an end keeps its finding, and of two findings the later one counts.
func TestFinding_StaysInAMergedBatch(t *testing.T) {
	early, late := high(), high()
	early.lastSeen = "2026-01-02T03:00:00Z"
	bodies := []string{early.body(id(0)), late.body(id(0)), body(id(0), "terminated", at)}
	for _, order := range [][3]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {0, 2, 1}} {
		b := findingBench()
		var messages []string
		for _, i := range order {
			messages = append(messages, fmt.Sprintf(`{"messageId":"%d","body":%s}`, i, escaped(t, bodies[i])))
		}
		if _, err := b.handler.Invoke(t.Context(), []byte(`{"Records":[`+strings.Join(messages, ",")+`]}`)); err != nil {
			t.Fatal(err)
		}
		r := b.requests[id(0)]
		if len(r) != 1 || r[0].Told != "terminated" || r[0].Quarantine == nil || !r[0].Quarantine.LastSeen.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
			t.Errorf("order %v: want the end and the later finding, got %+v", order, r)
		}
	}
}
