package ask

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/doctor"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

var update = flag.Bool("update", false, "write what is printed into testdata")

// golden compares printed text with testdata/<name>.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (make golden writes it)", err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func printed(t *testing.T, a answer) string {
	t.Helper()
	var b bytes.Buffer
	if err := printAnswer(&b, a); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// threeRows returns an answer with one row of each common kind.
func threeRows() answer {
	return answer{Answer: reconcile.Answer{
		Mode: reconcile.Detect, Scanned: reconcile.Scanned{Instances: 4, Records: 4, Policies: 6, AuthRoles: 4, PKIRoles: 1}, DurationMs: 1234,
		Drift: []reconcile.Drift{
			{
				InstanceID: "i-0123456789abcdef0", Object: "policy", Path: "sys/policies/acl/ec2-i-0123456789abcdef0-node", Reason: "changed", Action: "update",
				Fields: []string{"policy"}, Diff: "- path \"secret/*\" {\n-   capabilities = [\"read\"]\n- }\n+ # Made by vault-ec2-provisioner\n",
			},
			{
				InstanceID: "i-0123456789abcdef0", Object: "pki-role", Path: "alice_cluster/pki/k8s/roles/i-0123456789abcdef0-kubelet", Reason: "changed", Action: "update",
				Fields: []string{"allow_any_name", "max_ttl"}, Diff: "- allow_any_name: true\n+ allow_any_name: false\n- max_ttl: 864000\n+ max_ttl: 86400",
			},
			{InstanceID: "i-0fedcba9876543210", Object: "auth-role", Path: "auth/aws/role/i-0fedcba9876543210", Reason: "orphaned", Action: "delete"},
		},
		Summary: reconcile.Summary{Changed: 2, Orphaned: 1},
	}}
}

func TestPrint_ShowsDifferencesBelowTheirRow(t *testing.T) {
	golden(t, "detect", printed(t, threeRows()))
}

func TestPrint_ShowsARowWithoutInstance(t *testing.T) {
	a := threeRows()
	a.Drift = append(a.Drift[2:], reconcile.Drift{
		Object: "policy", Path: "sys/policies/acl/ec2-i-door", Reason: "conflicting", Action: "none", Error: "it is inside this program's name space: delete it by hand",
	})
	a.Summary = reconcile.Summary{Orphaned: 1, Conflicting: 1}
	golden(t, "no-instance", printed(t, a))
}

func TestPrint_ReportsAFleetInOrder(t *testing.T) {
	a := threeRows()
	a.Drift, a.Summary = nil, reconcile.Summary{}
	golden(t, "in-order", printed(t, a))
}

// Paths are relative to the namespace, so an operator who reads them must see it.
func TestPrint_NamesTheNamespace(t *testing.T) {
	a := threeRows()
	a.Namespace = "team/a\n"
	if out := printed(t, a); !strings.HasPrefix(out, `detect in Vault's namespace team/a\n: compared 4 instances`) {
		t.Errorf("the first line must name the namespace, without its control characters:\n%s", out)
	}
	var b bytes.Buffer
	if err := printTeardown(&b, a); err != nil || !strings.HasPrefix(b.String(), "teardown in Vault's namespace team/a") {
		t.Errorf("got %q, %v, want the namespace in the first line", b.String(), err)
	}
}

func TestPrint_ReportsRepairsAndBlocks(t *testing.T) {
	a := threeRows()
	a.Mode = reconcile.Correct
	a.Drift[1].Error = "writing alice_cluster/pki/k8s/roles/i-0123456789abcdef0-kubelet: 403: permission denied"
	a.Summary.Corrected, a.Summary.Failed, a.Summary.Enqueued = 1, 1, 1
	a.Blocked, a.BlockedReason = true, "1 of 4 recorded instances would be removed, more than 20 percent; with force they are"
	a.Truncated = true
	golden(t, "correct", printed(t, a))
}

func TestPrint_NamesPlacesThatWereNotCompared(t *testing.T) {
	a := threeRows()
	a.Drift, a.Summary = nil, reconcile.Summary{}
	a.Places = []reconcile.PlaceTrouble{
		{Account: "111122223333", Region: "ap-east-1", Error: "describing the instances of account 111122223333, region ap-east-1: UnauthorizedOperation"},
		{Folder: "alice_cluster/ghost", Recorded: 3, Error: "listing alice_cluster/ghost in Vault: status 404: no handler for route"},
		{Folder: "alice_cluster/\x1bpki", Recorded: 1, Withholds: true, Error: "listing: status 403"},
	}
	golden(t, "places", printed(t, a))
	if a.status() != done {
		t.Error("want status 0: nothing is left to do")
	}
}

