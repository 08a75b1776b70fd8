package browser

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// opened returns the page of a fleet in a browser. At the test's end the page must have made no request and no error.
func opened(t *testing.T, s service, status int) (p *Page, file string) {
	t.Helper()
	file = write(t, s, status)
	began := time.Now()
	p, err := Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instances: opened in %s", len(s.all.Instances), time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		defer p.Close()
		if r := p.Requests(); len(r) != 1 || r[0] != "file://"+file {
			t.Errorf("want no request but for the file itself, got %q", r)
		}
		if said := p.Troubles(); len(said) > 0 {
			t.Errorf("want nothing on the console, got %q", said)
		}
	})
	return p, file
}

func eval[T any](t *testing.T, p *Page, script string) T {
	t.Helper()
	v, err := Eval[T](p, script)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// rows counts the rows of a section's last table, and cell returns a text in it.
func rows(section string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#%s .frame table")].pop().querySelectorAll("tbody tr").length`, section)
}

func cell(section string, row, column int) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#%s .frame table")].pop().querySelector("tbody").rows[%d].cells[%d].textContent`, section, row, column)
}

func note(section string) string {
	return fmt.Sprintf(`document.querySelector("#%s .more span").textContent`, section)
}

// A value of a tag is text: in the page, in its title, in a table's row.
func TestPage_HostileNamesAreText(t *testing.T) {
	s := service{all: fleet(10), compared: drift()}
	s.all.Deployment = "lab" + hostile
	p, _ := opened(t, s, 0)
	if got := eval[int](t, p, `document.querySelectorAll("img, main script, main svg[onload], iframe, object, link").length`); got != 0 {
		t.Errorf("want no element of a value, got %d", got)
	}
	if got := eval[string](t, p, `document.title`); !strings.HasPrefix(got, "Fleet report: lab</script>") {
		t.Errorf("the title is %q", got)
	}
	shown := strings.ReplaceAll(hostile, "\u202e", `\u202e`)
	if got := eval[string](t, p, `document.getElementById("instances").textContent`); !strings.Contains(got, shown) || strings.Contains(got, "\u202e") {
		t.Errorf("want the name as text, and a character that turns the order around shown, got %s", got)
	}
	for _, section := range []string{"drift", "quarantine"} {
		if got := eval[string](t, p, `document.getElementById("`+section+`").textContent`); !strings.Contains(got, shown) {
			t.Errorf("want the value as text in %s, got %s", section, got)
		}
	}
}

// The page's policy, and not the script alone, keeps a value from running: an element that slipped in would do nothing.
func TestPage_PolicyStopsWhatSlipsIn(t *testing.T) {
	file := write(t, service{all: fleet(10), compared: drift()}, 0)
	p, err := Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	script := `new Promise((done) => {
		const s = document.createElement("script"); s.textContent = "window.ran = true"; document.body.append(s);
		const i = document.createElement("img"); i.src = "http://127.0.0.1:9/x"; document.body.append(i);
		fetch("http://127.0.0.1:9/y").catch(() => {}).then(() => setTimeout(() => done(window.ran === true), 200));
	})`
	if eval[bool](t, p, script) {
		t.Error("want the policy to stop a foreign script")
	}
	said := strings.Join(p.Troubles(), "\n")
	for _, what := range []string{"script", "127.0.0.1:9/x", "127.0.0.1:9/y"} {
		if !strings.Contains(said, what) {
			t.Errorf("want the policy's refusal of %s, got\n%s", what, said)
		}
	}
}

