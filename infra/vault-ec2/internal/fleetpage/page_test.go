package fleetpage

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/report"
)

const hostile = `</script><img src=x onerror="document.title='owned'"><!--`

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func written(t *testing.T, s Source) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, New(s)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPage_NoValueLeavesItsElement(t *testing.T) {
	page := written(t, Source{
		Head: Head{Deployment: hostile, Function: hostile}, Omitted: []Omitted{{What: hostile, Why: hostile}},
		Comparison: &Comparison{Drift: []reconcile.Drift{{InstanceID: hostile, Path: hostile, Diff: hostile, Error: hostile}}},
		Instances:  []report.Instance{{InstanceID: hostile, State: hostile, FQDN: hostile, Profile: hostile, Addresses: []string{hostile}, Error: hostile}},
		Claims:     []report.Claim{{Name: report.Name{Text: hostile, Under: hostile}, InstanceID: hostile}},
	})
	if strings.Contains(page, "<img") || strings.Count(page, "</script>") != 2 || strings.Contains(page, "<!--") {
		t.Error("want no value as markup")
	}
	_, rest, _ := strings.Cut(page, `<script type="application/json" id="data">`)
	text, _, _ := strings.Cut(rest, "</script>")
	var d Data
	if err := json.Unmarshal([]byte(text), &d); err != nil || d.Head.Deployment != hostile || d.Comparison.Drift[0].Diff != hostile || !slices.Contains(d.Texts, hostile) {
		t.Errorf("want each value unchanged in the data, got %v, %+v", err, d)
	}
}

// The policy forbids every request, and names the style and the script as they are in the page.
func TestPage_PolicyAllowsItsOwnScriptAlone(t *testing.T) {
	page := written(t, Source{})
	_, rest, _ := strings.Cut(page, `http-equiv="Content-Security-Policy" content="`)
	policy, _, _ := strings.Cut(rest, `"`)
	if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") {
		t.Errorf("the policy is %q", policy)
	}
	for tag, directive := range map[string]string{"style": "style-src", "script": "script-src"} {
		_, rest, _ := strings.Cut(page, "<"+tag+">")
		text, _, _ := strings.Cut(rest, "</"+tag+">")
		if want := directive + " " + hash(text) + ";"; !strings.Contains(policy, want) {
			t.Errorf("want %s in %q", want, policy)
		}
	}
	for _, forbidden := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "fetch(", "XMLHttpRequest", "</script", ".style"} {
		if strings.Contains(script(), forbidden) {
			t.Errorf("the page's script has %s", forbidden)
		}
	}
	for _, loads := range []string{"url(", "@import", "src=", "<link", "style="} {
		if strings.Contains(style+body, loads) {
			t.Errorf("the page has %s: it must load nothing", loads)
		}
	}
}

// namesIn formats the rows of names.
func namesIn(d Data) []string {
	var out []string
	for _, r := range d.Names {
		text := func(n int) string { return d.Texts[r[n].(int)] }
		out = append(out, fmt.Sprintf("%s|%s|%s|%v|%s|%v", text(0), text(1), text(2), r[3], text(4), r[5]))
	}
	return out
}

func TestNames_ShowEachWayToHoldOne(t *testing.T) {
	const a, b, gone = "i-0a", "i-0b", "i-0c"
	at := now
	on := func(text string) report.Name { return report.Name{Text: text, Under: "m"} }
	d := New(Source{
		Instances: []report.Instance{
			{
				InstanceID: a, State: ledger.Active, Objects: 3, FQDN: "web-1", Addresses: []string{"10.0.0.1", "10.0.0.9"}, Names: []report.Name{on("web-1"), on("10.0.0.1@vpc-1")},
				Former: []report.DatedName{{Name: on("web-0"), At: &at}},
			},
			{InstanceID: b, State: ledger.Active, Objects: 3, FQDN: "web-2", Names: []report.Name{on("web-2")}},
			{InstanceID: gone, State: ledger.Deleted, FQDN: "web-1", Addresses: []string{"10.0.0.3"}, DeletedAt: &at, Released: []report.DatedName{{Name: on("web-1"), At: &at}}},
			{InstanceID: "i-0d", State: ledger.Refused},
			{InstanceID: "i-0f", State: ledger.Deleted, FQDN: "web-9", DeletedAt: &at, Former: []report.DatedName{{Name: on("web-9")}}, Quarantine: &report.Quarantine{Since: at}},
		},
		Claims: []report.Claim{{Name: on("web-1"), InstanceID: a}, {Name: on("10.0.0.1@vpc-1"), InstanceID: a}, {Name: on("web-0"), InstanceID: a}, {Name: on("lost"), InstanceID: "i-0e"}, {Name: on("web-9"), InstanceID: "i-0f"}},
	})
	ms := fmt.Sprint(now.UnixMilli())
	want := []string{
		"10.0.0.1@vpc-1|m|i-0a|1|claim|0", "10.0.0.3||i-0c|0|tombstone|" + ms, "10.0.0.9||i-0a|1|shared|0", "lost|m|i-0e|1|claim without a record|0",
		"web-0|m|i-0a|1|claim of an earlier name|" + ms, "web-1|m|i-0c|0|released|" + ms, "web-1|m|i-0a|1|claim|0", "web-2|m|i-0b|1|record without a claim|0",
		"web-9|m|i-0f|1|claim in quarantine|0",
	}
	if len(d.Quarantines) != 1 || d.Quarantines[0].InstanceID != "i-0f" {
		t.Errorf("want the mark, got %+v", d.Quarantines)
	}
	if got := namesIn(d); !slices.Equal(got, want) {
		t.Errorf("want\n%s\ngot\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
}

// Each row has a value for each column, and an earlier version's record is not one of a repair.
func TestInstances_HaveAValueForEachColumn(t *testing.T) {
	at := now
	d := New(Source{Instances: []report.Instance{{InstanceID: "i-0a"}, {InstanceID: "i-0b", Ready: &report.Span{To: &at}, Cut: &report.Span{By: ledger.ByHook, From: &at, To: &at}}}})
	for n, want := range []string{"?|0|0|?|0|0", fmt.Sprintf("|0|%[1]d|hook|%[1]d|%[1]d", now.UnixMilli())} {
		row := d.Instances[n]
		if len(row) != len(d.InstanceColumns) {
			t.Fatalf("want %d values, got %d", len(d.InstanceColumns), len(row))
		}
		at := slices.Index(d.InstanceColumns, "readyBy")
		got := fmt.Sprintf("%s|%v|%v|%s|%v|%v", d.Texts[row[at].(int)], row[at+1], row[at+2], d.Texts[row[at+3].(int)], row[at+4], row[at+5])
		if got != want {
			t.Errorf("row %d: want %s, got %s", n, want, got)
		}
	}
}
