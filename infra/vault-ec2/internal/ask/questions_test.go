package ask

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/holders"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const asked, neighbour = "i-0123456789abcdef0", "i-0fedcba9876543210"

var (
	early = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	late  = early.Add(time.Hour)
)

// heldName returns the explanation of an instance whose name another one holds.
func heldName() reconcile.Explanation {
	return reconcile.Explanation{
		Mode: reconcile.Explain, Deployment: "lab", Profiles: "0123456789abcdef0123", InstanceID: asked,
		Verdict: reconcile.Verdict{
			Status: reconcile.NameHeld, Summary: "it gets no grant: the name web-1.alice.example below alice_cluster is held by instance " + neighbour,
			Next: "the functions grant by themselves when that instance is gone; to see it: vault-ec2 explain --stack lab " + neighbour,
		},
		Unread: []fault.Unread{{What: "the Auto Scaling group", Error: "status 403"}},
		EC2: &reconcile.SeenInstance{
			Account: "123456789012", Region: "us-east-1", State: "running", LaunchTime: early, PrivateDNSName: "ip-10-0-0-5.ec2.internal", Addresses: []string{"10.0.0.5"},
			Role: "arn:aws:iam::123456789012:role/alice-worker", RoleUnconfirmed: true, Tags: map[string]string{"Name": "web-1.alice.example", "role": "worker"},
		},
		Matches: []string{"alice_cluster-worker"},
		Misses:  []reconcile.Miss{{Profile: "alice_cluster-etcd", Unmet: []string{`match.tags "role": the instance has "worker", wanted is "etcd"`}}},
		Grant:   &reconcile.WantedGrant{Profile: "alice_cluster-worker", FQDN: "web-1.alice.example", AuthType: "ec2", Modes: map[grant.Kind]grant.DriftMode{"auth-role": "detect", "generic": "ignore"}, Retained: []string{"seed"}},
		Refusal: &reconcile.Refusal{Error: "the name is held", Since: &early},
		Record: &reconcile.SeenRecord{
			State: "refused", Account: "123456789012", Region: "us-east-1", CreatedAt: early, UpdatedAt: late, LeasedUntil: &late, Revoking: 2, Attempts: 3, LastError: "the name is held",
			Released: []reconcile.ReleasedName{{Name: "web-0.alice.example", Under: "alice_cluster", At: early}},
		},
		Objects: []reconcile.SeenObject{
			{Object: "policy", Path: "sys/policies/acl/ec2-" + asked + "-node", Granted: true, InVault: reconcile.No},
			{Object: "pki-role", Path: "alice_cluster/pki/k8s/roles/" + asked + "-kubelet", Granted: true, Recorded: true, InVault: reconcile.Unknown},
			{Object: "generic", Path: "alice_cluster/kv/" + asked + "-seed", InVault: reconcile.Yes, Retained: true},
		},
		Names: []reconcile.SeenName{
			{Name: "web-1.alice.example", Under: "alice_cluster", Granted: true, HeldBy: neighbour}, {Name: "10.0.0.5", Under: "alice_cluster/pki/k8s", Granted: true},
			{Name: "10.0.0.4", Under: "alice_cluster/pki/k8s", HeldBy: asked, Until: &late},
		},
		Waiting: []string{neighbour}, Login: reconcile.Login{LoggedIn: reconcile.Yes, First: &early, EntityID: "0a1b"}, Compared: true,
		Drift: []reconcile.Drift{{InstanceID: asked, Object: "record", Path: "instance#" + asked, Reason: "conflicting", Action: "none", Error: "the name is held"}},
	}
}