func TestPage_SearchesAndSorts(t *testing.T) {
	p, _ := opened(t, service{all: fleet(10), compared: drift()}, 0)
	if got := eval[int](t, p, rows("instances")); got != 10 {
		t.Errorf("want each live instance, got %d", got)
	}
	for _, says := range []string{"10 instances", "1 refused", "1 suspended", "1 in quarantine", "No row"} {
		if got := eval[string](t, p, `document.querySelector("#instances caption").textContent`); strings.Contains(got, says) == (says == "No row") {
			t.Errorf("want the totals with %q, got %q", says, got)
		}
	}
	focus := eval[string](t, p, `document.getElementById("search").focus(); document.activeElement.id`)
	if err := p.Type("Etcd active\r"); err != nil || focus != "search" {
		t.Fatal(err, focus)
	}
	if got := eval[string](t, p, note("instances")); got != "1 of 10 rows found" {
		t.Errorf("want both words, in any column, in any case, got %q", got)
	}
	if got := eval[string](t, p, `document.querySelector("#found").textContent`); !strings.Contains(got, "found") {
		t.Errorf("want the number of rows said, got %q", got)
	}
	eval[bool](t, p, `(() => { const s = document.getElementById("search"); s.value = ""; s.dispatchEvent(new Event("change")); return true; })()`)
	if got := eval[string](t, p, `document.getElementById("prints").textContent`); !strings.HasPrefix(got, "A print now has all ") {
		t.Errorf("want the size of a print said, got %q", got)
	}
	// Without Enter, the search begins a moment after the last key.
	if err := p.Type("etcd"); err != nil {
		t.Fatal(err)
	}
	if got := eval[string](t, p, `new Promise((done) => setTimeout(() => done(document.querySelector("#instances .more span").textContent), 500))`); got != "2 of 10 rows found" {
		t.Errorf("want the words searched after a pause, got %q", got)
	}
	eval[bool](t, p, `(() => { const s = document.getElementById("search"); s.value = ""; s.dispatchEvent(new Event("change")); return true; })()`)
	sorted := func() (texts []string) {
		for n := range 10 {
			texts = append(texts, eval[string](t, p, cell("instances", n, 3)))
		}
		return texts
	}
	press := func() string { // by the keyboard
		eval[bool](t, p, `(() => { document.querySelectorAll("#instances thead button")[3].focus(); return true; })()`)
		if err := p.Type("\r"); err != nil {
			t.Fatal(err)
		}
		return eval[string](t, p, `document.querySelectorAll("#instances thead th")[3].getAttribute("aria-sort")`)
	}
	if order := press(); order != "ascending" || !slices.IsSorted(sorted()) {
		t.Errorf("want it sorted by name, got %s %q", order, sorted())
	}
	if order := press(); order != "descending" || slices.IsSorted(sorted()) {
		t.Errorf("want it sorted the other way, got %s %q", order, sorted())
	}
}

// Each table has a caption, heads of columns and of rows; each control has a name; nothing but text is a name.
func TestPage_IsReadAloud(t *testing.T) {
	p, _ := opened(t, service{all: fleet(10), compared: drift()}, 0)
	for what, script := range map[string]string{
		"a table without a caption with totals": `[...document.querySelectorAll("table")].filter((t) => !t.caption || !/[0-9]/.test(t.caption.textContent)).length`,
		"a head of a column without scope":      `document.querySelectorAll("thead th:not([scope=col])").length`,
		"a row without a head":                  `[...document.querySelectorAll("tbody tr")].filter((r) => r.cells[0].scope !== "row" && r.cells.length > 1).length`,
		"a control without a name":              `[...document.querySelectorAll("button, input")].filter((e) => !(e.textContent || (e.labels && e.labels.length))).length`,
		"a chart without a text":                `document.querySelectorAll("svg:not([role=img][aria-label])").length`,
		"a section without a head":              `[...document.querySelectorAll("section")].filter((s) => !document.getElementById(s.getAttribute("aria-labelledby"))).length`,
		"an ID twice":                           `(() => { const ids = [...document.querySelectorAll("[id]")].map((e) => e.id); return ids.length - new Set(ids).size; })()`,
		"a scrolling table without a focus":     `document.querySelectorAll(".frame:not([tabindex='0'][role=region][aria-label])").length`,
	} {
		if n := eval[int](t, p, script); n != 0 {
			t.Errorf("%s: %d", what, n)
		}
	}
	if got := eval[string](t, p, `document.activeElement.blur(), document.documentElement.lang`); got != "en" {
		t.Errorf("the language is %q", got)
	}
	if err := p.Type("\t"); err != nil {
		t.Fatal(err)
	}
	if got := eval[string](t, p, `document.activeElement.textContent`); got != "To the report" {
		t.Errorf("want the first tab stop to lead past the head, got %q", got)
	}
}

