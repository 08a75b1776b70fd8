package holders_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/holders"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance/instancetest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

const (
	first, second, third = "i-0123456789abcdef1", "i-0123456789abcdef2", "i-0123456789abcdef3"
	mount                = "alice_cluster/pki/k8s"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// bench is a ledger, a Vault and EC2 in memory.
type bench struct {
	*ledgertest.Table
	vault *vaulttest.Vault
	ec2   map[string]facts.Instance
	fail  map[string]error

	mu    sync.Mutex // claims are read side by side
	calls []string
}

func newBench() *bench {
	return &bench{Table: ledgertest.New(), vault: vaulttest.New(), ec2: map[string]facts.Instance{}, fail: map[string]error{}}
}

func (b *bench) do(kind, what string, effect func() error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, kind)
	if err := b.fail[kind]; err != nil {
		return err
	}
	return effect()
}

func (b *bench) finder(t *testing.T) *holders.Finder {
	t.Helper()
	set, err := grant.Load(templates.FS)
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return now }
	return &holders.Finder{
		Deployment: "lab", AuthMount: "aws", Profiles: set, Ledger: ledgertest.Client{Table: b.Table, Now: clock, Do: b.do},
		Vault: vaulttest.Client{Vault: b.vault, Do: b.do}, Instances: instancetest.EC2{Own: "123456789012", Instances: b.ec2, Now: clock, Do: b.do}, Now: clock,
	}
}

// grant adds a live record with claims.
func (b *bench) grant(id string, names ...ledger.Name) {
	r := ledger.Record{InstanceID: id, State: ledger.Active, Account: "123456789012", Region: "us-east-1", Profile: "p", FQDN: names[0].Text, BasePath: "alice_cluster", Claims: names, CreatedAt: now.Add(-time.Hour)}
	r.Objects = []ledger.Object{{Kind: grant.KindAuthRole, Path: "auth/aws/role/" + id}, {Kind: grant.KindPKIRole, Path: mount + "/roles/" + id + "-kubelet"}}
	b.Records[id] = r
	for _, n := range names {
		b.Claims[n] = ledger.Claim{InstanceID: id, Account: r.Account, Region: r.Region}
	}
	b.ec2[id] = facts.Instance{ID: id, Account: r.Account, Region: r.Region, State: facts.Running}
}

// rows formats the holders of an answer.
func rows(a holders.Answer) []string {
	var out []string
	for _, h := range a.Holders {
		until := "-"
		if h.Until != nil {
			until = h.Until.Format(time.DateOnly)
		}
		out = append(out, strings.Join([]string{h.Name, h.InstanceID[len(h.InstanceID)-1:], fmt.Sprint(h.Now), string(h.Basis), h.Under, until}, " "))
	}
	return out
}

func find(t *testing.T, b *bench, q holders.Question) holders.Answer {
	t.Helper()
	return b.finder(t).Find(t.Context(), q)
}

func TestFind_UnderstandsEachForm(t *testing.T) {
	for text, want := range map[string]string{
		"Web-1.Example.": "name web-1.example", "system:node:web-1": "name system:node:web-1", "10.0.0.5\t": "address 10.0.0.5", "::ffff:10.0.0.5": "address 10.0.0.5",
		"2001:DB8:0::1": "address 2001:db8::1", "10.0.0.5/32": "address 10.0.0.5", "10.0.0.5@vpc-1": "address 10.0.0.5@vpc-1",
		first: "object " + first, "ec2-" + first + "-node": "object " + first, mount + "/roles/" + first + "-kubelet": "object " + first,
		"v1/auth/aws/role/" + first: "object " + first, "SPIFFE://alice/1/" + first: "uri spiffe://alice/1/" + first, "https://vault:8200/v1/auth/aws/role/" + first: "object " + first,
		"": "unknown ", "a#b": "unknown ", "secret/data/web": "unknown ", strings.Repeat("a", 600): "unknown ",
	} {
		a := find(t, newBench(), holders.Question{Names: []string{text}}).Asked[0]
		if got := string(a.As) + " " + a.Text; got != want || (a.Error != "") != (a.As == holders.Unreadable) || len(a.Name) > 512 {
			t.Errorf("%q: want %q, got %q (%s)", text, want, got, a.Error)
		}
	}
}

