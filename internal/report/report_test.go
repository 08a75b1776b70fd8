package report_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/report"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type accounts struct{ err error }

func (a accounts) Account(context.Context) (string, error) { return "123456789012", a.err }

// reader returns a reader of a table. fail are the errors of calls.
func reader(table *ledgertest.Table, fail map[string]error) *report.Reader {
	clock := func() time.Time { return now }
	do := func(kind, _ string, effect func() error) error {
		if err := fail[kind]; err != nil {
			return err
		}
		return effect()
	}
	return &report.Reader{
		Deployment: "lab", Region: "us-east-1", Profiles: "0123", Ledger: ledgertest.Client{Table: table, Now: clock, Do: do}, Accounts: accounts{fail["account"]}, Now: clock,
	}
}

func id(n int) string { return fmt.Sprintf("i-%017x", n) }

// fleet returns a table with n records, each with a claim and an error of some size.
func fleet(n, size int) *ledgertest.Table {
	t := ledgertest.New()
	for i := range n {
		name := ledger.Name{Under: "m", Text: fmt.Sprintf("web-%d", i)}
		t.Records[id(i)] = ledger.Record{InstanceID: id(i), State: ledger.Active, Claims: []ledger.Name{name}, FQDN: name.Text, LastError: strings.Repeat("<", size)}
		t.Claims[name] = ledger.Claim{InstanceID: id(i)}
	}
	return t
}

func TestRead_HasEachRecordOnce(t *testing.T) {
	// The test's table has one record to a page.
	r := reader(fleet(2000, 5000), nil)
	var ids []string
	parts := 0
	for after := ""; ; parts++ {
		a := r.Read(t.Context(), after)
		text, err := json.Marshal(a)
		if err != nil || len(text) > 6_000_000 {
			t.Fatalf("want an answer that Lambda passes on, got %d bytes, %v", len(text), err)
		}
		if (a.Account != "") != (after == "") || (a.Profiles != "") != (after == "") || a.Deployment != "lab" {
			t.Errorf("want the head in the first part alone, got %+v", a)
		}
		for _, i := range a.Instances {
			ids = append(ids, i.InstanceID)
			if len(i.Error) > 1100 || !strings.HasSuffix(i.Error, "has all of it)") {
				t.Fatalf("want the error cut, and the cut named, got %d bytes", len(i.Error))
			}
		}
		if a.Complete != (a.Next == "") {
			t.Fatalf("want the end without a cursor, got %v and %q", a.Complete, a.Next)
		}
		if after = a.Next; a.Complete {
			break
		}
	}
	if parts == 0 || len(ids) != 2000 || len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 2000 {
		t.Errorf("want 2000 records in several parts, got %d in %d", len(ids), parts+1)
	}
}

// An answer without a page would say of the fleet that it is smaller.
func TestRead_NamesWhatItCouldNotRead(t *testing.T) {
	away := errors.New("away")
	for kind, what := range map[string]string{"page": "the ledger's records and claims", "account": "own account", "torn down": "torn down"} {
		a := reader(fleet(3, 1), map[string]error{kind: away}).Read(t.Context(), "")
		if len(a.Unread) != 1 || !strings.Contains(a.Unread[0].What, what) || a.Unread[0].Error != "away" || a.Complete != (kind != "page") || a.Next != "" {
			t.Errorf("%s: got %+v", kind, a)
		}
	}
}

func TestRead_ReadsOnePageWithLittleTime(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	a := reader(fleet(3, 1), nil).Read(ctx, "")
	if len(a.Instances) != 1 || a.Complete || a.Next != ledger.RecordKey(id(0)) {
		t.Errorf("want one page and a cursor, got %+v", a)
	}
}

func TestRead_ShowsARecordWithoutItsSecrets(t *testing.T) {
	table := ledgertest.New()
	at, later := now, now.Add(time.Minute)
	table.Records[id(1)] = ledger.Record{
		InstanceID: id(1), State: ledger.Deleted, Account: "123456789012", Region: "us-east-1", Profile: "p", FQDN: "web-1", Addresses: []string{"10.0.0.1"},
		Former: []ledger.FormerName{{Name: ledger.Name{Under: "m", Text: "old"}}}, Released: []ledger.ReleasedName{{Name: ledger.Name{Under: "m", Text: "web-1"}, At: at}},
		Objects:       []ledger.Object{{Kind: "auth-role", Path: "auth/aws/role/x", RoleID: "secret-role-id", SHA256: "digest"}},
		FormerRoleIDs: []string{"secret-role-id"}, WriteID: "secret-write", LeaseOwner: "secret-owner", DeletedAt: &at, ExpiresAt: now.Unix(),
		Ready: &ledger.Span{By: ledger.ByHook, From: &at, To: &later}, Revoking: []string{"a", "b"},
		Quarantine: &ledger.Quarantine{Since: at, By: "alice", Reason: "4711", Source: ledger.ByFinding, EndedAt: &at, ReleasedAt: &later, ReleasedBy: "bob", ReleaseReason: "false"},
	}
	a := reader(table, nil).Read(t.Context(), "")
	text, err := json.Marshal(a)
	if err != nil || strings.Contains(string(text), "secret-") {
		t.Errorf("want no role_id and nothing of a lease, got %s, %v", text, err)
	}
	i := a.Instances[0]
	if i.Objects != 1 || i.Revoking != 2 || i.Ready == nil || !i.Ready.To.Equal(later) || i.Cut != nil || i.Former[0].At != nil || !i.Released[0].At.Equal(at) || !i.ExpiresAt.Equal(now) {
		t.Errorf("got %+v", i)
	}
	want := report.Quarantine{Since: at, By: "alice", Reason: "4711", Source: ledger.ByFinding, EndedAt: &at, ReleasedAt: &later, ReleasedBy: "bob", ReleaseReason: "false"}
	if !reflect.DeepEqual(i.Quarantine, &want) {
		t.Errorf("want the mark, got %+v", i.Quarantine)
	}
}