func TestPage_SaysWhatIsNotInIt(t *testing.T) {
	s := service{all: fleet(10), compared: drift()}
	if got := eval[string](t, first(opened(t, s, 0)), `document.querySelector("#missing h2").textContent`); got != "Everything was read" {
		t.Errorf("got %q", got)
	}
	s.all.Unread = []fault.Unread{{What: "the ledger's records and claims", Error: "throttled"}}
	s.compared.Truncated = true
	p, _ := opened(t, s, 1)
	got := eval[string](t, p, `document.querySelector("main > section").textContent`)
	for _, says := range []string{"Not in this report", "the ledger's records and claims: throttled", "drift beyond the first 4 rows"} {
		if !strings.Contains(got, says) {
			t.Errorf("want %q at the head, got %q", says, got)
		}
	}
}

func first(p *Page, _ string) *Page { return p }

// The times are those of the spans; those without one are counted apart.
func TestPage_CountsTimesAndTombstones(t *testing.T) {
	s := service{all: fleet(10), compared: drift()}
	p, _ := opened(t, s, 0)
	got := eval[[]string](t, p, `[...document.querySelectorAll("#times > .frame tbody tr")].map((r) => [...r.cells].map((c) => c.textContent).join("|"))`)
	for n, want := range []string{"Time to ready, by event|3|", "Time to ready, by lifecycle hook|3|", "Time to ready, not measured|||||||0|1|12"} {
		if !strings.HasPrefix(got[n], want) {
			t.Errorf("row %d: want %s…, got %s", n, want, got[n])
		}
	}
	if n := eval[int](t, p, `[...document.querySelectorAll("#removed details tbody td")].reduce((n, c) => n + Number(c.textContent), 0)`); n != 10 {
		t.Errorf("want each tombstone on the line of time, got %d", n)
	}
}

// The page says who was cut off, when, by whom and why; one in quarantine is not among the removed ones, and one that was released is.
func TestPage_ShowsTheQuarantine(t *testing.T) {
	p, _ := opened(t, service{all: fleet(10), compared: drift()}, 0)
	if got := eval[string](t, p, `document.querySelector("#quarantine caption").textContent`); got != "Quarantine 1 instance in quarantine, 1 released, 0 ended in quarantine" {
		t.Errorf("got %q", got)
	}
	for n, want := range [][]string{
		{id(9), "in quarantine", " UTC", "user/alice (by command)", "unknown login, ticket 4711 </script>", " UTC", "", "", "", ""},
		{id(15), "released", " UTC", "bob (by a finding)", "ticket 4712", " UTC", "", " UTC", "carol", "a false alarm"},
	} {
		for column, text := range want {
			if got := eval[string](t, p, cell("quarantine", n, column)); (text == "") != (got == "") || !strings.Contains(got, text) {
				t.Errorf("row %d, column %d: want %q, got %q", n, column, text, got)
			}
		}
	}
	removed := eval[string](t, p, `document.querySelector("#removed .frame").textContent`)
	if strings.Contains(removed, id(9)) || !strings.Contains(removed, "a quarantine") {
		t.Errorf("want the released one alone among the removed ones, with its cause, got %s", removed)
	}
	if got := eval[string](t, p, `document.getElementById("names").textContent`); !strings.Contains(got, "claim in quarantine") {
		t.Errorf("want its names held, got %s", got)
	}
	if got := eval[string](t, p, `document.getElementById("times").textContent`); !strings.Contains(got, "Time to cut-off, by quarantine2") {
		t.Errorf("want both cut-offs measured, got %s", got)
	}
}

