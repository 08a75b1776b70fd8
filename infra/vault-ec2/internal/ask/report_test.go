package ask

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/fleetpage"
)

const (
	firstLedger = `{"mode":"report","deployment":"lab","account":"123456789012","region":"us-east-1","program":"v1","requestId":"r-1","from":"2026-01-02T03:04:05Z","to":"2026-01-02T03:04:06Z",
		"instances":[{"instanceId":"i-0a","state":"active"}],"claims":[],"unread":[],"complete":false,"cursor":{"after":"instance#i-0a","limit":1,"more":"of a later version"}}`
	lastLedger = `{"mode":"report","deployment":"lab","requestId":"r-2","from":"2026-01-02T03:04:06Z","to":"2026-01-02T03:04:07Z",
		"instances":[{"instanceId":"i-0b","state":"quarantined"}],"claims":[{"name":"web-1","under":"m","instanceId":"i-0b"}],"unread":[],"complete":true}`
	lastUnread = `{"mode":"report","deployment":"lab","instances":[],"claims":[],"unread":[{"what":"the ledger's records and claims","error":"throttled"}]}`
	noDrift    = `{"mode":"detect","scanned":{"records":2},"drift":[],"summary":{}}`
)

// reported runs the command against the service, and returns the data of its page.
func reported(t *testing.T, s *service, o ReportOptions) (status int, d fleetpage.Data, progress string, err error) {
	t.Helper()
	serve(t, s)
	o.Of, o.File = deployed.Choice{Function: "fleet-Reconcile"}, filepath.Join(t.TempDir(), "fleet.html")
	var out, to bytes.Buffer
	if status, err = Report(t.Context(), o, Streams{Out: &out, Progress: &to}); err != nil {
		if entries, _ := os.ReadDir(filepath.Dir(o.File)); len(entries) > 0 {
			t.Errorf("want no file after an error, got %v", entries)
		}
		return status, d, to.String(), err
	}
	page, readErr := os.ReadFile(o.File)
	info, statErr := os.Stat(o.File)
	if readErr != nil || statErr != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("want a file that its owner alone may read, got %v, %v, %v", info, readErr, statErr)
	}
	_, rest, _ := strings.Cut(string(page), `id="data">`)
	text, _, _ := strings.Cut(rest, "</script>")
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	return status, d, to.String(), nil
}

// omitted returns what is not in a page.
func omitted(d fleetpage.Data) string {
	var b strings.Builder
	for _, o := range d.Omitted {
		b.WriteString(o.What + ": " + o.Why + "\n")
	}
	return b.String()
}

func TestReport_JoinsThePartsOfTheLedger(t *testing.T) {
	s := &service{answers: []string{firstLedger, lastLedger, noDrift}}
	status, d, progress, err := reported(t, s, ReportOptions{Version: "v2"})
	if err != nil || status != done || len(d.Omitted) > 0 || len(d.Instances) != 2 || len(d.Names) != 1 || d.Comparison == nil {
		t.Fatalf("got %d, %v, %+v", status, err, d)
	}
	h := d.Head
	if h.Account != "123456789012" || h.Program != "v1" || h.Command != "v2" || !slices.Equal(h.Requests, []string{"r-1", "r-2"}) || h.From.Second() != 5 || h.To.Second() != 7 {
		t.Errorf("the head is %+v", h)
	}
	if !strings.Contains(s.received[1], `"more":"of a later version"`) || !strings.Contains(s.received[2], `"mode":"detect"`) {
		t.Errorf("want the cursor returned unread, then the comparison, got %q", s.received)
	}
	if !strings.Contains(progress, "1 record and 0 claims read so far; continuing") {
		t.Errorf("want the progress, got %q", progress)
	}
}

// What is missing is in the page, and in the exit status.
func TestReport_SaysWhatIsNotInIt(t *testing.T) {
	truncated := `{"mode":"detect","drift":[{"instanceId":"i-0a"}],"summary":{"missing":300,"failed":2},"truncated":true,"blocked":true,"blockedReason":"doubt",
		"places":[{"account":"210987654321","region":"eu-west-1","recorded":3,"error":"denied"},{"folder":"a/pki/roles","error":"status 403"}]}`
	for name, c := range map[string]struct {
		answers []string
		options ReportOptions
		says    []string
	}{
		"an unread page":       {[]string{firstLedger, lastUnread, noDrift}, ReportOptions{}, []string{"the ledger's records and claims: throttled"}},
		"a part that fails":    {[]string{firstLedger, "no JSON", noDrift}, ReportOptions{}, []string{"a part of the ledger", "reading the answer"}},
		"a failed comparison":  {[]string{lastLedger, "no JSON"}, ReportOptions{}, []string{"the comparison with EC2 and Vault: no drift is shown"}},
		"no comparison wanted": {[]string{lastLedger}, ReportOptions{NoDrift: true}, []string{"left out by --no-drift"}},
		"a partial comparison": {[]string{lastLedger, truncated}, ReportOptions{}, []string{"beyond the first 1 rows", "doubt", "account 210987654321, region eu-west-1: denied", "folder a/pki/roles of Vault: status 403", "the comparison of 2 instances"}},
	} {
		status, d, progress, err := reported(t, &service{answers: c.answers}, c.options)
		if err != nil || status != undone || len(d.Instances) == 0 {
			t.Errorf("%s: want a page and status 1, got %d, %v", name, status, err)
		}
		for _, says := range c.says {
			if !strings.Contains(omitted(d), says) || !strings.Contains(progress, says) {
				t.Errorf("%s: want %q in the page and in\n%s, got\n%s", name, says, progress, omitted(d))
			}
		}
	}
}

// A function of an earlier version has no mode report; a page without anything would look like an empty fleet.
func TestReport_WritesNoPageWithoutTheLedger(t *testing.T) {
	status, _, _, err := reported(t, &service{failing: true, answers: []string{`{"errorMessage":"mode: \"report\" is none of detect"}`}}, ReportOptions{})
	if status != broken || err == nil || !strings.Contains(err.Error(), "is none of") {
		t.Errorf("want an error, got %d, %v", status, err)
	}
}
