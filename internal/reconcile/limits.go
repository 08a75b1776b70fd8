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
	// unseenFolder returns a folder of Vault that could not be listed and may hold objects of an instance; empty if there is none.
	unseenFolder func(instanceID string) string
	// doubts are the reasons why nothing may be deleted anywhere.
	doubts []string
	// failed are the reasons why nothing may be deleted in a place that could not be listed. Force does not help.
	failed map[facts.Place]string
	// empty are the reasons why nothing may be deleted in a place that shows no instance. Force helps.
	empty map[facts.Place]string
	// unlisted are the reasons why nothing may be deleted of an instance with objects in a folder that could not be listed. Force
	// does not help.
	unlisted map[string]string
	// idle are the reasons of failed places and folders in which nothing is recorded. They block only the run of which they
	// withhold a delete.
	idle map[string]bool
	// troubles are all places and folders with such reasons, and the folders without a mount.
	troubles []trouble
	fleetCounts
}

// fleetCounts are the numbers of instances that the delete limit compares.
type fleetCounts struct {
	// recorded counts the recorded instances that could be removed, and those removed in this run, by account. Those of a place or
	// folder that could not be listed are left out: they would raise the number that the others may lose.
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

// withheld has the reasons why nothing may be deleted: everywhere, in a place, in an account, or of an instance with objects in a
// folder of Vault. A fault in one of them withholds nothing in the others: the administrator of a member account, or of one mount,
// could otherwise stop every removal.
type withheld struct {
	all      string // empty if deletes are not withheld everywhere
	places   map[facts.Place]string
	accounts map[string]string
	folders  map[string]string
}

// reason returns why nothing may be deleted of an instance; empty if deletes are allowed. An instance of an unknown place (the
// zero place) may be in any place that has a reason. folder is one that could not be listed and may hold its objects.
func (w withheld) reason(p facts.Place, folder string) string {
	switch {
	case w.all != "":
		return w.all
	case p == facts.Place{} && len(w.places) > 0:
		return w.inOrder()[0]
	}
	return cmp.Or(w.places[p], w.accounts[p.Account], w.folders[folder])
}

// blocked returns all reasons joined, without those of idle; empty if there is none.
func (w withheld) blocked(idle map[string]bool) string {
	if w.all != "" {
		return w.all
	}
	return join(slices.DeleteFunc(w.inOrder(), func(reason string) bool { return idle[reason] }))
}

// inOrder returns the reasons of the places, accounts and folders, each sorted.
func (w withheld) inOrder() []string {
	var out []string
	for _, p := range slices.SortedFunc(maps.Keys(w.places), byPlace) {
		out = append(out, w.places[p])
	}
	for _, account := range slices.Sorted(maps.Keys(w.accounts)) {
		out = append(out, w.accounts[account])
	}
	for _, folder := range slices.Sorted(maps.Keys(w.folders)) {
		out = append(out, w.folders[folder])
	}
	return out
}

func byPlace(a, b facts.Place) int {
	return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Region, b.Region))
}

