package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// alwaysDeleted is how many instances may be removed whatever their share of the fleet.
const alwaysDeleted = 5

// limits are what decides which changes are made.
type limits struct {
	instanceIDs []string // empty for all
	profile     string   // empty for all
	adopt       bool
	force       bool
	now         time.Time
	// mayExist reports whether EC2 shows an instance, and not as gone.
	mayExist func(instanceID string) bool
	// placeOf is where an instance is recorded; zero when it is not.
	placeOf func(instanceID string) facts.Place
	// doubts are why nothing may be deleted anywhere.
	doubts []string
	// failed and empty are why nothing may be deleted in a place: it could not be listed, or came empty. Force helps
	// against emptiness only.
	failed, empty map[facts.Place]string
	fleetCounts
}

// fleetCounts are what the delete limit is held against.
type fleetCounts struct {
	// recorded is how many instances of the places compared the ledger holds, with those removed in the same run.
	recorded map[string]int // by account
	// removed is how many instances were removed in the same run so far.
	removed map[string]int // by account; "" for those whose account is not known
	// elsewhere is how many instances outside the list of changes are to be removed.
	elsewhere map[facts.Place]int
	// limit is the percentage of the recorded instances past which none is removed.
	limit int
}

// exceeds reports whether n removals are more than the limit allows.
func (f fleetCounts) exceeds(n, recorded int) bool {
	return n > alwaysDeleted && f.aboveShare(n, recorded)
}

// aboveShare reports whether n removals are more than the limit's percentage, however few they are.
func (f fleetCounts) aboveShare(n, recorded int) bool { return n*100 > f.limit*recorded }

// withheld says where nothing may be deleted and why. Trouble in one place or account withholds nothing in the others:
// the administrator of a member account could otherwise stop every removal.
type withheld struct {
	all      string // everywhere; empty when it is not so
	places   map[facts.Place]string
	accounts map[string]string
}

// reason is why nothing may be deleted in a place; empty when it may. An instance whose place is not known (the zero
// place) may be in any of those that are in doubt.
func (w withheld) reason(p facts.Place) string {
	switch {
	case w.all != "":
		return w.all
	case p == facts.Place{} && len(w.places) > 0:
		return w.inOrder()[0]
	}
	return cmp.Or(w.places[p], w.accounts[p.Account])
}

// blocked joins all the reasons; empty when there is none.
func (w withheld) blocked() string {
	if w.all != "" {
		return w.all
	}
	return join(w.inOrder())
}

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

// withheld decides where nothing may be deleted. A list of Vault or the ledger that failed withholds every delete; a
// place that could not be listed, or came empty, withholds its own; and an account past its own limit withholds its own.
// What is left is held against the limit of the whole run.
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

// holdToFleet holds what is left against the limit of the whole run. Past it, the accounts that are above their own share,
// and passed their own limit only because they are few, remove no more. The others are within the limit by themselves;
// only removals of an unknown account, by an earlier version's cursor, can put them past it.
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

// removals counts, by account, the instances that were and are to be removed, where nothing withholds it.
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

// pastLimit is why nothing is deleted where the limit is exceeded.
func (l limits) pastLimit(where string, n, recorded int, of string) string {
	return fmt.Sprintf(`nothing is deleted%s: %d instances would be removed of %d that are recorded%s, more than DELETE_LIMIT_PERCENT (%d); if that is right, run again with "force": true`,
		where, n, recorded, of, l.limit)
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

// limitsOf are what decides about the rows of a survey.
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
			l.failed[p] = fmt.Sprintf("nothing is deleted in %s: %v; force does not help: repair that, and the next run deletes", p, s.failed[p])
		case len(inv.places) > 1 && len(in.InstanceIDs) == 0 && n > 0 && s.counts[p] == 0:
			l.empty[p] = fmt.Sprintf(`EC2 shows no instance at all in %s, where %d are recorded: nothing is deleted there; if that is so, run again with "force": true`, p, n)
		}
	}
	return l
}

// mayExist reports whether an instance may be there: EC2 shows it, or could not be asked.
func (s *survey) mayExist(id string) bool {
	state, seen := s.states[id]
	if seen {
		return !s.isGone(state)
	}
	place, recorded := s.inventory.recorded[id]
	_, asked := s.counts[place]
	return recorded && (s.failed[place] != nil || !asked)
}