func TestFind_ShowsEachWayToHoldAName(t *testing.T) {
	web, address := ledger.Name{Under: mount, Text: "web-1"}, ledger.Name{Under: mount, Text: "10.0.0.5@vpc-1"}
	b := newBench()
	b.grant(first, web, address)
	b.grant(second, ledger.Name{Under: "alice_cluster", Text: "web-10"}, ledger.Name{Under: mount, Text: "10.0.0.50"}) // longer than those that are asked for
	r := b.Records[second]
	old := ledger.Name{Under: mount, Text: "web-0"}
	r.Former = []ledger.FormerName{{Name: old, Until: now.Add(48 * time.Hour)}}
	r.Addresses = []string{"10.0.0.9"}
	b.Records[second], b.Claims[old] = r, ledger.Claim{InstanceID: second}
	ended := now.Add(-24 * time.Hour)
	b.Records[third] = ledger.Record{
		InstanceID: third, State: ledger.Deleted, FQDN: "web-1", Addresses: []string{"10.0.0.5", "10.0.0.9"}, DeletedAt: &ended,
		Released: []ledger.ReleasedName{{Name: web, At: ended}},
	}
	a := find(t, b, holders.Question{Names: []string{"web-1", "10.0.0.5", "web-0", "10.0.0.9", "none"}})
	want := []string{
		"web-1 1 true claim " + mount + " -", "web-1 3 false released " + mount + " 2026-01-01",
		"10.0.0.5 1 true claim " + mount + " -", "10.0.0.5 3 false tombstone  2026-01-01",
		"web-0 2 true former name " + mount + " 2026-01-04",
		"10.0.0.9 2 true record  -", "10.0.0.9 3 false tombstone  2026-01-01",
	}
	if got := rows(a); !slices.Equal(got, want) {
		t.Errorf("want\n%s\ngot\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
	if !a.Complete || len(a.Unread) > 0 || len(a.Instances) != 3 || a.Instances[0].EC2 != "running" || a.Instances[2].EC2 != "" {
		t.Errorf("want all read, and EC2 asked about the live ones, got %+v", a)
	}
}

// An object's name leads to its instance by one read, in a ledger of any size.
func TestFind_ReadsOneRecordForAnObject(t *testing.T) {
	b := newBench()
	b.grant(first, ledger.Name{Under: mount, Text: "web-1"})
	b.vault.Objects[mount+"/roles/"+first+"-kubelet"] = map[string]any{}
	a := find(t, b, holders.Question{Names: []string{first + "-kubelet"}})
	if slices.Contains(b.calls, "page") || len(a.Holders) != 1 || !a.Holders[0].Now || !a.Complete {
		t.Errorf("want one record read and no page, got %q, %+v", b.calls, a)
	}
	if o := a.Instances[0].Objects; len(o) != 2 || o[0].InVault != nil || o[1].InVault == nil || !*o[1].InVault {
		t.Errorf("want the asked object seen in Vault, got %+v", o)
	}
}

// The last page of an invocation is read a minute before its end, and the next invocation goes on behind it.
func TestFind_GoesOnBehindItsLastPage(t *testing.T) {
	b := newBench()
	for _, id := range []string{first, second, third} {
		b.grant(id, ledger.Name{Under: mount, Text: "name-of-" + id[len(id)-1:]})
		r := b.Records[id]
		r.Addresses = []string{"10.0.0.5"}
		b.Records[id] = r
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a := b.finder(t).Find(ctx, holders.Question{Names: []string{"10.0.0.5"}})
	if a.Complete || a.Next != ledger.RecordKey(first) || len(a.Holders) != 1 {
		t.Errorf("want one page read in the last minute, got %+v", a)
	}
	whole := find(t, b, holders.Question{Names: []string{"10.0.0.5"}})
	rest := find(t, b, holders.Question{Names: []string{"10.0.0.5"}, After: a.Next})
	if len(whole.Holders) != 3 || len(rest.Holders) != 2 || rest.Scanned != 2 {
		t.Errorf("want three holders, and two behind the first, got %q and %q", rows(whole), rows(rest))
	}
	if joined := a.Join(rest); !slices.Equal(rows(joined), rows(whole)) || len(joined.Instances) != 3 || joined.Scanned != whole.Scanned || !joined.Complete {
		t.Errorf("want the whole answer in two parts, got %q", rows(joined))
	}
	if twice := whole.Join(rest); len(twice.Holders) != 3 || len(twice.Instances) != 3 {
		t.Errorf("want each holder once, got %q", rows(twice))
	}
}

// What cannot be read is named, and the rest is found.
func TestFind_NamesWhatItCouldNotRead(t *testing.T) {
	for kind, what := range map[string]string{
		"page": "the ledger's records and claims", "holder": "the claims in the ledger", "get": "the ledger's records", "describe": "EC2 in account 123456789012, region us-east-1",
	} {
		b := newBench()
		b.grant(first, ledger.Name{Under: mount, Text: "web-1"})
		b.fail[kind] = errors.New("away")
		a := find(t, b, holders.Question{Names: []string{"web-1"}, Current: kind == "get"})
		if len(a.Unread) != 1 || a.Unread[0].What != what || len(a.Holders) != 1 || a.Complete == (kind == "page" || kind == "get") {
			t.Errorf("%s: want %q named and the holder found, got %+v", kind, what, a)
		}
	}
	b := newBench()
	b.fail["read"] = errors.New("away")
	if a := find(t, b, holders.Question{Names: []string{first}}); len(a.Unread) != 1 || len(a.Holders) != 1 || a.Holders[0].Now {
		t.Errorf("without Vault: want an instance without a record, got %+v", a)
	}
}
