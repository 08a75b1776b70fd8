package converge

import (
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// LateTime is how long a running instance may lack what its grant needs: a tag by which a profile fits, a tag that a template
// uses, or a value that AWS does not show. Tags are often set by a program that reacts to the launch.
const LateTime = 5 * time.Minute

// MayComeLate reports whether a value that an instance lacks may still come. A pending instance is not complete. A running one
// has LateTime from its start, or from a later event that asks for its grant: its launch hook may begin long after the start of
// an instance of a warm pool. asked is zero without such an event.
func MayComeLate(f facts.Instance, asked, now time.Time) bool {
	since := f.LaunchTime
	if asked.After(since) {
		since = asked
	}
	return f.State == facts.Pending || now.Sub(since) < LateTime
}

// asked returns the time of an event that asks for the instance's grant; zero for another request. A change of a tag does not: it
// is no reason to wait for a tag that was removed.
func (r Request) asked() time.Time {
	if r.Told == facts.Running {
		return r.At
	}
	return time.Time{}
}

// overdueError returns the refusal of a grant for want of a value that did not come. Its text is the same at each try.
func overdueError(missing error) error {
	return fault.New(fault.Refuse, fmt.Errorf("%w (it was waited for, until %s after the start)", missing, LateTime))
}
