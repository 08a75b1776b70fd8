package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Load reads results that Save wrote.
func Load(file string) (r Results, err error) {
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil {
		return r, fmt.Errorf("reading the results of the benchmarks: %w", err)
	}
	return r, nil
}

// Save writes results as JSON.
func (r Results) Save(file string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err == nil {
		err = os.WriteFile(file, append(text, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("writing the results of the benchmarks: %w", err)
	}
	return nil
}

// The marks around the part of a page that a run of the benchmarks writes.
const (
	beginMark = "<!-- make bench writes from here -->"
	endMark   = "<!-- to here -->"
)

// Replace replaces the text between the marks of a page. It fails if the page does not have each mark once.
func Replace(page string, text []byte) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return fmt.Errorf("writing the results into a page: %w", err)
	}
	before, rest, begun := bytes.Cut(old, []byte(beginMark))
	_, after, ended := bytes.Cut(rest, []byte(endMark))
	if !begun || !ended || bytes.Contains(after, []byte(beginMark)) {
		return fmt.Errorf("writing the results into %s: it needs the lines %s and %s once", page, beginMark, endMark)
	}
	parts := [][]byte{before, []byte(beginMark + "\n\n"), bytes.TrimSpace(text), []byte("\n\n" + endMark), after}
	if err := os.WriteFile(page, bytes.Join(parts, nil), 0o644); err != nil {
		return fmt.Errorf("writing the results into a page: %w", err)
	}
	return nil
}
