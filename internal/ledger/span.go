package ledger

import "time"

// Cause is the cause of a grant or a removal, as far as its time can be measured.
type Cause string

// The causes. Empty is a repair, which has no event to measure from.
const (
	ByEvent Cause = "event" // an event of EC2
	ByHook  Cause = "hook"  // a lifecycle hook, which holds the instance back meanwhile
	// ByQuarantine is the cause of a cut-off alone. Its time is from the mark.
	ByQuarantine Cause = "quarantine"
)

// Span is the time from an event to its result: to the active auth role of a first grant, or to the cut of the last token.
type Span struct {
	// By is the cause. A span without one has no From: the result came by a repair.
	By Cause `dynamodbav:"by,omitempty"`
	// From is the time of the event at which the first run began; nil for a repair.
	From *time.Time `dynamodbav:"from,omitempty"`
	// To is when the result was there; nil until then.
	To *time.Time `dynamodbav:"to,omitempty"`
}

// NewSpan returns a span that begins with an event.
func NewSpan(by Cause, at time.Time) *Span {
	s := &Span{By: by}
	if by != "" {
		from := at.Round(0).UTC()
		s.From = &from
	}
	return s
}

// Ended returns the span with its end; the span itself if it has ended. It is nil for a nil span, the one of an earlier version's
// record: its beginning is not known.
func (s *Span) Ended(at time.Time) *Span {
	if s == nil || s.To != nil {
		return s
	}
	at = at.Round(0).UTC()
	return &Span{By: s.By, From: s.From, To: &at}
}
