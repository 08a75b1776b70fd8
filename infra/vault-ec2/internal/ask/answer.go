package ask

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// maxRows is the most drift rows that one invocation answers, and the most that are printed.
const maxRows = 200

// input is the function's input. The cursor is returned to the function unread, since the deployed function may be of
// another version than this command.
type input struct {
	reconcile.Input
	Cursor json.RawMessage `json:"cursor,omitempty"`
}

// answer is the function's answer about the fleet. The cursor is unread for the same reason as input's.
type answer struct {
	reconcile.Answer
	Cursor json.RawMessage `json:"cursor,omitempty"`
}

// isPartial reports whether an answer with this cursor needs another invocation.
func isPartial(cursor json.RawMessage) bool {
	return len(cursor) > 0 && !bytes.Equal(cursor, []byte("null"))
}

// join adds the answer of the next invocation to the answer of the run so far. The counts and the time of next are those of
// the whole run; its rows are its own.
func (a answer) join(next answer) answer {
	rows := slices.Concat(a.Drift, next.Drift)
	if isPartial(next.Cursor) {
		// Truncated is also set because the run is not over. Only the number of rows shows whether rows were dropped.
		next.Truncated = len(next.Drift) >= maxRows
	} else {
		next.Cursor = nil
	}
	next.Truncated = next.Truncated || a.Truncated || len(rows) > maxRows
	next.Drift = rows[:min(len(rows), maxRows)]
	next.Unsettled += a.Unsettled
	quarantined := slices.Concat(a.Quarantined, next.Quarantined)
	next.Quarantined = quarantined[:min(len(quarantined), maxRows)]
	next.RetainedCount += a.RetainedCount
	kept := slices.Concat(a.Retained, next.Retained)
	next.Retained = kept[:min(len(kept), maxRows)]
	next.Places = reconcile.JoinPlaces(a.Places, next.Places)
	if a.Blocked && !next.Blocked {
		next.Blocked, next.BlockedReason = true, a.BlockedReason
	}
	return next
}

// status returns the command's exit status for the answer.
func (a answer) status() int {
	s := a.Summary
	left := s.Missing + s.Changed + s.Orphaned + s.Conflicting
	if a.Mode == reconcile.Correct {
		left -= s.Corrected + s.Enqueued // the rest, such as conflicts, needs an operator
	}
	if a.Blocked || s.Failed > 0 || left > 0 {
		return undone
	}
	return done
}
