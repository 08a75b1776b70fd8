package matrix

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// result is what the integration tests reported on one server.
type result struct {
	server string // "Vault 1.21.4"
	log    string // file of the tests' whole output

	classes map[string]count // attempts by class
	uses    int              // that must work
	worked  int              // of uses
	tests   int              // tests and subtests without subtests
	failed  []string         // their names
}

// count counts attempts.
type count struct{ attempts, refused, harmless int }

// isUse selects the tests of what an instance may do. The other tests are about what it may not, or about the functions.
var isUse = regexp.MustCompile(`^Test(Agent|Certificate|Profile)_`)

// row is a line of the table that a test prints: class, attempts, refused, harmless.
var row = regexp.MustCompile(`\| ([^|]+) \| (\d+) \| (\d+) \| (\d+) \|`)

// read reads the output of go test -json. https://pkg.go.dev/cmd/test2json
func (r *result) read(from io.Reader) error {
	r.classes = map[string]count{}
	outcome := map[string]string{} // by test
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		var event struct{ Action, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &event) != nil {
			continue // what go itself prints is no JSON
		}
		switch event.Action {
		case "pass", "fail", "skip":
			outcome[event.Test] = event.Action
		case "output":
			r.addRow(event.Output)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("reading the tests' output: %w", err)
	}
	delete(outcome, "") // the package
	r.sum(outcome)
	return nil
}

// sum counts the outcomes of tests by name. A test with subtests counts only if it failed by itself.
func (r *result) sum(outcome map[string]string) {
	parents, explained := map[string]bool{}, map[string]bool{}
	for test, what := range outcome {
		for n := strings.LastIndex(test, "/"); n >= 0; n = strings.LastIndex(test[:n], "/") {
			parents[test[:n]] = true
			explained[test[:n]] = explained[test[:n]] || what == "fail"
		}
	}
	for test, what := range outcome {
		if parents[test] && (what != "fail" || explained[test]) {
			continue
		}
		r.tests++
		if what != "pass" {
			r.failed = append(r.failed, test)
		}
		if isUse.MatchString(test) {
			r.uses++
			if what == "pass" {
				r.worked++
			}
		}
	}
	slices.Sort(r.failed)
}

// addRow adds a line of a test's table. Several tests count attempts of one class.
func (r *result) addRow(line string) {
	found := row.FindStringSubmatch(line)
	if found == nil || found[1] == "all" {
		return
	}
	n := r.classes[found[1]]
	for i, to := range []*int{&n.attempts, &n.refused, &n.harmless} {
		value, err := strconv.Atoi(found[i+2])
		if err != nil {
			return // more digits than an int has
		}
		*to += value
	}
	r.classes[found[1]] = n
}
