package ledger

import "time"

// QuarantineSource is where the order of a quarantine came from.
type QuarantineSource string

// The sources.
const (
	ByCommand QuarantineSource = "command" // a person's order by vault-ec2
	ByFinding QuarantineSource = "finding" // a finding of GuardDuty
)

// Quarantine is the mark of an instance that was cut off while it ran. It is kept after its end: it shows who cut the instance off.
type Quarantine struct {
	Since  time.Time        `dynamodbav:"since"`
	By     string           `dynamodbav:"by"` // as the order says
	Reason string           `dynamodbav:"reason"`
	Source QuarantineSource `dynamodbav:"source"`
	// EndedAt is when the instance was found to have ended, or when the deployment was torn down; nil before. The mark counts after
	// that too, until the tombstone expires: EC2's answer may have been wrong.
	EndedAt *time.Time `dynamodbav:"ended_at,omitempty"`
	// ReleasedAt is when the quarantine was released; nil before. Only a release ends the mark.
	ReleasedAt *time.Time `dynamodbav:"released_at,omitempty"`
	ReleasedBy string     `dynamodbav:"released_by,omitempty"`
	// ReleaseReason is empty if the release has none.
	ReleaseReason string `dynamodbav:"release_reason,omitempty"`
}

// InQuarantine reports whether the instance gets no grant because it is in quarantine. It is false for a nil record.
func (r *Record) InQuarantine() bool {
	return r != nil && r.Quarantine != nil && r.Quarantine.ReleasedAt == nil
}

// LivesInQuarantine reports whether the instance is in quarantine, and has not been found to have ended. Its record does not expire,
// and its names are held. It is false for a nil record.
func (r *Record) LivesInQuarantine() bool { return r.InQuarantine() && r.Quarantine.EndedAt == nil }

// SetQuarantineEnd sets when an instance in quarantine ended; nil for one that lives. It does nothing for any other instance. An end
// that was set before stays.
func (r *Record) SetQuarantineEnd(at *time.Time) {
	if !r.InQuarantine() || (at != nil && r.Quarantine.EndedAt != nil) {
		return
	}
	q := *r.Quarantine
	q.EndedAt = at
	r.Quarantine = &q
}

func codeQuarantine(q *Quarantine, c *coder) {
	c.time(&q.Since)
	c.raw(&q.By)
	c.raw(&q.Reason)
	shared(c, &q.Source)
	c.optionalTime(&q.EndedAt)
	c.optionalTime(&q.ReleasedAt)
	c.raw(&q.ReleasedBy)
	c.raw(&q.ReleaseReason)
}
