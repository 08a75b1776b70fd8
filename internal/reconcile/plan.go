package reconcile

import (
	"cmp"
	"maps"
	"slices"
)

// plan is the rows of a stretch, each with the action to take.
type plan struct {
	changes []Change // sorted by instance, kind and path
	blocked string   // the reasons why deletes are withheld; empty if none are
	// places are the places and folders that were not looked at, or where deletes are withheld.
	places []PlaceTrouble
}

// decide returns the plan for a list of changes. It drops rows that the input excludes or that are too new to judge, takes
// over names of holders that are gone, adopts objects where settings say to, holds instances that a conflict bars, and
// withholds deletes, by the delete limit among others (limits.go). It is pure.
func decide(changes []Change, l limits) plan {
	changes = slices.DeleteFunc(changes, func(c Change) bool {
		switch {
		case len(l.instanceIDs) > 0 && !slices.Contains(l.instanceIDs, c.InstanceID):
			return true
		case l.profile != "" && c.profile != l.profile:
			return true
		}
		// An absent instance is spared for converge.Grace after its record was written: EC2 may not show it yet, and the
		// objects of the lists may be gone by now.
		return c.absent && isRecent(c.written, l.now)
	})
	slices.SortFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.InstanceID, b.InstanceID), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Path, b.Path))
	})
	p := plan{changes: changes}
	for i := range changes {
		c := &changes[i]
		if c.heldBy != "" && !l.mayExist(c.heldBy) {
			// The holder is gone: a function with the Remove duty removes it and takes the name over.
			c.Reason, c.Action, c.Error, c.needsRemove, c.bars = Missing, Create, "", true, false
		}
		if c.adopt != "" && l.adopt {
			c.Action, c.Error, c.bars = c.adopt, "", false
		}
	}
	p.holdBarred()
	w := l.withheld(p.changes)
	idle := maps.Clone(l.idle)
	p.withhold(func(c *Change) string {
		why := w.reason(c.place, l.folderOf(c))
		if why == "" && c.heldBy != "" && c.Action == Create {
			why = w.reason(l.placeOf(c.heldBy), l.unseenFolder(c.heldBy)) // taking the name over removes the holder
		}
		delete(idle, why)
		return why
	})
	p.blocked = w.blocked(idle)
	p.places = placesOf(l.troubles, idle)
	return p
}

// withhold sets the action to none where reason returns why: of deletes, and of repairs that need the Remove duty. The other
// repairs of the same instance wait too, since one run of converge does all.
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
			c.Action, c.Error = None, "not repaired, since it takes a delete that is withheld: "+why
		}
	}
}

// holdBarred sets the action to none for an instance whose grant meets a foreign object or a held name: converge would refuse
// it. Its removal is not held.
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
			c.Action, c.Error = None, "not repaired, since converge refuses the instance while "+path+" is in conflict"
		}
	}
}

// summarise counts the rows by reason, and those of instances that could not be compared as failed.
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
