package doctor

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"
)

// maxLine is the length to which a line is cut: some of AWS's errors fill a page.
const maxLine = 600

// step is one check, before and after it is made.
type step struct {
	name string
	// needs are the steps that must be OK before this one can be made. They must not need each other in a circle.
	needs []*step
	check func(context.Context) finding

	done  chan struct{} // closed when found is set
	found finding
}

// finding is the result of a check.
type finding struct {
	ok             bool
	detail, remedy string
	// blockedBy is the failed check that prevented this one; empty if this one was made.
	blockedBy string
}

func good(format string, args ...any) finding {
	return finding{ok: true, detail: fmt.Sprintf(format, args...)}
}

func bad(remedy, format string, args ...any) finding {
	return finding{detail: fmt.Sprintf(format, args...), remedy: remedy}
}

// run makes the check once its needs are OK and room is free, in at most timeout.
func (s *step) run(ctx context.Context, room chan struct{}, timeout time.Duration) (found finding) {
	for _, n := range s.needs {
		<-n.done
		if !n.found.ok {
			blockedBy := cmp.Or(n.found.blockedBy, n.name)
			return finding{
				detail:    fmt.Sprintf("not checked, because %q is not OK", blockedBy),
				remedy:    fmt.Sprintf("correct %q first", blockedBy),
				blockedBy: blockedBy,
			}
		}
	}
	select {
	case room <- struct{}{}:
		defer func() { <-room }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil { // even with room: select picks at random among ready cases
		return bad("run the doctor again with more time", "not checked: %v", ctx.Err())
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			what := fmt.Sprintf("%T", p) // not its value, which may hold anything
			if fault, ok := p.(runtime.Error); ok {
				what = fault.Error()
			}
			found = bad("report this as a bug of this program", "the check itself failed: %s", what)
		}
	}()
	return s.check(ctx)
}

// line returns a text in one line of at most maxLine characters.
func line(text string) string {
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > maxLine {
		return string(runes[:maxLine-1]) + "…"
	}
	return string(runes)
}

// abbreviate joins the first texts of a list and counts the others.
func abbreviate(list []string) string {
	const most = 8
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
}
