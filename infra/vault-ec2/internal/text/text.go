// Package text makes texts of others safe for a terminal. Values come from Vault and EC2, where others write: a control character
// could move the terminal's cursor, a bidirectional one could reverse a path.
package text

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
)

// Printable escapes every character of s that is not plain text, line feeds included.
func Printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// Lines is Printable for a text of several lines. Each line after the first is indented, so that none looks like a text of its own.
func Lines(s string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
		lines = append(lines, Printable(strings.ReplaceAll(line, "\t", "  ")))
	}
	return strings.Join(lines, "\n  ")
}

// Clip cuts s after most characters.
func Clip(s string, most int) string {
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most]) + "…"
}

// PrintJSON prints valid JSON and escapes characters that are not plain text as \uXXXX, so that its values stay the same.
func PrintJSON(out io.Writer, raw []byte) error {
	var b strings.Builder
	for _, r := range strings.TrimSpace(string(raw)) {
		if r < ' ' || unicode.IsPrint(r) { // valid JSON has control characters only between its values, as white space
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	_, err := fmt.Fprintln(out, b.String())
	return err
}
