package reconcile

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

const (
	maxValue = 160 // characters of a value in a diff
	maxLines = 12  // lines of a diff
)

// diff returns the lines of an object's differing fields: - before a value in Vault, + before the value it should have. A
// generic object can hold secrets, so its lines have only the names of the fields.
func diff(o grant.Object, fields []string, got map[string]any) string {
	var lines []string
	want := o.FieldsFor(got)
	for _, f := range fields {
		switch {
		case o.Kind == grant.KindGeneric:
			lines = append(lines, "~ "+f+" (values of generic objects are not shown)")
		case o.Kind == grant.KindPolicy && f == "policy":
			lines = append(lines, lineDiff(text(got[f]), text(want[f]))...)
		default:
			lines = append(lines, "- "+f+": "+value(got[f]), "+ "+f+": "+value(want[f]))
		}
	}
	if more := len(lines) - maxLines; more > 0 {
		lines = append(lines[:maxLines], fmt.Sprintf("… %d more lines", more))
	}
	return strings.Join(lines, "\n")
}

// diffOf returns the diff of one field of a row about a record.
func diffOf[W, G ~string](field string, want W, got G) string {
	return fmt.Sprintf("- %s: %s\n+ %s: %s", field, got, field, want)
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// value returns a value as JSON, shortened.
func value(v any) string {
	if v == nil {
		return "(none)"
	}
	out, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("(%T)", v)
	}
	return short(string(out))
}

func short(s string) string {
	if r := []rune(s); len(r) > maxValue {
		return string(r[:maxValue]) + "…"
	}
	return s
}

// lineDiff returns the lines that only one side has, in their order. Lines that only moved are not among them.
func lineDiff(got, want string) []string {
	lines := func(s string) []string {
		var out []string
		for l := range strings.Lines(s) {
			if l = strings.TrimRight(l, " \t\r\n"); l != "" {
				out = append(out, l)
			}
		}
		return out
	}
	g, w := lines(got), lines(want)
	var out []string
	for _, l := range g {
		if !slices.Contains(w, l) {
			out = append(out, "- "+short(l))
		}
	}
	for _, l := range w {
		if !slices.Contains(g, l) {
			out = append(out, "+ "+short(l))
		}
	}
	return out
}
