package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// This file has the delete limit, DELETE_LIMIT_PERCENT: withheld applies it by account, holdToFleet to the whole run. plan.go
// withholds the deletes.

// alwaysDeleted is the number of instances that may be removed whatever their share of the fleet.
const alwaysDeleted = 5

// limits are the settings and observations by which decide chooses the changes to make.
type limits struct {
	instanceIDs []string // empty for all
	profile     string   // empty for all
	adopt       bool
	force       bool
	now         time.Time
	// mayExist reports whether EC2 shows an instance, and not as ended, or could not be asked about it.
	mayExist func(instanceID string) bool
	// placeOf returns the recorded place of an instance; zero if there is none.
	placeOf func(instanceID string) facts.Place
	// doubts are the reasons why nothing may be deleted anywhere.
	doubts []string
	// failed are the reasons why nothing may be deleted in a place that could not be listed. Force does not help.
	failed map[facts.Place]string
	// empty are the reasons why nothing may be deleted in a place that shows no instance. Force helps.
	empty map[facts.Place]string
	fleetCounts
}

// fleetCounts are the numbers of instances that the delete limit compares.
type fleetCounts struct {
	// recorded counts the recorded instances of the compared places, and those removed in this run, by account.
	recorded map[string]int
	// removed counts the instances removed in this run so far, by account; "" for those of unknown accounts.
	removed map[string]int
	// elsewhere counts the instances to remove that are outside the stretch, by place.
	elsewhere map[facts.Place]int
	// limit is DELETE_LIMIT_PERCENT: if more than this percentage of the recorded instances would be removed, none is.
	limit int
}

// exceeds reports whether n removals of recorded instances are more than the delete limit allows.
func (f fleetCounts) exceeds(n, recorded int) bool {
	return n > alwaysDeleted && f.aboveShare(n, recorded)
}

// aboveShare reports whether n removals are above the limit's percentage, however few they are.
func (f fleetCounts) aboveShare(n, recorded int) bool { return n*100 > f.limit*recorded }

// withheld has the reasons why nothing may be deleted: everywhere, in a place, or in an account. A fault in one place or account
// withholds nothing in the others: the administrator of a member account could otherwise stop every removal.
type withheld struct {
	all      string // empty if deletes are not withheld everywhere
	places   map[facts.Place]string
	accounts map[string]string
}

// reason returns why nothing may be deleted in a place; empty if deletes are allowed. An instance of an unknown place (the zero
// place) may be in any place that has a reason.
func (w withheld) reason(p facts.Place) string {
	switch {
	case w.all != "":
		return w.all
	case p == facts.Place{} && len(w.places) > 0:
		return w.inOrder()[0]
	}
	return cmp.Or(w.places[p], w.accounts[p.Account])
}

// blocked returns all reasons joined; empty if there is none.
func (w withheld) blocked() string {
	if w.all != "" {
		return w.all
	}
	return join(w.inOrder())
}

// inOrder returns the reasons of the places and accounts, sorted by place and account.
func (w withheld) inOrder() []string {
	var out []string
	for _, p := range slices.SortedFunc(maps.Keys(w.places), byPlace) {
		out = append(out, w.places[p])
	}
	for _, account := range slices.Sorted(maps.Keys(w.accounts)) {
		out = append(out, w.accounts[account])
	}
	return out
}

func byPlace(a, b facts.Place) int {
	return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Region, b.Region))
}

// withheld returns where nothing may be deleted. A failed list of Vault or the ledger withholds every delete. A place that
// could not be listed, or shows no instance, withholds its own deletes, and so does an account past the delete limit. The
// remaining removals are compared with the limit for the whole run.
func (l limits) withheld(changes []Change) withheld {
	if len(l.doubts) > 0 {
		return withheld{all: "nothing is deleted: " + join(l.doubts)}
	}
	w := withheld{places: map[facts.Place]string{}, accounts: map[string]string{}}
	maps.Copy(w.places, l.failed)
	if l.force {
		return w
	}
	maps.Copy(w.places, l.empty)
	removals := l.removals(changes, w)
	for account, n := range removals {
		if n > l.removed[account] && l.exceeds(n, l.recorded[account]) {
			w.accounts[account] = l.pastLimit(" in account "+cmp.Or(account, "unknown"), n, l.recorded[account], " there")
		}
	}
	l.holdToFleet(&w, removals)
	return w
}

