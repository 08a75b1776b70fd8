package main

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// maxRows is how many drift rows one invocation answers at most, and how many are shown.
const maxRows = 200

// input is what the function takes. The cursor goes back as it came: it is the function's own affair, and the one that
// is deployed may be of another version than this command.
type input struct {
	reconcile.Input
	Cursor json.RawMessage `json:"cursor,omitempty"`
}

// answer is what it says of the fleet.
type answer struct {
	reconcile.Answer
	Cursor json.RawMessage `json:"cursor,omitempty"`
}

// goesOn tells whether the run is not over.
func (a answer) goesOn() bool { return len(a.Cursor) > 0 && !bytes.Equal(a.Cursor, []byte("null")) }

// then joins the answer of the next invocation of a run: counts and time are of the whole run so far, rows are its own.
func (a answer) then(next answer) answer {
	rows := slices.Concat(a.Drift, next.Drift)
	if next.goesOn() {
		// Truncated says that the run goes on; that there were too many rows besides is seen by their number.
		next.Truncated = len(next.Drift) >= maxRows
	} else {
		next.Cursor = nil
	}
	next.Truncated = next.Truncated || a.Truncated || len(rows) > maxRows
	next.Drift = rows[:min(len(rows), maxRows)]
	next.Unsettled += a.Unsettled
	if a.Blocked && !next.Blocked {
		next.Blocked, next.BlockedReason = true, a.BlockedReason
	}
	return next
}

// status is the command's exit status for the answer.
func (a answer) status() int {
	s := a.Summary
	left := s.Missing + s.Changed + s.Orphaned + s.Conflicting
	if a.Mode == reconcile.Correct {
		left -= s.Corrected + s.Enqueued // what was left alone, a conflict above all, is somebody's to look at
	}
	if a.Blocked || s.Failed > 0 || left > 0 {
		return undone
	}
	return done
}
