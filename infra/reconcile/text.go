package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
)

// printable escapes what is not plain text. Values come from Vault and from EC2, where others write: a control
// character would move the terminal's cursor, a bidirectional one would turn a path around.
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

// clip cuts a line that would fill the terminal.
func clip(s string, most int) string {
	runes := []rune(s)
	if len(runes) <= most {
		return s
	}
	return string(runes[:most]) + "…"
}

// printJSON prints valid JSON with what is not plain text in its strings escaped by JSON's own means: the values stay.
func printJSON(out io.Writer, raw []byte) error {
	var b strings.Builder
	for _, r := range strings.TrimSpace(string(raw)) {
		if r < ' ' || unicode.IsPrint(r) { // below the space, valid JSON has line ends and tabs between its values only
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
