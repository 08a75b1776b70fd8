package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// alwaysDeleted is how many instances may be removed whatever their share of the fleet.
const alwaysDeleted = 5

// terms are what decides which changes are made.
type terms struct {
	instanceIDs []string // empty for all
	profile     string   // empty for all
	adopt       bool
	force       bool
	now         time.Time
	// alive tells whether EC2 shows an instance, and not as gone.
	alive func(instanceID string) bool
	// doubts are why nothing may be deleted; force does not help against what failed, only against emptiness.
	doubts, empty []string
	// recorded is how many instances of the places compared the ledger holds, elsewhere how many are to go, or went in
	// the same run, besides those in the list, and limit the percentage past which none goes.
	recorded, elsewhere, limit int
}

// plan is what is to be told and done.
type plan struct {
	changes []Change // sorted by instance, kind and path
	blocked string   // why nothing is deleted; empty when it is not so
}

// decide runs the list of changes through the filters. It is a pure function.
func decide(changes []Change, t terms) plan {
	changes = slices.DeleteFunc(changes, func(c Change) bool {
		switch {
		case len(t.instanceIDs) > 0 && !slices.Contains(t.instanceIDs, c.InstanceID):
			return true
		case t.profile != "" && c.profile != t.profile:
			return true
		}
		// The young are spared: EC2 may not show them yet, and what the lists held of them may be gone by now.
		return c.absent && t.now.Sub(c.written) < young
	})
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.InstanceID, b.InstanceID), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Path, b.Path))
	})
	p := plan{changes: changes}
	for i := range changes {
		c := &changes[i]
		if c.heldBy != "" && !t.alive(c.heldBy) {
			// Its holder is gone, and whoever may remove that one can take the name over.
			c.Reason, c.Action, c.Error, c.here, c.bars = Missing, Create, "", true, false
		}
		if c.adopt != "" && t.adopt {
			c.Action, c.Error, c.bars = c.adopt, "", false
		}
	}
	p.leaveBarred()
	if p.blocked = t.blocked(p.removing() + t.elsewhere); p.blocked != "" {
		p.withhold()
	}
	return p
}

// withhold takes out what removes anything: whole instances, single objects of live ones, and with them what else would
// be done for the same instance, since one run of lifecycle's does both; and taking over a name from an instance that is
// to be removed.
func (p *plan) withhold() {
	removing := map[string]bool{}
	for i := range p.changes {
		c := &p.changes[i]
		if c.Action == Delete {
			c.Action = None
			removing[c.InstanceID] = true
		}
		if c.here && c.Action != None {
			removing[c.InstanceID] = true
		}
	}
	for i := range p.changes {
		if c := &p.changes[i]; removing[c.InstanceID] && c.Action != None {
			c.Action, c.Error = None, "left alone while nothing may be deleted"
		}
	}
}

// leaveBarred leaves an instance alone whose grant meets somebody else's object or name: lifecycle would refuse it.
func (p *plan) leaveBarred() {
	conflicts := map[string]string{}
	for _, c := range p.changes {
		if c.bars {
			conflicts[c.InstanceID] = c.Path
		}
	}
	for i := range p.changes {
		c := &p.changes[i]
		path, ok := conflicts[c.InstanceID]
		if ok && c.Action != None && !c.removes {
			c.Action, c.Error = None, "left alone while "+path+" is in conflict"
		}
	}
}

// removing counts the instances that are to go.
func (p *plan) removing() int {
	n, last := 0, ""
	for _, c := range p.changes {
		if c.counts && c.Action == Delete && c.InstanceID != last {
			n++
			last = c.InstanceID
		}
	}
	return n
}

// blocked says why nothing may be deleted; empty when it may.
func (t terms) blocked(removing int) string {
	if len(t.doubts) > 0 {
		return "nothing is deleted: " + join(t.doubts)
	}
	if t.force {
		return ""
	}
	if len(t.empty) > 0 {
		return "nothing is deleted: " + join(t.empty) + `; if that is so, run again with "force": true`
	}
	if removing > alwaysDeleted && removing*100 > t.limit*t.recorded {
		return fmt.Sprintf(`nothing is deleted: %d instances would be removed of %d that are recorded, more than DELETE_LIMIT_PERCENT (%d); if that is right, run again with "force": true`,
			removing, t.recorded, t.limit)
	}
	return ""
}

func join(reasons []string) string {
	const shown = 3
	out := ""
	for i, r := range reasons {
		if i == shown {
			return fmt.Sprintf("%s; and %d more", out, len(reasons)-shown)
		}
		if i > 0 {
			out += "; "
		}
		out += r
	}
	return out
}

// summarise counts the rows by their reasons, and those that could not be compared as failed.
func summarise(changes []Change) Summary {
	var s Summary
	for _, c := range changes {
		switch {
		case c.failed:
			s.Failed++
		case c.Reason == Missing:
			s.Missing++
		case c.Reason == Changed:
			s.Changed++
		case c.Reason == Orphaned:
			s.Orphaned++
		case c.Reason == Conflicting:
			s.Conflicting++
		}
	}
	return s
}