func explained(t *testing.T, e reconcile.Explanation) string {
	t.Helper()
	var b bytes.Buffer
	if err := printExplanation(&b, e); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestExplain_PrintsEverything(t *testing.T) { golden(t, "explain", explained(t, heldName())) }

func TestExplain_PrintsLittleOfAnUnknownInstance(t *testing.T) {
	golden(t, "explain-unknown", explained(t, reconcile.Explanation{
		InstanceID: asked, Verdict: reconcile.Verdict{Status: reconcile.Unheard, Summary: "nobody knows it", Next: "check the ID"},
		Asked: []string{"account 123456789012, region us-east-1"}, Login: reconcile.Login{LoggedIn: reconcile.No},
	}))
	golden(t, "explain-malformed", explained(t, reconcile.Explanation{InstanceID: "web-1", Verdict: reconcile.Verdict{Status: reconcile.Malformed, Summary: "no ID", Next: "copy it"}}))
}

// found returns the answer about a name that passed from one instance to another, and an object.
func found() holders.Answer {
	exists := false
	return holders.Answer{
		Mode: "who", Asked: []holders.Asked{{Name: "web-1", As: holders.OfName, Text: "web-1"}, {Name: "10.0.0.5", As: holders.OfAddress, Text: "10.0.0.5"}, {Name: "a#b", As: holders.Unreadable, Error: "no name has that form"}},
		Holders: []holders.Holder{
			{Name: "web-1", InstanceID: asked, Under: "alice_cluster/pki/k8s", Now: true, Basis: holders.ByClaim},
			{Name: "web-1", InstanceID: neighbour, Under: "alice_cluster/pki/k8s", Basis: holders.ByRelease, Until: &early},
			{Name: "10.0.0.5", InstanceID: asked, Now: true, Basis: holders.ByRecord},
		},
		Instances: []holders.Instance{
			{
				InstanceID: asked, Account: "123456789012", Region: "us-east-1", Profile: "alice_cluster-worker", FQDN: "web-1", Addresses: []string{"10.0.0.5"}, State: "active", EC2: "running", CreatedAt: &early,
				Objects: []holders.Object{{Kind: "auth-role", Path: "auth/aws/role/" + asked}, {Kind: "policy", Path: "sys/policies/acl/ec2-" + asked + "-node", InVault: &exists}}, AuditFilter: "select(.x)",
			},
			{InstanceID: neighbour, AuditFilter: "select(.y)"},
		},
		Unread: []fault.Unread{{What: "EC2", Error: "away"}}, Complete: true,
	}
}

func TestWho_PrintsHoldersAndTheirPaths(t *testing.T) {
	var b bytes.Buffer
	if err := printHolders(&b, found(), nil); err != nil {
		t.Fatal(err)
	}
	golden(t, "who", b.String())
	whole := found()
	whole.Asked = whole.Asked[:2]
	if got := holdersOfAll(whole); got != asked {
		t.Errorf("want the one instance that holds both names, got %q", got)
	}
}

func TestQuestions_EscapeControlCharacters(t *testing.T) {
	e := heldName()
	e.InstanceID, e.Summary, e.Next, e.Status = hostile, hostile+"\nnext: forged", hostile, hostile
	e.EC2.PrivateDNSName, e.EC2.Tags[hostile], e.Refusal.Error, e.Record.LastError = hostile, hostile, hostile, hostile+"\nno drift"
	e.Objects[0].Path, e.Names[0].Name, e.Names[0].HeldBy, e.Misses[0].Unmet[0], e.Waiting[0], e.Unread[0].Error = hostile, hostile, hostile, hostile, hostile, hostile
	a := found()
	a.Holders[0].Under, a.Instances[0].FQDN, a.Instances[0].Objects[0].Path, a.Unread[0].Error, a.Asked[2].Error = hostile, hostile, hostile, hostile, hostile
	var who bytes.Buffer
	if err := printHolders(&who, a, nil); err != nil {
		t.Fatal(err)
	}
	for name, shown := range map[string]string{"explain": explained(t, e), "who": who.String()} {
		for _, r := range shown {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%s contains %U unescaped", name, r)
			}
		}
		if strings.Contains(shown, "\nnext: forged") || strings.Contains(shown, "\nno drift") {
			t.Errorf("%s: a value of others must not look like a line of its own:\n%s", name, shown)
		}
	}
}

// questioned runs a question against a service.
func questioned(t *testing.T, s *service, run func(Streams) (int, error)) (status int, stdout string, err error) {
	t.Helper()
	serve(t, s)
	var out, progress bytes.Buffer
	status, err = run(Streams{In: strings.NewReader(""), Out: &out, Progress: &progress})
	return status, out.String(), err
}

