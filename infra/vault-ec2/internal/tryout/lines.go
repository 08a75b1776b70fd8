package tryout

import (
	"fmt"
	"io"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/text"
)

// mark is what a line of the report says about its expectation.
type mark string

const (
	met      mark = "ok"
	missed   mark = "NOT OK"
	notTried mark = "not tried"
)

// line is one expectation and what was seen.
type line struct {
	Part, Expected string
	Mark           mark
	Seen           string // or why it was not tried
	Took           time.Duration
}

// journal collects the lines of a run and prints each as it comes.
type journal struct {
	out   io.Writer
	now   func() time.Time
	part  string
	lines []line
}

// begin names the part that the next lines belong to.
func (j *journal) begin(part string) {
	j.part = part
	fmt.Fprintf(j.out, "\n%s  %s\n", j.now().UTC().Format("15:04:05"), part)
}

// doing prints what takes its time now.
func (j *journal) doing(format string, args ...any) {
	fmt.Fprintf(j.out, "          … %s\n", text.Printable(fmt.Sprintf(format, args...)))
}

func (j *journal) add(l line) {
	l.Part = j.part
	j.lines = append(j.lines, l)
	fmt.Fprintf(j.out, "%-9s %s", l.Mark, text.Printable(l.Expected))
	if l.Took > 0 {
		fmt.Fprintf(j.out, " (%s)", seconds(l.Took))
	}
	fmt.Fprintln(j.out)
	if l.Mark != met && l.Seen != "" {
		fmt.Fprintf(j.out, "          %s\n", text.Lines(l.Seen))
	}
}

// check adds a line for an expectation that err says is missed.
func (j *journal) check(expected string, since time.Time, err error) bool {
	l := line{Expected: expected, Mark: met, Took: j.now().Sub(since)}
	if err != nil {
		l.Mark, l.Seen = missed, err.Error()
	}
	j.add(l)
	return err == nil
}

// skip adds a line for an expectation that is not tried.
func (j *journal) skip(expected, why string) {
	j.add(line{Expected: expected, Mark: notTried, Seen: why})
}

// count returns the number of lines with a mark.
func (j *journal) count(m mark) int {
	n := 0
	for _, l := range j.lines {
		if l.Mark == m {
			n++
		}
	}
	return n
}

func seconds(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}