// holdToFleet applies the delete limit to the removals of all accounts together. Past it, the accounts above their own
// percentage remove no more: only alwaysDeleted had allowed their removals. The other accounts are within the limit by
// themselves; only removals of unknown accounts, by the cursor of an earlier version, can put them past it, and then nothing
// is removed.
func (l limits) holdToFleet(w *withheld, removals map[string]int) {
	recorded, n := 0, 0
	for _, of := range l.recorded {
		recorded += of
	}
	for account, of := range removals {
		if w.accounts[account] == "" {
			n += of
		}
	}
	if !l.exceeds(n, recorded) {
		return
	}
	rest := 0
	for account, of := range removals {
		switch {
		case w.accounts[account] != "":
		case account == "" || !l.aboveShare(of, l.recorded[account]):
			rest += of
		case of > l.removed[account]:
			w.accounts[account] = l.pastLimit(" in account "+account, n, recorded, " in all accounts")
		}
	}
	if l.exceeds(rest, recorded) {
		w.all = l.pastLimit("", rest, recorded, "")
	}
}

// removals counts by account the instances that were removed or are to be removed, where w withholds nothing.
func (l limits) removals(changes []Change, w withheld) map[string]int {
	n := maps.Clone(l.removed)
	if n == nil {
		n = map[string]int{}
	}
	for p, of := range l.elsewhere {
		if w.reason(p) == "" {
			n[p.Account] += of
		}
	}
	last := ""
	for _, c := range changes {
		if c.counts && c.Action == Delete && c.InstanceID != last && w.reason(c.place) == "" {
			n[c.place.Account]++
			last = c.InstanceID
		}
	}
	return n
}

// pastLimit returns the reason of an exceeded limit.
func (l limits) pastLimit(where string, n, recorded int, of string) string {
	return fmt.Sprintf("nothing is deleted%s: %d instances would be removed of %d that are recorded%s, more than DELETE_LIMIT_PERCENT (%d); "+
		`if that is right, run again with "force": true`, where, n, recorded, of, l.limit)
}

// join joins up to three reasons, and counts the rest.
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

// limitsOf returns the limits for the rows of a survey.
func (s *survey) limitsOf(in Input, inv *invocation) limits {
	l := limits{
		instanceIDs: in.InstanceIDs, profile: in.Profile, adopt: s.r.Adopt, force: in.Force, now: s.r.Now(),
		mayExist: s.mayExist, placeOf: func(id string) facts.Place { return s.inventory.recorded[id] },
		failed: map[facts.Place]string{}, empty: map[facts.Place]string{},
		fleetCounts: fleetCounts{recorded: maps.Clone(inv.removed), removed: inv.removed, limit: s.r.DeleteLimit},
	}
	if in.isWhole() {
		l.elsewhere = s.elsewhere
	}
	for _, err := range s.inventory.failed {
		l.doubts = append(l.doubts, err.Error())
	}
	recorded := map[facts.Place]int{}
	for _, p := range s.inventory.recorded {
		recorded[p]++
	}
	for _, p := range inv.places {
		n := recorded[p]
		l.recorded[p.Account] += n
		switch {
		case s.failed[p] != nil:
			l.failed[p] = fmt.Sprintf("nothing is deleted in %s: %v; force does not help: repair that, and the next run deletes",
				p.Name(), s.failed[p])
		case len(inv.places) > 1 && len(in.InstanceIDs) == 0 && n > 0 && s.counts[p] == 0:
			l.empty[p] = fmt.Sprintf("EC2 shows no instance at all in %s, where %d are recorded: nothing is deleted there; "+
				`if that is so, run again with "force": true`, p.Name(), n)
		}
	}
	return l
}

// mayExist reports whether EC2 shows an instance, and not as ended, or could not be asked about it.
func (s *survey) mayExist(id string) bool {
	state, seen := s.states[id]
	if seen {
		return !s.isGone(state)
	}
	place, recorded := s.inventory.recorded[id]
	_, asked := s.counts[place]
	return recorded && (s.failed[place] != nil || !asked)
}