func TestPrint_ShortensLongDifferences(t *testing.T) {
	a := threeRows()
	a.Drift = a.Drift[:1]
	var lines []string
	for n := range 100 {
		lines = append(lines, fmt.Sprintf("-line %d", n))
	}
	lines[0] = "-" + strings.Repeat("ä", 500)
	a.Drift[0].Diff = strings.Join(lines, "\n")
	golden(t, "long-diff", printed(t, a))
}

func TestPrint_BlockedRunIsNotInOrder(t *testing.T) {
	golden(t, "blocked", printed(t, answer{Answer: reconcile.Answer{
		Mode: reconcile.Detect, Blocked: true, BlockedReason: "nothing is compared: listing auth/aws/role in Vault: status 503\nlisting sys/policies/acl in Vault: status 503",
	}}))
}

// hostile is a text that an attacker with write access to Vault or to an instance's tags could send to a terminal.
const hostile = "a\x1b[2Jb\x07\rc\u009bd\u202ee\u200bf\x00g\x7f\tä\u2028h"

func TestPrint_EscapesControlCharacters(t *testing.T) {
	row := reconcile.Drift{
		InstanceID: hostile, Object: hostile, Path: hostile, Reason: hostile, Action: hostile, Fields: []string{hostile},
		Diff: "-" + hostile + "\n+" + hostile, Error: hostile + "\nerror: forged",
	}
	a := answer{Answer: reconcile.Answer{Mode: hostile, Drift: []reconcile.Drift{row}, Blocked: true, BlockedReason: hostile + "\nno drift"}}
	asTable := printed(t, a)
	golden(t, "hostile", asTable)
	var b bytes.Buffer
	if err := printReport(&b, doctor.Report{Version: hostile, Checks: []doctor.Check{{Name: hostile, Detail: hostile, Remedy: hostile + "\nok  all"}}}); err != nil {
		t.Fatal(err)
	}
	golden(t, "hostile-doctor", b.String())
	raw, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var asJSON bytes.Buffer
	if err := text.PrintJSON(&asJSON, raw); err != nil {
		t.Fatal(err)
	}
	var again answer
	if err := json.Unmarshal(asJSON.Bytes(), &again); err != nil || again.Drift[0].Error != row.Error {
		t.Errorf("the JSON should hold the same values: %v, %q", err, again.Drift)
	}
	for name, shown := range map[string]string{"the table": asTable, "the checks": b.String(), "the JSON": asJSON.String()} {
		for _, r := range shown {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%s contains %U unescaped", name, r)
			}
		}
	}
}

func TestPrint_DoctorShowsRemedies(t *testing.T) {
	r := doctor.Report{Mode: "doctor", Version: "v1.2.3", Checks: []doctor.Check{
		{Name: "vault", OK: true, Detail: "1.21.0 at https://vault.example.com:8200, unsealed"},
		{Name: "vault token", Detail: "lacks delete on auth/aws/role/i-*", Remedy: "run vault-ec2 setup again with --function-role reconcile=<ARN>"},
		{Name: "table", OK: true, Detail: "lab-Table: expiry and point-in-time recovery are on"},
	}}
	var b bytes.Buffer
	if err := printReport(&b, r); err != nil {
		t.Fatal(err)
	}
	golden(t, "doctor", b.String())
}

func TestExitStatus_ReportsRemainingWork(t *testing.T) {
	for name, c := range map[string]struct {
		a    reconcile.Answer
		want int
	}{
		"nothing drifted":                            {reconcile.Answer{Mode: "detect"}, done},
		"drift was found":                            {reconcile.Answer{Mode: "detect", Summary: reconcile.Summary{Missing: 1}}, undone},
		"a conflict was found":                       {reconcile.Answer{Mode: "detect", Summary: reconcile.Summary{Conflicting: 1}}, undone},
		"a comparison failed":                        {reconcile.Answer{Mode: "detect", Summary: reconcile.Summary{Failed: 1}}, undone},
		"drift was repaired":                         {reconcile.Answer{Mode: "correct", Summary: reconcile.Summary{Missing: 3, Corrected: 3}}, done},
		"drift was sent to the queue":                {reconcile.Answer{Mode: "correct", Summary: reconcile.Summary{Missing: 3, Enqueued: 3}}, done},
		"a conflict was left alone":                  {reconcile.Answer{Mode: "correct", Summary: reconcile.Summary{Missing: 3, Conflicting: 1, Corrected: 3}}, undone},
		"a repair failed":                            {reconcile.Answer{Mode: "correct", Summary: reconcile.Summary{Missing: 3, Corrected: 2, Failed: 1}}, undone},
		"removals were blocked":                      {reconcile.Answer{Mode: "correct", Blocked: true}, undone},
		"removals would be blocked, nothing drifted": {reconcile.Answer{Mode: "detect", Blocked: true}, undone},
	} {
		if got := (answer{Answer: c.a}).status(); got != c.want {
			t.Errorf("%s: exit status %d, want %d", name, got, c.want)
		}
	}
}