// Print has every row, and no control.
func printed(t *testing.T, p *Page, wantRows int) []byte {
	t.Helper()
	eval[bool](t, p, `(() => { window.addEventListener("beforeprint", () => { window.inPrint = ["instances", "names", "removed"].map((s) => document.querySelectorAll("#" + s + " .frame tbody tr").length); }); return true; })()`)
	began := time.Now()
	pdf, err := p.Print()
	if err != nil || !bytes.HasPrefix(pdf, []byte("%PDF-")) {
		t.Fatalf("printing: %v", err)
	}
	t.Logf("printed %d kB, in %s", len(pdf)/1000, time.Since(began).Round(time.Millisecond))
	counts := eval[[]int](t, p, `window.inPrint`)
	if want := []int{wantRows, counts[1], wantRows}; !slices.Equal(counts, want) || counts[1] < 5*wantRows {
		t.Errorf("want every row in print, %v, got %v", want, counts)
	}
	return pdf
}

func TestPage_PrintsAllRowsWithoutControls(t *testing.T) {
	p, _ := opened(t, service{all: fleet(150), compared: drift()}, 0)
	if got := eval[int](t, p, rows("instances")); got != 50 {
		t.Errorf("want the first rows on the screen, got %d", got)
	}
	printed(t, p, 150)
	if got := eval[int](t, p, rows("instances")); got != 50 {
		t.Errorf("want the first rows on the screen again, got %d", got)
	}
	// A print of a search has its rows alone, and says so.
	eval[bool](t, p, `(() => { const s = document.getElementById("search"); s.value = "etcd active"; s.dispatchEvent(new Event("input")); return true; })()`)
	if _, err := p.Print(); err != nil {
		t.Fatal(err)
	}
	if got := eval[[]int](t, p, `window.inPrint`); got[0] == 0 || got[0] > 30 || got[2] != 1 {
		t.Errorf("want the rows found alone in print, got %v", got)
	}
	if got := eval[string](t, p, `document.getElementById("printed").textContent`); !strings.HasPrefix(got, "This print is a part of the report: ") || !strings.HasSuffix(got, "have the words: etcd active") {
		t.Errorf("want the print to say that it is a part, got %q", got)
	}
	if err := p.emulate("print", "dark"); err != nil {
		t.Fatal(err)
	}
	if got := eval[string](t, p, `[".bar", "nav", ".more", "#printed"].map((s) => getComputedStyle(document.querySelector(s)).display).join() + getComputedStyle(document.body).backgroundColor`); got != "none,none,none,blockrgb(255, 255, 255)" {
		t.Errorf("want no control, on white, got %s", got)
	}
}

