package reconcile

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Quarantined is an instance in quarantine, as a comparison shows it. It is no drift.
type Quarantined struct {
	InstanceID string `json:"instanceId"`
	SeenQuarantine
}

// quarantined returns the instances of the stretch that live in quarantine and that the input asks for.
func (held *inventory) quarantined(in Input) []Quarantined {
	var out []Quarantined
	for _, id := range held.idsOf(func(e *entry) bool { return e.quarantined && held.inStretch(e.id) }) {
		r := held.recordOf(id)
		isAsked := len(in.InstanceIDs) == 0 || slices.Contains(in.InstanceIDs, id)
		if r != nil && isAsked && (in.Profile == "" || r.Profile == in.Profile) {
			out = append(out, Quarantined{InstanceID: id, SeenQuarantine: *seenQuarantine(r)})
		}
	}
	return out
}

// addQuarantined adds instances in quarantine to an answer, as many as it holds.
func (a *Answer) addQuarantined(more []Quarantined) {
	a.Quarantined = append(a.Quarantined, more[:min(len(more), maxRows-len(a.Quarantined))]...)
}

// rowsOfQuarantined returns the rows of a live instance in quarantine. It has rows only if its removal broke off, or missed objects that
// the record does not name, or if its record says that it ended. They do not count toward the delete limit: a person decided about each.
func (c *comparison) rowsOfQuarantined(s *subject) []Change {
	rows, isAll := c.rowsBeforeRemoval(s)
	if isAll {
		return rows
	}
	const state = "in quarantine"
	switch {
	case s.hasLiveRecord() && c.hasMoreToRemove(s, len(rows)):
		rows = append(rows, s.recordRow(Drift{Reason: Orphaned, Action: Delete, Diff: diffOf("instance", state, s.record.State)}))
	case !s.record.LivesInQuarantine():
		rows = append(rows, s.recordRow(Drift{Reason: Changed, Action: Update, Fields: []string{"quarantine"}, Diff: diffOf("instance", state, "ended")}))
	}
	bare := *s
	bare.grant, bare.sighting = nil, instance.Sighting{} // so that the grant's objects are untracked too, and what its logins left
	rows = append(rows, c.rowsOfUntracked(&bare)...)
	for i := range rows {
		rows[i].removes = rows[i].Action == Delete || rows[i].Action == Update
	}
	return rows
}

// endOfQuarantineRow returns the row of an instance in quarantine that is gone; nil for any other.
func (s *subject) endOfQuarantineRow() *Change {
	if s.hasLiveRecord() || !s.record.LivesInQuarantine() {
		return nil
	}
	row := s.recordRow(Drift{Reason: Orphaned, Action: Delete, Diff: diffOf("instance", "gone", "in quarantine")})
	return &row
}

// kindOfQuarantine returns the words for a mark.
func kindOfQuarantine(q *ledger.Quarantine) string {
	text := fmt.Sprintf("by %s, since %s: %s", q.By, at(q.Since), q.Reason)
	if q.Source == ledger.ByFinding {
		text = "by a finding of " + text[len("by "):]
	}
	return text
}

// inQuarantine returns the verdict on an instance in quarantine that EC2 shows.
func (x *Explainer) inQuarantine(t *story) Verdict {
	v := Verdict{
		Status: InQuarantine, Summary: "it is in quarantine and gets no grant, ordered " + kindOfQuarantine(t.record.Quarantine),
		Next: "find out what happened; to end the quarantine: " + x.command("release") + " " + t.id,
	}
	switch {
	case !t.compared:
		v.Summary += "; what is left of its grant could not be read"
	case len(t.rows) > 0:
		v.Summary += "; not all of its grant is removed" + lastError(t)
		v.Next = cmp.Or(conflictStep(t.rows), "reconcile removes the rest at its next run; now: "+x.correct(t))
	}
	return v
}