// withheld returns where nothing may be deleted. A failed list of the ledger, or of Vault's policies and logins, withholds every
// delete. A place that could not be listed, or shows no instance, withholds its own deletes, and so do a profile's folder that could
// not be listed and an account past the delete limit. The remaining removals are compared with the limit for the whole run.
func (l *limits) withheld(changes []Change) withheld {
	if len(l.doubts) > 0 {
		return withheld{all: "nothing is deleted: " + join(l.doubts)}
	}
	w := withheld{places: map[facts.Place]string{}, accounts: map[string]string{}, folders: l.unlisted}
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
func (l *limits) holdToFleet(w *withheld, removals map[string]int) {
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
func (l *limits) removals(changes []Change, w withheld) map[string]int {
	n := maps.Clone(l.removed)
	if n == nil {
		n = map[string]int{}
	}
	for p, of := range l.elsewhere {
		if w.reason(p, "") == "" {
			n[p.Account] += of
		}
	}
	last := ""
	for _, c := range changes {
		if c.counts && c.Action == Delete && c.InstanceID != last && w.reason(c.place, l.folderOf(&c)) == "" {
			n[c.place.Account]++
			last = c.InstanceID
		}
	}
	return n
}

// pastLimit returns the reason of an exceeded limit.
func (l *limits) pastLimit(where string, n, recorded int, of string) string {
	return fmt.Sprintf("nothing is deleted%s: %d instances would be removed of %d that are recorded%s, more than DELETE_LIMIT_PERCENT (%d); "+
		`if that is right, run again with "force": true`, where, n, recorded, of, l.limit)
}

// folderOf returns the folder for withheld.reason of a row. A row that only revokes certificates deletes nothing in a folder.
func (l *limits) folderOf(c *Change) string {
	if c.revokes {
		return ""
	}
	return l.unseenFolder(c.InstanceID)
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
		mayExist: s.mayExist, placeOf: func(id string) facts.Place {
			p, _ := s.inventory.recordedAt(id)
			return p
		}, unseenFolder: s.inventory.unseenFolder,
		failed: map[facts.Place]string{}, empty: map[facts.Place]string{}, unlisted: map[string]string{}, idle: map[string]bool{},
		fleetCounts: fleetCounts{recorded: maps.Clone(inv.removed), removed: inv.removed, limit: s.r.DeleteLimit},
	}
	if in.isWhole() {
		l.elsewhere = s.elsewhere
	}
	for _, err := range s.inventory.failed {
		l.doubts = append(l.doubts, err.Error())
	}
	recorded, removable := s.inventory.byPlace()
	for _, p := range inv.places {
		n := recorded[p]
		switch {
		case s.failed[p] != nil:
			l.failed[p] = fmt.Sprintf("nothing is deleted in %s: %v; force does not help: repair that, and the next run deletes",
				p.Name(), s.failed[p])
			l.idle[l.failed[p]] = n == 0
			l.addTrouble(PlaceTrouble{Account: p.Account, Region: p.Region, Recorded: n, Error: s.failed[p].Error()}, l.failed[p])
		case len(inv.places) > 1 && len(in.InstanceIDs) == 0 && n > 0 && s.counts[p] == 0:
			l.empty[p] = fmt.Sprintf("EC2 shows no instance at all in %s, where %d are recorded: nothing is deleted there; "+
				`if that is so, run again with "force": true`, p.Name(), n)
			if !in.Force {
				l.addTrouble(PlaceTrouble{Account: p.Account, Region: p.Region, Recorded: n, Error: "EC2 shows no instance at all"}, l.empty[p])
			}
		default:
			l.recorded[p.Account] += removable[p]
		}
	}
	for folder, err := range s.inventory.unlisted {
		l.unlisted[folder] = fmt.Sprintf("nothing is deleted of instances with objects in %s: %v; force does not help: repair that, and the next run deletes",
			folder, err)
		l.idle[l.unlisted[folder]] = s.inventory.inFolder[folder] == 0
		l.addTrouble(s.inventory.folderTrouble(folder, err), l.unlisted[folder])
	}
	for folder, err := range s.inventory.unmounted {
		l.addTrouble(s.inventory.folderTrouble(folder, err), "")
	}
	if t, is := s.inventory.aliasTrouble(); is {
		l.addTrouble(t, "")
	}
	return l
}

func (l *limits) addTrouble(t PlaceTrouble, reason string) {
	l.troubles = append(l.troubles, trouble{PlaceTrouble: t, reason: reason})
}

// folderTrouble returns the trouble of a folder of Vault.
func (held *inventory) folderTrouble(folder string, err error) PlaceTrouble {
	return PlaceTrouble{Folder: folder, Recorded: held.inFolder[folder], Error: err.Error()}
}

// byPlace counts the recorded instances by place. removable are those without objects in a folder that could not be listed.
func (held *inventory) byPlace() (recorded, removable map[facts.Place]int) {
	recorded, removable = map[facts.Place]int{}, map[facts.Place]int{}
	for _, e := range held.entries {
		if e.place == nil {
			continue
		}
		recorded[*e.place]++
		if e.unseen == "" {
			removable[*e.place]++
		}
	}
	return recorded, removable
}

// mayExist reports whether EC2 shows an instance, and not as ended, or could not be asked about it.
func (s *survey) mayExist(id string) bool {
	state, seen := s.states[id]
	if seen {
		return !s.isGone(state)
	}
	place, recorded := s.inventory.recordedAt(id)
	_, asked := s.counts[place]
	return recorded && (s.failed[place] != nil || !asked)
}
