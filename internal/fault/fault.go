// Package fault defines the three kinds of failure of an outside call or a rule: retry, refuse and conflict. Each package that
// makes calls decides the kind of its errors once; all callers above it only ask for the kind.
package fault

import (
	"errors"
	"fmt"
)

// Kind says how to handle the work that failed.
type Kind int

const (
	// Retry returns the work to its queue: throttling, outages, a lost lease, anything unknown.
	Retry Kind = iota
	// Refuse is final for this input. The input is recorded, counted and acknowledged.
	Refuse
	// Conflict is an object or a name that belongs to another owner. The input is recorded, counted and acknowledged.
	Conflict
)

// String returns the kind as logs and metrics name it.
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

// New returns err marked with a kind, or nil if err is nil.
func New(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kinded{kind: kind, err: err}
}

// Refusef returns an error of kind Refuse with a text formatted as by fmt.Errorf.
func Refusef(format string, args ...any) error { return New(Refuse, fmt.Errorf(format, args...)) }

// Conflictf returns an error of kind Conflict with a text formatted as by fmt.Errorf.
func Conflictf(format string, args ...any) error { return New(Conflict, fmt.Errorf(format, args...)) }

// Retryf returns an error of kind Retry with a text formatted as by fmt.Errorf.
func Retryf(format string, args ...any) error { return New(Retry, fmt.Errorf(format, args...)) }

// KindOf returns the kind of err: that of its outermost mark, or Retry if it has none, since an unknown failure must not be
// acknowledged. Among joined errors, Retry wins over Conflict and Conflict over Refuse: one part that may still succeed keeps
// the whole alive.
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
