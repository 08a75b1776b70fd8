package doctor

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"
)

// longest is how much of a line is answered: some of AWS's errors fill a page.
const longest = 600

// step is a check that is to be made.
type step struct {
	name string
	// needs are steps without which this one could tell nothing; none of them needs this one.
	needs []*step
	look  func(context.Context) finding

	done  chan struct{} // closed when found is set
	found finding
}

// finding is what a look gave.
type finding struct {
	ok             bool
	detail, remedy string
	// because is the check further up that stopped this one from being made; empty for one that was made.
	because string
}

func good(format string, args ...any) finding {
	return finding{ok: true, detail: fmt.Sprintf(format, args...)}
}

func bad(remedy, format string, args ...any) finding {
	return finding{detail: fmt.Sprintf(format, args...), remedy: remedy}
}

func (s *step) run(ctx context.Context, room chan struct{}, timeout time.Duration) (found finding) {
	for _, n := range s.needs {
		<-n.done
		if !n.found.ok {
			because := cmp.Or(n.found.because, n.name)
			return finding{
				detail:  fmt.Sprintf("not looked at, because %q is not in order", because),
				remedy:  fmt.Sprintf("mend %q first", because),
				because: because,
			}
		}
	}
	select {
	case room <- struct{}{}:
		defer func() { <-room }()
	case <-ctx.Done():
	}
	if ctx.Err() != nil { // with room too: of two that are ready, select takes either
		return bad("run the doctor again with more time", "not looked at: %v", ctx.Err())
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			what := fmt.Sprintf("%T", p) // not its value, which may be of any kind
			if fault, ok := p.(runtime.Error); ok {
				what = fault.Error()
			}
			found = bad("report this as a fault of the program", "the check itself failed: %s", what)
		}
	}()
	return s.look(ctx)
}

// line is a text in one line of bounded length.
func line(text string) string {
	runes := []rune(strings.Join(strings.Fields(text), " "))
	if len(runes) > longest {
		return string(runes[:longest-1]) + "…"
	}
	return string(runes)
}

// few joins the first of many.
func few(list []string) string {
	const most = 8
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
}
