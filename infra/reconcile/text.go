package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
)

// printable escapes every character of s that is not plain text. Values come from Vault and EC2, where others write: a
// control character could move the terminal's cursor, a bidirectional one could reverse a path.
func printable(s string) string {
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

// clip cuts s after most characters.
func clip(s string, most int) string {
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most]) + "…"
}

// printJSON prints valid JSON and escapes characters that are not plain text as \uXXXX, so that its values stay the same.
func printJSON(out io.Writer, raw []byte) error {
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
