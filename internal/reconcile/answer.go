package reconcile

import (
	"maps"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// Answer is the answer to one invocation of a run.
type Answer struct {
	Mode Mode `json:"mode"`
	// Namespace is Vault's namespace, to which the paths of the rows are relative; empty for the root one.
	Namespace string  `json:"namespace,omitempty"`
	Scanned   Scanned `json:"scanned"`
	Drift     []Drift `json:"drift"`
	Summary   Summary `json:"summary"`
	// Touched counts what differs; nil if nothing does. It counts the rows that the answer has no room for, too.
	Touched       *Touched `json:"touched,omitempty"`
	Blocked       bool     `json:"blocked"`
	BlockedReason string   `json:"blockedReason"`
	// Places are the accounts and regions of EC2 and the folders of Vault that could not be looked at.
	Places []PlaceTrouble `json:"places,omitempty"`
	// Quarantined are the instances that live in quarantine. They are no drift.
	Quarantined []Quarantined `json:"quarantined,omitempty"`
	// Truncated reports whether there are more rows, which are in the log, or whether the run continues at Cursor.
	Truncated  bool    `json:"truncated"`
	Cursor     *Cursor `json:"cursor,omitempty"`
	DurationMs int64   `json:"durationMs"`

	// Retained are objects that a teardown left in Vault, as their profiles say, and RetainedCount is the number of all.
	Retained      []Retained `json:"retained,omitempty"`
	RetainedCount int        `json:"retainedCount,omitempty"`

	// Unsettled is the number of Unfinished in a teardown.
	Unsettled int `json:"unsettled,omitempty"`

	// Unfinished are the instances whose removal a later run finishes, as with converge.ErrUnfinished: run again for them
	// when converge.LoginTime is over.
	Unfinished []string `json:"-"`
	// Compared reports whether the invocation gave up no stretch of the fleet.
	Compared bool `json:"-"`
}

// Scanned counts what was compared.
type Scanned struct {
	Instances int `json:"instances"`
	Records   int `json:"records"` // without tombstones
	Policies  int `json:"policies"`
	AuthRoles int `json:"authRoles"`
	PKIRoles  int `json:"pkiRoles"`
	SSHRoles  int `json:"sshRoles,omitempty"`
}

// Summary counts rows by reason and by result. A row of an instance that could not be compared counts as failed only.
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

// Since returns the counts that were added after o.
func (s *Summary) Since(o Summary) Summary {
	return Summary{
		Missing: s.Missing - o.Missing, Changed: s.Changed - o.Changed,
		Orphaned: s.Orphaned - o.Orphaned, Conflicting: s.Conflicting - o.Conflicting,
		Corrected: s.Corrected - o.Corrected, Failed: s.Failed - o.Failed, Enqueued: s.Enqueued - o.Enqueued,
	}
}

// Touched counts the instances and the objects with a difference.
type Touched struct {
	Instances int `json:"instances"`
	// Gaining is how many instances have no grant and should have one; Losing is how many have one and should have none, also where
	// the removal is withheld.
	Gaining int                           `json:"gaining"`
	Losing  int                           `json:"losing"`
	Objects map[grant.Kind]map[Reason]int `json:"objects"`
}

// add returns the counts with those of more rows, which are sorted by instance and of other instances than those before.
func (t *Touched) add(rows []Change) *Touched {
	if len(rows) == 0 {
		return t
	}
	sum := Touched{Objects: map[grant.Kind]map[Reason]int{}}
	if t != nil {
		sum.Instances, sum.Gaining, sum.Losing = t.Instances, t.Gaining, t.Losing
		for kind, reasons := range t.Objects {
			sum.Objects[kind] = maps.Clone(reasons)
		}
	}
	last, lost := "", ""
	for _, c := range rows {
		if c.InstanceID != last {
			sum.Instances++
			last = c.InstanceID
		}
		if c.removes && c.InstanceID != lost {
			sum.Losing++
			lost = c.InstanceID
		}
		if c.Object == KindRecord && c.Reason == Missing {
			sum.Gaining++
		}
		if sum.Objects[c.Object] == nil {
			sum.Objects[c.Object] = map[Reason]int{}
		}
		sum.Objects[c.Object][c.Reason]++
	}
	return &sum
}

// KindRecord is the kind of a row about the ledger's record. Such a row concerns the whole instance: it has no grant, or its
// grant must go.
const KindRecord grant.Kind = "record"

// Reason is the reason of a row.
type Reason string

// The reasons.
const (
	Missing     Reason = "missing"     // the object should exist
	Changed     Reason = "changed"     // the object exists with other contents
	Orphaned    Reason = "orphaned"    // the object should not exist, and is ours
	Conflicting Reason = "conflicting" // the object is foreign, or of unknown owner
)

// Action is the repair of a row.
type Action string

// The actions.
const (
	Create Action = "create"
	Update Action = "update"
	Delete Action = "delete"
	None   Action = "none"
)

// Drift is one row of the answer: one difference.
type Drift struct {
	// InstanceID is empty for an object inside this program's name space that belongs to no instance.
	InstanceID string     `json:"instanceId"`
	Object     grant.Kind `json:"object"`
	Path       string     `json:"path"` // in Vault; for a record its key in the ledger
	Reason     Reason     `json:"reason"`
	Action     Action     `json:"action"`
	Fields     []string   `json:"fields"`
	// Diff shows the differing values, or the differing lines of a policy (format.go). It never has values of generic objects.
	Diff  string `json:"diff"`
	Error string `json:"error"`
}

// maxRows is the number of rows that an answer holds; the log has all.
const maxRows = 200