func TestExplain_ExitStatusSaysWhetherItIsWell(t *testing.T) {
	for answer, want := range map[string]int{`{"mode":"explain","ok":true}`: done, `{"mode":"explain","ok":false}`: undone, `<html>`: broken} {
		s := &service{answers: []string{answer}}
		o := ExplainOptions{Of: deployed.Choice{Function: "f"}, Instance: "I-1", Account: "123456789012", Region: "us-east-1", JSON: true}
		status, _, err := questioned(t, s, func(to Streams) (int, error) { return Explain(t.Context(), o, to) })
		if status != want || (err != nil) != (want == broken) {
			t.Errorf("%s: want status %d, got %d, %v", answer, want, status, err)
		}
		if want := `{"mode":"explain","instanceIds":["I-1"],"account":"123456789012","region":"us-east-1"}`; len(s.received) != 1 || s.received[0] != want {
			t.Errorf("want %s sent, got %q", want, s.received)
		}
	}
}

func TestWho_JoinsInvocationsIntoOneAnswer(t *testing.T) {
	s := &service{answers: []string{
		`{"mode":"who","asked":[{"name":"web-1"}],"holders":[{"name":"web-1","instanceId":"i-0a","now":false,"basis":"tombstone"}],"instances":[{"instanceId":"i-0a"}],"scanned":2,"cursor":{"after":"k"}}`,
		`{"mode":"who","asked":[{"name":"web-1"}],"holders":[{"name":"web-1","instanceId":"i-0b","now":true,"basis":"claim"}],"instances":[{"instanceId":"i-0b"}],"scanned":3,"complete":true}`,
	}}
	o := WhoOptions{Of: deployed.Choice{Function: "f"}, Names: []string{"web-1"}, JSON: true}
	status, out, err := questioned(t, s, func(to Streams) (int, error) { return FindHolders(t.Context(), o, to) })
	var a holders.Answer
	if err != nil || status != done || json.Unmarshal([]byte(out), &a) != nil || len(a.Holders) != 2 || a.Holders[0].InstanceID != "i-0b" || a.Scanned != 5 || !a.Complete || strings.Contains(out, "cursor") {
		t.Errorf("want both holders, the present one first, got %d, %v, %s", status, err, out)
	}
	if len(s.received) != 2 || s.received[1] != `{"mode":"who","names":["web-1"],"cursor":{"after":"k"}}` {
		t.Errorf("want the cursor sent back, got %q", s.received)
	}
	stuck := &service{answers: []string{`{"mode":"who","cursor":{"after":"k"}}`}}
	if status, _, err = questioned(t, stuck, func(to Streams) (int, error) { return FindHolders(t.Context(), o, to) }); status != broken || err == nil || len(stuck.received) != 2 {
		t.Errorf("want an end after the second equal cursor, got %d, %v", status, err)
	}
	none := &service{answers: []string{`{"mode":"who","asked":[{"name":"web-1"}],"complete":true}`}}
	if status, _, err = questioned(t, none, func(to Streams) (int, error) { return FindHolders(t.Context(), o, to) }); status != undone || err != nil {
		t.Errorf("want status %d for a name without a holder, got %d, %v", undone, status, err)
	}
}

// The certificate has a DNS name, an address and a URI.
func TestWho_AsksForTheNamesOfACertificate(t *testing.T) {
	c, err := readCertificate(filepath.Join("testdata", "certificate.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(namesIn(c), " "), "web-1.alice.example 10.0.0.5 2001:db8::5 spiffe://alice/123456789012/"+asked; got != want {
		t.Errorf("want %q, got %q", want, got)
	}
	if serial := serialOf(c); serial != "0a:1b:2c" {
		t.Errorf("want the serial number in Vault's form, got %q", serial)
	}
	broken := filepath.Join(t.TempDir(), "broken.pem")
	if err := os.WriteFile(broken, []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{broken, "questions_test.go", "none"} {
		if _, err := readCertificate(file); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: want an error that names the file, got %v", file, err)
		}
	}
}
