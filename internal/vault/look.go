package vault

import (
	"context"
	"time"
)

// A server that answers reads itself may be behind the one that writes: a performance standby of Vault Enterprise, a standby of
// OpenBao from 2.5. Then a read misses a write of a moment ago, and an object that is as it should be looks missing, changed or
// another's. docs/decisions/lagging-reads.md has the rules.

// MaxLag is how long after a write a read may be answered from before it, with a wide margin: a standby is behind by
// milliseconds. It is well below the visibility timeout of the queues: a message that comes back judges without this doubt.
const MaxLag = 30 * time.Second

const (
	looks = 3
	// lookPause makes three looks take about a second: more than a standby's lag, and little against the 45 s of a run.
	lookPause = 400 * time.Millisecond
)

// Looks repeats a read that may have been answered from before a write. It is the only place that does so.
type Looks struct {
	// Pause is the time between two looks; 0: 400 ms.
	Pause time.Duration
}

// Until calls look until it returns true, at most three times, with a pause between two calls. It reports whether look
// returned true. It ends early with ctx.
func (l Looks) Until(ctx context.Context, look func() (agrees bool)) bool {
	pause := l.Pause
	if pause == 0 {
		pause = lookPause
	}
	for n := 1; ; n++ {
		if look() {
			return true
		}
		if n == looks {
			return false
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}
