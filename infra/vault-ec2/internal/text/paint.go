package text

import (
	"bytes"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// The colours of a terminal. https://ecma-international.org/publications-and-standards/standards/ecma-48/
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	plain  = "\x1b[0m"
)

// Painted returns a writer that colours lines by their beginning, if out is a terminal and the environment has no NO_COLOR
// (https://no-color.org); otherwise out itself. An unfinished line is written as it is when it comes.
func Painted(out io.Writer) io.Writer {
	file, isFile := out.(*os.File)
	if !isFile || !term.IsTerminal(int(file.Fd())) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return out
	}
	return painter{out}
}

type painter struct{ to io.Writer }

// Write writes whole lines, as this command does.
func (p painter) Write(lines []byte) (int, error) {
	var b bytes.Buffer
	for line := range strings.Lines(string(lines)) {
		b.WriteString(paint(line))
	}
	if _, err := p.to.Write(b.Bytes()); err != nil {
		return 0, err
	}
	return len(lines), nil
}

// paint returns a line with the colour of its beginning. Values of others are never at a line's beginning.
func paint(line string) string {
	for _, p := range []struct{ begin, colour string }{
		{"ok     ", green}, {"NOT OK ", red}, {"BLOCKED: ", red}, {"not compared: ", red},
		{"        remedy: ", yellow}, {"    error: ", red}, {"    + ", green}, {"    - ", red},
		{"no drift", green}, {"drift: ", yellow}, {"next: ", yellow}, {"not read: ", red},
	} {
		if strings.HasPrefix(line, p.begin) {
			text, end := strings.CutSuffix(line, "\n")
			line = p.colour + text + plain
			if end {
				line += "\n"
			}
			return line
		}
	}
	return line
}
