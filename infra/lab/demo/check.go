// Package demo shows an instance's life in the terminal, on the real parts of the lab, and checks every statement.
package demo

import (
	"fmt"
	"io"
	"strings"
)

// story prints the events and counts the expectations.
type story struct {
	out      io.Writer
	colour   bool
	chapters int
	checks   int
	failed   []string
}

const (
	bold  = "1"
	green = "32"
	red   = "31"
	dim   = "2"
)

func (s *story) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *story) chapter(title string) {
	s.chapters++
	fmt.Fprintf(s.out, "\n%s\n", s.paint(bold, fmt.Sprintf("%d. %s", s.chapters, title)))
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(s.out, "   "+format+"\n", args...) }

// show prints a literal text, indented.
func (s *story) show(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		fmt.Fprint(s.out, "     ", s.paint(dim, "| "+strings.TrimRight(line, "\n")), "\n")
	}
}

// expect checks one expectation and prints it with the observation.
func (s *story) expect(ok bool, expected, seen string) {
	s.checks++
	if ok {
		fmt.Fprintf(s.out, "   %s %s%s\n", s.paint(green, "✓"), expected, s.paint(dim, suffix(seen)))
		return
	}
	s.failed = append(s.failed, fmt.Sprintf("expected: %s; seen: %s", expected, seen))
	fmt.Fprintf(s.out, "   %s expected: %s\n     seen:     %s\n", s.paint(red, "✗"), expected, seen)
}

// refused expects an error with a reason.
func (s *story) refused(err error, expected, because string) {
	switch {
	case err == nil:
		s.expect(false, expected, "it was allowed")
	case !strings.Contains(err.Error(), because):
		s.expect(false, expected+" because of "+because, lastLine(err))
	default:
		s.expect(true, expected, lastLine(err))
	}
}

func suffix(seen string) string {
	if seen == "" {
		return ""
	}
	return "  (" + seen + ")"
}

// lastLine returns the last line of an error: the reason in Vault's errors of several lines.
func lastLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return strings.Trim(lines[len(lines)-1], "\t *")
}

// result returns an error if any expectation failed.
func (s *story) result() error {
	if len(s.failed) > 0 {
		return fmt.Errorf("%d of %d expectations failed:\n  %s", len(s.failed), s.checks, strings.Join(s.failed, "\n  "))
	}
	return nil
}
