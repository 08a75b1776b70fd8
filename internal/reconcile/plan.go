package reconcile

import (
	"cmp"
	"slices"
)

// plan is what is to be told and done.
type plan struct {
	changes []Change // sorted by instance, kind and path
	blocked string   // where nothing is deleted and why; empty when nothing is withheld
}

// decide runs the list of changes through the filters. It is a pure function.
func decide(changes []Change, l limits) plan {
	changes = slices.DeleteFunc(changes, func(c Change) bool {
		switch {
		case len(l.instanceIDs) > 0 && !slices.Contains(l.instanceIDs, c.InstanceID):
			return true
		case l.profile != "" && c.profile != l.profile:
			return true
		}
		// The converge.Grace are spared: EC2 may not show them yet, and what the lists held of them may be gone by now.
		return c.absent && isRecent(c.written, l.now)
	})
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.InstanceID, b.InstanceID), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Path, b.Path))
	})
	p := plan{changes: changes}
	for i := range changes {
		c := &changes[i]
		if c.heldBy != "" && !l.mayExist(c.heldBy) {
			// Its holder is gone, and whoever may remove that one can take the name over.
			c.Reason, c.Action, c.Error, c.needsRemove, c.bars = Missing, Create, "", true, false
		}
		if c.adopt != "" && l.adopt {
			c.Action, c.Error, c.bars = c.adopt, "", false
		}
	}
	p.holdBarred()
	w := l.withheld(p.changes)
	p.blocked = w.blocked()
	p.withhold(func(c *Change) string {
		why := w.reason(c.place)
		if why == "" && c.heldBy != "" && c.Action == Create {
			why = w.reason(l.placeOf(c.heldBy)) // taking the name over removes its holder
		}
		return why
	})
	return p
}

// withhold takes out what removes anything where a reason says that it may not: whole instances, single objects of live
// ones, and with them what else would be done for the same instance, since one run of lifecycle's does both; and taking
// over a name from an instance that is to be removed.
func (p *plan) withhold(reason func(*Change) string) {
	waits := map[string]string{}
	for i := range p.changes {
		c := &p.changes[i]
		if c.Action == None || (c.Action != Delete && !c.needsRemove) {
			continue
		}
		why := reason(c)
		if why == "" {
			continue
		}
		waits[c.InstanceID] = why
		if c.Action == Delete {
			c.Action, c.Error = None, why
		}
	}
	for i := range p.changes {
		c := &p.changes[i]
		if why := waits[c.InstanceID]; why != "" && c.Action != None {
			c.Action, c.Error = None, "left alone while nothing may be deleted: "+why
		}
	}
}

// holdBarred leaves an instance alone whose grant meets somebody else's object or name: lifecycle would refuse it.
func (p *plan) holdBarred() {
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
