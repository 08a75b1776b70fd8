// Package pages holds the pages of the repository against its code.
package pages

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	testName = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z0-9_]\w*`)
	testFile = regexp.MustCompile(`\b\w+_test\.go\b`)
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w*)\(`)
	codeFile = regexp.MustCompile(`(?:^|[^\w/.-]|\.\./)((?:internal|infra|functions|templates)(?:/[\w.-]+)+\.\w+)\b`) // not below another folder
	quoted   = regexp.MustCompile(`"([A-Za-z][^"$\n]* [^"$\n]*)"`)                                                    // of two words or more
)

// files returns the repository's files that end in one of the suffixes, by path. Hidden folders hold caches and tools.
func files(t *testing.T, suffixes ...string) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if path != "." && strings.HasPrefix(entry.Name(), ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !slices.ContainsFunc(suffixes, func(s string) bool { return strings.HasSuffix(path, s) }) {
			return nil
		}
		found[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A promise is worth something only while the test that shows it exists.
func TestPages_NameOnlyTestsThatExist(t *testing.T) {
	exists := map[string]bool{}
	for path, text := range files(t, "_test.go") {
		exists[filepath.Base(path)] = true
		for _, f := range testFunc.FindAllSubmatch(text, -1) {
			exists[string(f[1])] = true
		}
	}
	named := map[string]int{}
	for path, text := range files(t, ".md") {
		for i, line := range strings.Split(string(text), "\n") {
			names := testName.FindAllString(line, -1)
			named[path] += len(names)
			for _, name := range append(names, testFile.FindAllString(line, -1)...) {
				if !exists[name] {
					t.Errorf("%s:%d names %s, which no *_test.go file of the repository has", path, i+1, name)
				}
			}
		}
	}
	for _, page := range []string{"SECURITY.md", "RELIABILITY.md"} {
		if named[page] == 0 {
			t.Errorf("%s names no test: its promises lost their proof, or this test reads it wrongly", page)
		}
	}
}

// A page that leads to a file that was renamed costs its reader more than no page.
func TestPages_NameOnlyFilesThatExist(t *testing.T) {
	named := map[string]int{}
	for path, text := range files(t, ".md") {
		for i, line := range strings.Split(string(text), "\n") {
			for _, found := range codeFile.FindAllStringSubmatch(line, -1) {
				file := found[1]
				named[path]++
				if _, err := os.Stat(file); err != nil {
					t.Errorf("%s:%d names %s: %v", path, i+1, file, err)
				}
			}
		}
	}
	if page := filepath.Join("docs", "architecture.md"); named[page] == 0 {
		t.Errorf("%s names no file: this test reads it wrongly", page)
	}
}

// An operator searches the log for the texts that the runbook quotes, so a reworded message must change the runbook as well.
func TestRunbook_QuotesTextsOfTheCode(t *testing.T) {
	const path = "infra/RUNBOOK.md"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var code []byte
	for file, text := range files(t, ".go") {
		if !strings.HasSuffix(file, "_test.go") && !strings.HasPrefix(file, filepath.Join("infra", "lab")) {
			code = append(code, text...)
		}
	}
	quotes := quoted.FindAllSubmatchIndex(page, -1)
	if len(quotes) == 0 {
		t.Fatalf("%s quotes no text: this test reads it wrongly", path)
	}
	for _, q := range quotes {
		text := page[q[2]:q[3]]
		ofLambda := string(text) == "Task timed out"
		if !ofLambda && !bytes.Contains(code, text) {
			t.Errorf("%s:%d quotes %q, which the code does not write", path, 1+bytes.Count(page[:q[2]], []byte("\n")), text)
		}
	}
}

var (
	fenced  = regexp.MustCompile("(?s)```.*?```")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug  = regexp.MustCompile(`[^\p{L}\p{N}_\- ]`)
)

// anchors returns the anchors of a page's headings, as GitHub makes them.
func anchors(page []byte) []string {
	var out []string
	for _, h := range heading.FindAllSubmatch(fenced.ReplaceAll(page, nil), -1) {
		out = append(out, strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(string(h[1]))), ""), " ", "-"))
	}
	return out
}

// A person in trouble follows links from page to page.
func TestPages_LinkToPlacesThatExist(t *testing.T) {
	pages := files(t, ".md")
	followed := 0
	for path, text := range pages {
		for _, l := range link.FindAllSubmatch(fenced.ReplaceAll(text, nil), -1) {
			target := string(l[1])
			if strings.Contains(target, "://") {
				continue
			}
			followed++
			file, anchor, _ := strings.Cut(target, "#")
			if file = filepath.Join(filepath.Dir(path), file); strings.HasPrefix(target, "#") {
				file = path
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s links to %s: %v", path, target, err)
				continue
			}
			if anchor != "" && strings.HasSuffix(file, ".md") && !slices.Contains(anchors(pages[file]), anchor) {
				t.Errorf("%s links to %s, and %s has no such heading", path, target, file)
			}
		}
	}
	if followed < 100 {
		t.Errorf("followed only %d links: this test reads the pages wrongly", followed)
	}
}

var status = regexp.MustCompile(`(?m)^# (.+)\n\nStatus: (\w+) · Date: (\d{4}-\d\d-\d\d)`)

// A decision that the table lacks is taken again.
func TestDecisions_AreAllInTheTable(t *testing.T) {
	folder := filepath.Join("docs", "decisions")
	pages := files(t, ".md")
	for path, text := range pages {
		if filepath.Dir(path) != folder || filepath.Base(path) == "README.md" {
			continue
		}
		head := status.FindSubmatch(text)
		if head == nil {
			t.Errorf("%s: want a title, its status and its date", path)
			continue
		}
		if row := fmt.Sprintf("| [%s](%s) | %s | %s |\n", head[1], filepath.Base(path), head[3], head[2]); !bytes.Contains(pages[filepath.Join(folder, "README.md")], []byte(row)) {
			t.Errorf("%s is not in the table of decisions: want the row %s", path, row)
		}
	}
}
