package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// findingOf returns the sample event of a finding, about the instance and seen now, with texts replaced.
func findingOf(t *testing.T, i fleet.Instance, replaced ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "events", "finding.json"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Format(time.RFC3339)
	always := []string{"i-0123456789abcdef0", i.ID, "2026-01-02T03:04:05Z", now, "2026-01-02T02:58:31.000Z", now}
	event := strings.NewReplacer(append(replaced, always...)...).Replace(string(text))
	if !json.Valid([]byte(event)) {
		t.Fatalf("the event is no JSON: %s", event)
	}
	return []byte(event)
}

func TestFinding_CutsItsInstanceOff(t *testing.T) {
	i := provisioned(t)
	defer remove(t, i)
	session := login(t, i)
	tokens := map[string]string{"session": session.Auth.ClientToken}
	off, function := world.Functions[deprovision], variant(t, deprovision, map[string]string{"QUARANTINE_SEVERITY": "high"})
	const own, other = `"accountId": "123456789012"`, `"account": "123456789012"`
	for name, row := range map[string]struct {
		replaced []string
		says     string
	}{
		"a sample":         {[]string{`\"threatListName\":\"GeneratedFindingThreatListName\"`, `\"sample\":true`}, "it is a sample"},
		"a lower severity": {[]string{`"severity": 8`, `"severity": 6.9`}, "its severity is below 7"},
		"an archived one":  {[]string{`"archived": false`, `"archived": true`}, "it is archived"},
		"one of an account that is not served": {
			[]string{"i-0123456789abcdef0", "i-0fedcba987654f00d", own, `"accountId": "999999999999"`}, "neither the function's own",
		},
		"one of an account that is not its own": {
			[]string{own, `"accountId": "999999999999"`, other, `"account": "999999999999"`}, "does not count",
		},
		"one sent by another account": {[]string{other, `"account": "999999999999"`}, "was sent by account"},
	} {
		if a := bare(t, function, findingOf(t, i, row.replaced...)); a.Action == "deprovisioned" || !strings.Contains(a.Error, row.says) {
			t.Errorf("%s: want it left alone because %q, got %+v", name, row.says, a)
		}
	}
	if a := bare(t, off, findingOf(t, i)); a.Action != "" || !strings.Contains(a.Error, "no finding puts an instance into quarantine here") {
		t.Errorf("by default: want the finding left alone, got %+v", a)
	}
	if len(alive(t, i, tokens)) != 2 {
		t.Fatal("a finding that does not count cut the instance off")
	}

	if a := bare(t, function, findingOf(t, i)); a.Action != "deprovisioned" {
		t.Fatalf("want the instance cut off, got %+v\n%s", a, lastOf(function.Logs()))
	}
	logged(t, function, "CryptoCurrency:EC2/BitcoinTool.B!DNS, finding 16afba5c5c43e07c9e3e5e2e544e95df")
	if works := alive(t, i, tokens); len(works) > 0 {
		t.Errorf("want the token refused, got %v", works)
	}
	if _, err := world.Fleet.Login(t.Context(), world.AuthMount, i, session.Nonce); err == nil {
		t.Error("want a login refused")
	}
	if left := objects(t, i); len(left) > 0 {
		t.Errorf("want nothing in Vault, got %v", left)
	}
	must(t, provision, i, "running", "in-quarantine")

	if o := ordered(t, rec.Release, i); o.Status != rec.IsReleased {
		t.Fatalf("want the instance released, got %+v", o)
	}
	const lastSeen = "2026-01-02T02:58:31.000Z"
	if a := bare(t, function, findingOf(t, i, lastSeen, lastSeen)); a.Action != "left-alone" || a.Error != "" {
		t.Errorf("want a finding from before the release left alone, got %+v", a)
	}
	login(t, i)
}
