package text

import (
	"bytes"
	"testing"
)

func TestPainted_OnlyOnATerminal(t *testing.T) {
	var file bytes.Buffer
	if got := Painted(&file); got != &file {
		t.Errorf("want what is no terminal as it is, since colours in a file or a pipe are noise, got %T", got)
	}
}

func TestPainter_ColoursLinesByTheirBeginning(t *testing.T) {
	const lines = "i-1  policy  changed\n    - a\n    + b\nok      table  x\nNOT OK  vault  y\n        remedy: z\nno end: ok     "
	const want = "i-1  policy  changed\n\x1b[31m    - a\x1b[0m\n\x1b[32m    + b\x1b[0m\n\x1b[32mok      table  x\x1b[0m\n\x1b[31mNOT OK  vault  y\x1b[0m\n" +
		"\x1b[33m        remedy: z\x1b[0m\nno end: ok     "
	var out bytes.Buffer
	n, err := painter{&out}.Write([]byte(lines))
	if err != nil || n != len(lines) {
		t.Errorf("want %d bytes taken, got %d, %v", len(lines), n, err)
	}
	if out.String() != want {
		t.Errorf("want\n%q, got\n%q", want, out.String())
	}
}
