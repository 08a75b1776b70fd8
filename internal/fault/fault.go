// Package fault names the three ways an outside call or a rule can fail, so that each dependency decides once
// and everything above it only asks for the kind.
package fault

import (
	"errors"
	"fmt"
)

// Kind says what becomes of the work that failed.
type Kind int

const (
	// Retry returns the work to its queue: throttling, outages, a lost lease, anything unknown.
	Retry Kind = iota
	// Refuse is final for this input: it is recorded, counted and acknowledged.
	Refuse
	// Conflict is an object or a name that somebody else owns: recorded, counted and acknowledged.
	Conflict
)

// String is the kind as it stands in logs and metrics.
func (k Kind) String() string {
	switch k {
	case Refuse:
		return "refuse"
	case Conflict:
		return "conflict"
	default:
		return "retry"
	}
}

type kinded struct {
	kind Kind
	err  error
}

func (e *kinded) Error() string { return e.err.Error() }
func (e *kinded) Unwrap() error { return e.err }

// New marks err with a kind. A nil err stays nil.
func New(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kinded{kind: kind, err: err}
}

// Refusef makes an error of kind Refuse; the format is that of fmt.Errorf.
func Refusef(format string, args ...any) error { return New(Refuse, fmt.Errorf(format, args...)) }

// Conflictf makes an error of kind Conflict; the format is that of fmt.Errorf.
func Conflictf(format string, args ...any) error { return New(Conflict, fmt.Errorf(format, args...)) }

// Retryf makes an error of kind Retry; the format is that of fmt.Errorf.
func Retryf(format string, args ...any) error { return New(Retry, fmt.Errorf(format, args...)) }

// KindOf is the kind of err. What nobody marked is Retry, since the unknown must not be acknowledged. Of joined
// errors Retry wins over Conflict, and Conflict over Refuse: one part that may yet succeed keeps the whole alive.
func KindOf(err error) Kind {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		kind := Refuse
		for _, e := range joined.Unwrap() {
			switch KindOf(e) {
			case Retry:
				return Retry
			case Conflict:
				kind = Conflict
			case Refuse:
			}
		}
		return kind
	}
	if k, ok := err.(*kinded); ok { //nolint:errorlint // the outermost mark wins
		return k.kind
	}
	if inner := errors.Unwrap(err); inner != nil {
		return KindOf(inner)
	}
	return Retry
}