// A fleet of 10,000 with as many tombstones stays quick and small.
func TestPage_HoldsTenThousandInstances(t *testing.T) {
	const live = 10_000
	s := service{all: fleet(live), compared: drift()}
	began := time.Now()
	p, file := opened(t, s, 0)
	t.Logf("written and opened in %s", time.Since(began).Round(time.Millisecond))
	info, err := os.Stat(file)
	if err != nil || info.Size() > 10_000_000 {
		t.Errorf("want less than 10 MB, got %d, %v", info.Size(), err)
	}
	t.Logf("the page has %.1f MB", float64(info.Size())/1e6)
	// The time of one key stroke is that of the page's handler, with the layout of what it drew. On two cores with a load
	// of 8, the slowest ones of three rounds took 69, 80 and 187 ms. The best round counts: the others show what else the machine does.
	took := eval[[]float64](t, p, `new Promise(async (done) => {
		await new Promise((r) => setTimeout(r, 1500));
		const s = document.getElementById("search"); const took = [];
		for (let round = 0; round < 3; round++) {
			let slowest = 0;
			for (const text of ["1", "10", "10.0", "10.0.3", "10.0.39", "e", "et", "etc", "etcd", "zzz", "web-1.alice", ""]) {
				s.value = text;
				const began = performance.now();
				s.dispatchEvent(new Event("change"));
				document.body.getBoundingClientRect();
				slowest = Math.max(slowest, performance.now() - began);
				await new Promise((r) => setTimeout(r, 20));
			}
			took.push(slowest);
		}
		done(took.sort((a, b) => a - b));
	})`)
	t.Logf("the slowest key stroke of a round took %.0f ms; the page uses %.0f MB", took, eval[float64](t, p, `performance.memory.usedJSHeapSize / 1e6`))
	if took[0] > 200 {
		t.Errorf("want each key stroke within 200 ms, got %.0f", took)
	}
	sorting := eval[float64](t, p, `(() => { const began = performance.now(); document.querySelector("#names thead button").click(); return performance.now() - began; })()`)
	t.Logf("sorting the names took %.0f ms", sorting)
	// Printing so many rows takes too long for a test; what it would print is there.
	all := eval[[]float64](t, p, `(() => {
		const began = performance.now();
		window.dispatchEvent(new Event("beforeprint"));
		const rows = ["instances", "names", "removed"].map((s) => document.querySelectorAll("#" + s + " .frame tbody tr").length);
		window.dispatchEvent(new Event("afterprint"));
		return [...rows, performance.now() - began];
	})()`)
	t.Logf("all rows were drawn in %.0f ms", all[3])
	if all[0] != live || all[2] != live || all[1] < 5*live {
		t.Errorf("want every row for print, got %v", all)
	}
}

// TestPage_Picture draws the picture of docs/report.md where PICTURE names its file.
func TestPage_Picture(t *testing.T) {
	p, _ := opened(t, service{all: fleet(400), compared: drift()}, 0)
	if err := p.View(1280, 1040, "light"); err != nil {
		t.Fatal(err)
	}
	png, err := p.Screenshot()
	if err != nil || len(png) > 200_000 {
		t.Fatalf("want a picture of less than 200 kB, got %d bytes, %v", len(png), err)
	}
	if file := os.Getenv("PICTURE"); file != "" {
		if err := os.WriteFile(file, png, 0o644); err != nil { //nolint:gosec // a picture of docs
			t.Fatal(err)
		}
	}
}

// TestPage_Screenshots writes what a person should look at, where SCREENSHOTS names a folder.
func TestPage_Screenshots(t *testing.T) {
	folder := os.Getenv("SCREENSHOTS")
	if folder == "" {
		folder = t.TempDir()
	}
	p, _ := opened(t, service{all: fleet(60), compared: drift()}, 0)
	for name, v := range map[string]struct {
		width, height int64
		scheme        string
	}{"light": {1400, 900, "light"}, "dark": {1400, 900, "dark"}, "narrow": {390, 844, "light"}} {
		if err := p.View(v.width, v.height, v.scheme); err != nil {
			t.Fatal(err)
		}
		if overflow := eval[int](t, p, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); overflow > 0 {
			t.Errorf("%s: the page is %d pixels wider than its window", name, overflow)
		}
		for part, at := range map[string]string{"": "body", "-instances": "#instances", "-names": "#names", "-refused": "#refused", "-drift": "#drift", "-times": "#times", "-removed": "#removed"} {
			eval[bool](t, p, `(() => { document.querySelector("`+at+`").scrollIntoView(); return true; })()`)
			png, err := p.Screenshot()
			if err != nil || !bytes.HasPrefix(png, []byte("\x89PNG")) {
				t.Fatalf("%s%s: %v", name, part, err)
			}
			if err := os.WriteFile(filepath.Join(folder, name+part+".png"), png, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(folder, "print.pdf"), printed(t, p, 60), 0o600); err != nil {
		t.Fatal(err)
	}
}
