// Package reconcile compares the whole fleet: EC2, the ledger and Vault. It says what differs, field by field, and has
// lifecycle put it right.
//
// The lists of Vault and the ledger are read first and EC2 last, so that what is made meanwhile is not taken for
// something left over. The comparison gives one flat list of changes; what may be done about them is decided by
// filters on that list, and the list is the answer.
package reconcile

import (
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// Mode is what a run does with what it finds.
type Mode string

// The modes.
const (
	Detect  Mode = "detect"  // tells
	Correct Mode = "correct" // tells and repairs
	Doctor  Mode = "doctor"  // examines the surroundings instead of the fleet
	// Teardown removes all that the deployment made, of instances that run too, and nothing is granted afterwards.
	Teardown Mode = "teardown"
)

// Input is what the function is invoked with. The zero value stands for the whole fleet, in the mode of the settings.
type Input struct {
	Mode        Mode     `json:"mode,omitempty"`
	InstanceIDs []string `json:"instanceIds,omitempty"`
	Profile     string   `json:"profile,omitempty"`
	// Force deletes past the delete limit, and though an account or region came empty.
	Force bool `json:"force,omitempty"`
	// Confirm is the deployment's ID, for mode teardown: nobody tears down another one than meant.
	Confirm string `json:"confirm,omitempty"`
	// NamesOnly compares what exists and reads no contents: a check that costs next to nothing.
	NamesOnly bool `json:"namesOnly,omitempty"`
	// Cursor is where a run that outlasted its invocation goes on: as its answer had it.
	Cursor *Cursor `json:"cursor,omitempty"`
}

// Cursor is how far a run came.
type Cursor struct {
	// After is the instance ID, in their order, up to which all is done.
	After string `json:"after"`
	// Limit is how many recorded instances are taken at once.
	Limit int `json:"limit"`
	// Removed is how many instances were removed so far: the delete limit is one for the whole run.
	Removed int `json:"removed"`
	// RemovedByAccount is the same by account. A cursor of an earlier version lacks it, and then no account is known.
	RemovedByAccount map[string]int `json:"removedByAccount,omitempty"`
	// Summary is that of the run so far.
	Summary Summary `json:"summary"`
	// StartedMs is when the run began, in Unix time.
	StartedMs int64 `json:"startedMs"`
	// BlockedReason is why something was not deleted so far; empty when nothing was withheld.
	BlockedReason string `json:"blockedReason,omitempty"`
}

// removedByAccount is how many instances were removed so far, by account; "" for those whose account is not known.
func (c Cursor) removedByAccount() map[string]int {
	out := map[string]int{}
	unknown := c.Removed
	for account, n := range c.RemovedByAccount {
		if account != "" {
			out[account] = n
			unknown -= n
		}
	}
	if unknown > 0 {
		out[""] = unknown
	}
	return out
}

func (c *Cursor) setRemoved(byAccount map[string]int) {
	c.Removed, c.RemovedByAccount = 0, nil
	for account, n := range byAccount {
		c.Removed += n
		if account != "" {
			if c.RemovedByAccount == nil {
				c.RemovedByAccount = map[string]int{}
			}
			c.RemovedByAccount[account] = n
		}
	}
}

// Answer is what a run found and did.
type Answer struct {
	Mode          Mode    `json:"mode"`
	Scanned       Scanned `json:"scanned"`
	Drift         []Drift `json:"drift"`
	Summary       Summary `json:"summary"`
	Blocked       bool    `json:"blocked"`
	BlockedReason string  `json:"blockedReason"`
	// Truncated tells that there is more: further rows, which are in the log, or the rest of the fleet, at the cursor.
	Truncated  bool    `json:"truncated"`
	Cursor     *Cursor `json:"cursor,omitempty"`
	DurationMs int64   `json:"durationMs"`

	// Unsettled counts the instances of which something is looked after once more, in a teardown.
	Unsettled int `json:"unsettled,omitempty"`

	// Unfinished are instances whose removal is to be looked after once more when no login can be under way any more:
	// invoke again for them after lifecycle's time. They are no part of what is answered.
	Unfinished []string `json:"-"`
	// Compared tells that no stretch of the fleet was given up.
	Compared bool `json:"-"`
}

// Scanned is what was looked at.
type Scanned struct {
	Instances int `json:"instances"`
	Records   int `json:"records"` // tombstones apart
	Policies  int `json:"policies"`
	AuthRoles int `json:"authRoles"`
	PKIRoles  int `json:"pkiRoles"`
}

// Summary counts rows: by reason, and by what became of them. A row whose comparison failed is counted as failed only.
type Summary struct {
	Missing     int `json:"missing"`
	Changed     int `json:"changed"`
	Orphaned    int `json:"orphaned"`
	Conflicting int `json:"conflicting"`
	Corrected   int `json:"corrected"`
	Failed      int `json:"failed"`
	Enqueued    int `json:"enqueued"`
}

func (s *Summary) add(o Summary) {
	s.Missing += o.Missing
	s.Changed += o.Changed
	s.Orphaned += o.Orphaned
	s.Conflicting += o.Conflicting
	s.Corrected += o.Corrected
	s.Failed += o.Failed
	s.Enqueued += o.Enqueued
}

// Since is what was added after o.
func (s Summary) Since(o Summary) Summary {
	return Summary{
		Missing: s.Missing - o.Missing, Changed: s.Changed - o.Changed, Orphaned: s.Orphaned - o.Orphaned, Conflicting: s.Conflicting - o.Conflicting,
		Corrected: s.Corrected - o.Corrected, Failed: s.Failed - o.Failed, Enqueued: s.Enqueued - o.Enqueued,
	}
}

// KindRecord is the ledger's record among the kinds of objects. A row about it stands for the whole instance: nothing
// was granted to it, or nothing should be left of it.
const KindRecord grant.Kind = "record"

// Reason is what is wrong.
type Reason string

// The reasons.
const (
	Missing     Reason = "missing"     // it should be there
	Changed     Reason = "changed"     // it is there and is not as it should be
	Orphaned    Reason = "orphaned"    // it should not be there, and it is ours
	Conflicting Reason = "conflicting" // somebody else's stands there, or nobody can tell whose
)

// Action is what puts it right.
type Action string

// The actions.
const (
	Create Action = "create"
	Update Action = "update"
	Delete Action = "delete"
	None   Action = "none"
)

// Drift is one difference, as it is answered.
type Drift struct {
	// InstanceID is empty for what is inside this program's name space and belongs to no instance.
	InstanceID string     `json:"instanceId"`
	Object     grant.Kind `json:"object"`
	Path       string     `json:"path"` // in Vault; of a record its key in the ledger
	Reason     Reason     `json:"reason"`
	Action     Action     `json:"action"`
	Fields     []string   `json:"fields"`
	// Diff has a line for each side of each field. Values of generic objects are never in it.
	Diff  string `json:"diff"`
	Error string `json:"error"`
}

// maxRows is how many rows an answer holds; the log has all.
const maxRows = 200
