package text

import "testing"

func TestLines_LetNoTextForgeALine(t *testing.T) {
	for given, want := range map[string]string{
		"one":                          "one",
		"one\ntwo\n":                   "one\n  two",
		"one\r\x1b[2Jtwo":              `one\r\x1b[2Jtwo`,
		"errors:\n\t* status 403\nend": "errors:\n    * status 403\n  end",
	} {
		if got := Lines(given); got != want {
			t.Errorf("%q: want %q, got %q", given, want, got)
		}
	}
}
