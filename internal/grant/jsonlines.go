package grant

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// fieldLine returns the line of a top-level field in the text of a JSON object, counted from 1. It is the last one of a field that
// the text has twice, and 1 for a field that it does not have.
func fieldLine(text, field string) int {
	line := 1
	eachField(text, func(name string, offset int64) {
		if name == field {
			line = lineAt(text, offset)
		}
	})
	return line
}

// checkDoubled returns a fault for each top-level field that a JSON object has twice: the last one counts, and the other would have
// no effect.
func checkDoubled(text string) []error {
	var faults []error
	seen := map[string]bool{}
	eachField(text, func(name string, offset int64) {
		if seen[name] {
			faults = append(faults, atLine(lineAt(text, offset), breaksRule("the field %q appears twice: only the last one would count", name)))
		}
		seen[name] = true
	})
	return faults
}

// eachField calls do with each top-level field of a JSON object, and the offset behind its name. It ends early where the text is
// no JSON.
func eachField(text string, do func(name string, offset int64)) {
	d := json.NewDecoder(strings.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return
		}
		if name, ok := name.(string); ok {
			do(name, d.InputOffset())
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return
		}
	}
}

// lineAt returns the line of an offset in a text, counted from 1.
func lineAt(text string, offset int64) int {
	return 1 + strings.Count(text[:min(int64(len(text)), offset)], "\n")
}

// atSyntaxError returns an error of decoding a JSON text with the line at which it stopped.
func atSyntaxError(text string, err error) error {
	at := int64(len(strings.TrimSpace(text))) // of a text that ends early
	if syntax := (*json.SyntaxError)(nil); errors.As(err, &syntax) {
		at = syntax.Offset
	}
	if kind := (*json.UnmarshalTypeError)(nil); errors.As(err, &kind) {
		at = kind.Offset
	}
	return atLine(lineAt(text, at), fmt.Errorf("not a JSON object: %w", err))
}
