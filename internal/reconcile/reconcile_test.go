package reconcile

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

func TestFleet_InOrderHasNoRows(t *testing.T) {
	w := newWorld(t, 40)
	a := w.run(w.reconciler(), Input{Mode: Correct})
	if len(a.Drift) > 0 || a.Blocked || a.Truncated || a.Scanned != (Scanned{Instances: 40, Records: 40, Policies: 40, AuthRoles: 40, PKIRoles: 80}) {
		t.Errorf("want the counts and no row, got %+v", a)
	}
	if w.calls["read"] != 160 {
		t.Errorf("want one read of each of 160 objects, got %d reads", w.calls["read"])
	}
	if a := w.run(w.reconciler(), Input{NamesOnly: true}); len(a.Drift) > 0 || w.calls["read"] != 160 {
		t.Errorf("by names only: want no read and no row, got %+v after %d reads", a, w.calls["read"]-160)
	}
}

func TestNamesOnly_FindsMissingNotChanged(t *testing.T) {
	w := newWorld(t, 4)
	w.spoil(4)
	w.Objects[grant.AuthRolePath("aws", id(1))] = map[string]any{"token_ttl": int64(1)}
	if a := w.run(w.reconciler(), Input{Mode: Detect, NamesOnly: true}); a.Summary != (Summary{Missing: 1}) {
		t.Errorf("want the missing policy alone, got %+v", a)
	}
}

// TestFleet_IsComparedInStretches compares ninety-five instances, with ten records in memory at a time.
func TestFleet_IsComparedInStretches(t *testing.T) {
	w := newWorld(t, 95)
	spoiled := w.spoil(3)
	a := w.run(w.reconciler(), Input{Mode: Correct, Cursor: &Cursor{Limit: 10}})
	if a.Summary != (Summary{Missing: spoiled, Corrected: spoiled}) || a.Cursor != nil {
		t.Fatalf("want all %d found and repaired once, got %+v", spoiled, a)
	}
	if want := (Touched{Instances: spoiled, Objects: map[grant.Kind]map[Reason]int{grant.KindPolicy: {Missing: spoiled}}}); a.Touched == nil || !reflect.DeepEqual(*a.Touched, want) {
		t.Errorf("want each instance counted once, %+v, got %+v", want, a.Touched)
	}
	if w.calls["scan"] != 10 || w.calls["converge"] != spoiled {
		t.Errorf("want ten passes and %d repairs, got %d and %d", spoiled, w.calls["scan"], w.calls["converge"])
	}
	if !slices.IsSortedFunc(a.Drift, func(x, y Drift) int { return strings.Compare(x.InstanceID, y.InstanceID) }) {
		t.Error("want the rows in the order of the instances' IDs")
	}
	if a := w.run(w.reconciler(), Input{Mode: Detect}); len(a.Drift) > 0 {
		t.Errorf("want no drift left, got %+v", a)
	}
}

// TestRun_ContinuesAtItsCursor has repairs that take twenty-five seconds each, and invocations of fifteen
// minutes.
func TestRun_ContinuesAtItsCursor(t *testing.T) {
	w := newWorld(t, 100)
	spoiled := w.spoil(1)
	w.tick["converge"] = 25 * time.Second
	rows := 0
	a, invocations := w.goOn(Input{Mode: Correct}, func(a Answer) {
		rows += len(a.Drift)
		if a.Cursor != nil && (!a.Truncated || a.Cursor.After == "") {
			t.Fatalf("want a cursor that says how far the run came, got %+v", a)
		}
	})
	if invocations < 3 || invocations > 5 || rows != spoiled || a.Summary != (Summary{Missing: spoiled, Corrected: spoiled}) || w.calls["converge"] != spoiled {
		t.Errorf("want %d repairs and rows, each once, over three to five invocations, and one summary, got %d and %d over %d: %+v", spoiled, w.calls["converge"], rows, invocations, a.Summary)
	}
	if a.Touched == nil || a.Touched.Instances != spoiled {
		t.Errorf("want %d instances touched in the whole run, got %+v", spoiled, a.Touched)
	}
	if a.DurationMs < int64(spoiled)*25_000 {
		t.Errorf("want the duration of the whole run, got %d ms", a.DurationMs)
	}
}

func TestStretch_ShrinksWhenTooSlow(t *testing.T) {
	w := newWorld(t, 210)
	w.tick["read"] = 2 * time.Second // a hundred instances, of four objects each, fit into 15 minutes, and two hundred do not
	last := 400
	a, invocations := w.goOn(Input{Mode: Detect, Cursor: &Cursor{Limit: last}}, func(a Answer) {
		if a.Cursor != nil {
			last = a.Cursor.Limit
		}
	})
	if a.Blocked || invocations != 3 || last != 105 {
		t.Errorf("want the first try given up, and the run to end with two stretches of half as many, got %+v after %d invocations, in stretches of %d", a, invocations, last)
	}
	w.tick["read"] = time.Minute
	in := Input{Mode: Detect, Cursor: &Cursor{Limit: 150}}
	if a := w.run(w.reconciler(), in); a.Cursor != nil || !a.Blocked || !strings.Contains(a.BlockedReason, "given up") {
		t.Errorf("want a run given up that cannot get on, got %+v", a)
	}
}

func TestDeleteLimit_CountsTheWholeRun(t *testing.T) {
	w := newWorld(t, 50)
	const gone, before = 12, 6
	for n := range gone {
		delete(w.ec2, id(n*4))
	}
	const says = "12 instances would be removed of 50"
	in := Input{Mode: Correct, Cursor: &Cursor{Limit: 10}} // two or three to remove in each stretch: below every limit
	if a := w.run(w.reconciler(), in); !a.Blocked || !strings.Contains(a.BlockedReason, says) || a.Summary.Corrected > 0 {
		t.Errorf("want all stretches blocked, got %+v", a)
	}
	in.Cursor.Removed = before // by an invocation before
	for n := range before {
		w.remove(id(n * 4))
	}
	if a := w.run(w.reconciler(), in); !a.Blocked || !strings.Contains(a.BlockedReason, says) {
		t.Errorf("want the removals of the invocation before counted, got %+v", a)
	}
	in.Force = true
	if a := w.run(w.reconciler(), in); a.Blocked || a.Summary.Corrected != gone-before {
		t.Errorf("forced: want the last %d removed, got %+v", gone-before, a)
	}
}

func TestRun_EndsWhenVaultIsDown(t *testing.T) {
	w := newWorld(t, maxFailures+3*readers)
	w.spoil(2)
	w.fail["read"] = errStorage
	a := w.run(w.reconciler(), Input{Mode: Correct})
	if !a.Blocked || !strings.Contains(a.BlockedReason, "given up") || w.calls["converge"] > 0 {
		t.Errorf("want the run given up, got %+v", a)
	}
	if n := w.calls["read"]; n > maxFailures+2*readers {
		t.Errorf("want no more than %d tries, got %d", maxFailures+2*readers, n)
	}
	for kind, says := range map[string]string{"list " + grant.PolicyFolder: "storage is away", "scan": "storage is away"} {
		w := newWorld(t, 5)
		w.fail[kind] = errStorage
		if a := w.run(w.reconciler(), Input{Mode: Correct}); !a.Blocked || !strings.Contains(a.BlockedReason, says) || w.calls["converge"] > 0 {
			t.Errorf("%s fails: want nothing compared, and the reason, got %+v", kind, a)
		}
	}
}

// TestBusyRecord_IsNoDrift has records that are leased, or were written while the lists were read.
func TestBusyRecord_IsNoDrift(t *testing.T) {
	w := newWorld(t, 3)
	w.spoil(1)
	w.edit(id(0), func(r *ledger.Record) {
		r.LeaseOwner, r.LeaseExpiresAt = "another run", start.Add(time.Minute).UnixMilli()
	})
	w.after = func(kind, _ string) {
		if kind == "scan" {
			w.edit(id(1), func(r *ledger.Record) { r.Version++ })
		}
	}
	if a := w.run(w.reconciler(), Input{Mode: Detect}); len(a.Drift) != 1 || a.Drift[0].InstanceID != id(2) {
		t.Errorf("want a row for the third alone, got %+v", a.Drift)
	}
}

func TestQueue_TakesGrantsAndNoRemovals(t *testing.T) {
	w := newWorld(t, 10)
	delete(w.Objects, grant.AuthRolePath("aws", id(1)))
	w.loosen(grant.AuthRolePath("aws", id(2)), "auth_type", "iam") // Vault cannot change it in place
	w.terminate(3)
	a := w.run(w.reconciler(func(o *Options) { o.Queue = w }), Input{Mode: Correct})
	if a.Summary.Enqueued != 1 || len(w.sent) != 1 || w.sent[0].ID != id(1) || a.Summary.Corrected != 2 {
		t.Errorf("want one repair enqueued and two made here, got %+v, sent %+v", a.Summary, w.sent)
	}
}

func TestDecide_ChoosesEachRowsAction(t *testing.T) {
	var (
		missing  = Change{Drift: Drift{InstanceID: id(1), Object: grant.KindPolicy, Path: "a", Reason: Missing, Action: Create}, place: here, profile: "p"}
		foreign  = Change{Drift: Drift{InstanceID: id(1), Object: grant.KindPKIRole, Path: "b", Reason: Conflicting, Action: None}, place: here, profile: "p", adopt: Update, bars: true}
		orphaned = Change{Drift: Drift{InstanceID: id(2), Object: KindRecord, Path: "c", Reason: Orphaned, Action: Delete}, place: here, profile: "q", removes: true, counts: true}
		absent   = Change{Drift: orphaned.Drift, removes: true, counts: true, absent: true, written: start.Add(-9 * time.Minute)}
		held     = Change{Drift: Drift{InstanceID: id(3), Object: KindRecord, Path: "d", Reason: Conflicting, Action: None, Error: "held"}, heldBy: id(9), bars: true}
	)
	old := absent
	old.written = start.Add(-11 * time.Minute)
	base := limits{
		now: start, mayExist: func(string) bool { return true }, placeOf: func(string) facts.Place { return here },
		unseenFolder: func(string) string { return "" },
		fleetCounts:  fleetCounts{recorded: map[string]int{here.Account: 10, there.Account: 10}, limit: 20},
	}
	in := func(p facts.Place, c Change) Change {
		c.place = p
		return c
	}
	another := in(there, orphaned)
	another.InstanceID = id(4)
	revoked := orphaned
	revoked.revokes = true
	unseen := func(t *limits) {
		t.unlisted = map[string]string{"f": "x"}
		t.unseenFolder = func(i string) string { return map[string]string{id(2): "f"}[i] }
	}
	counts := func(elsewhere, recorded int) func(*limits) {
		return func(t *limits) {
			t.elsewhere = map[facts.Place]int{here: elsewhere}
			t.recorded = map[string]int{here.Account: recorded}
		}
	}
	for name, c := range map[string]struct {
		rows  []Change
		terms func(*limits)
		want  []Action // of the rows that are left
	}{
		"a missing object is made":             {[]Change{missing}, func(*limits) {}, []Action{Create}},
		"an orphaned one is deleted":           {[]Change{orphaned}, func(*limits) {}, []Action{Delete}},
		"nothing beside a conflict is touched": {[]Change{missing, foreign}, func(*limits) {}, []Action{None, None}},
		"adopted, both are made":               {[]Change{missing, foreign}, func(t *limits) { t.adopt = true }, []Action{Update, Create}},
		"another profile's is left out":        {[]Change{missing, orphaned}, func(t *limits) { t.profile = "q" }, []Action{Delete}},
		"another instance's is left out":       {[]Change{missing, orphaned}, func(t *limits) { t.instanceIDs = []string{id(1)} }, []Action{Create}},
		"the young are spared":                 {[]Change{absent}, func(*limits) {}, nil},
		"the old are not":                      {[]Change{old}, func(*limits) {}, []Action{Delete}},
		"in doubt nothing is deleted":          {[]Change{missing, orphaned}, func(t *limits) { t.doubts = []string{"x"} }, []Action{Create, None}},
		"in doubt force does not help":         {[]Change{orphaned}, func(t *limits) { t.doubts, t.force = []string{"x"}, true }, []Action{None}},
		"an empty place stops its deletes":     {[]Change{orphaned, another}, func(t *limits) { t.empty = map[facts.Place]string{here: "x"} }, []Action{None, Delete}},
		"an empty place, forced":               {[]Change{orphaned}, func(t *limits) { t.empty, t.force = map[facts.Place]string{here: "x"}, true }, []Action{Delete}},
		"a failed place stops its deletes":     {[]Change{orphaned, another}, func(t *limits) { t.failed = map[facts.Place]string{here: "x"} }, []Action{None, Delete}},
		"a failed place, forced":               {[]Change{orphaned, another}, func(t *limits) { t.failed, t.force = map[facts.Place]string{here: "x"}, true }, []Action{None, Delete}},
		"a failed place may hold what has no place": {
			[]Change{in(facts.Place{}, orphaned), another}, func(t *limits) { t.failed = map[facts.Place]string{here: "x"} }, []Action{None, Delete},
		},
		"a failed folder stops only its own deletes": {[]Change{orphaned, another}, unseen, []Action{None, Delete}},
		"a failed folder, forced": {[]Change{orphaned, another}, func(t *limits) {
			unseen(t)
			t.force = true
		}, []Action{None, Delete}},
		"a name whose holder has objects in a failed folder": {[]Change{in(there, held)}, func(t *limits) {
			t.mayExist, t.unlisted = func(string) bool { return false }, map[string]string{"f": "x"}
			t.unseenFolder = func(i string) string { return map[string]string{id(9): "f"}[i] }
		}, []Action{None}},
		"certificates are revoked beside a failed folder": {[]Change{revoked}, unseen, []Action{Delete}},
		"past the limit nothing is deleted":               {[]Change{orphaned}, counts(5, 10), []Action{None}},
		"five are below every limit":                      {[]Change{orphaned}, counts(4, 5), []Action{Delete}},
		"six of thirty are twenty percent":                {[]Change{orphaned}, counts(5, 30), []Action{Delete}},
		"six of twenty-nine are more":                     {[]Change{orphaned}, counts(5, 29), []Action{None}},
		"past one account's limit another's deletes":      {[]Change{orphaned, another}, func(t *limits) { t.elsewhere = map[facts.Place]int{here: 9} }, []Action{None, Delete}},
		"what went before counts in its account":          {[]Change{orphaned, another}, func(t *limits) { t.removed = map[string]int{here.Account: 5} }, []Action{None, Delete}},
		"a withheld removal counts for no limit": {[]Change{orphaned, another}, func(t *limits) {
			t.failed, t.elsewhere = map[facts.Place]string{here: "x"}, map[facts.Place]int{here: 20}
		}, []Action{None, Delete}},
		"few in a small account stop no large one": {[]Change{orphaned, another}, func(t *limits) {
			t.recorded, t.elsewhere = map[string]int{here.Account: 5, there.Account: 10}, map[facts.Place]int{here: 4, there: 1}
		}, []Action{None, Delete}},
		"of unknown accounts they count in the whole run": {[]Change{orphaned, another}, func(t *limits) {
			t.recorded, t.removed = map[string]int{"": 6, here.Account: 10, there.Account: 10}, map[string]int{"": 6}
		}, []Action{None, None}},
		"a name whose holder is where nothing goes": {[]Change{in(there, held)}, func(t *limits) {
			t.mayExist, t.empty = func(string) bool { return false }, map[facts.Place]string{here: "x"}
		}, []Action{None}},
		"a name that is held":                      {[]Change{held}, func(*limits) {}, []Action{None}},
		"a name whose holder is gone":              {[]Change{held}, func(t *limits) { t.mayExist = func(string) bool { return false } }, []Action{Create}},
		"an orphan beside its conflict is deleted": {[]Change{{Drift: Drift{InstanceID: id(2), Path: "b", Reason: Conflicting, Action: None}}, orphaned}, func(*limits) {}, []Action{None, Delete}},
	} {
		t.Run(name, func(t *testing.T) {
			terms := base
			c.terms(&terms)
			p := decide(slices.Clone(c.rows), terms)
			var got []Action
			for _, row := range p.changes {
				got = append(got, row.Action)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("want %v, got %v (blocked: %q)", c.want, got, p.blocked)
			}
		})
	}
}

func TestRepair_LeavesAChangedStateToTheNextRun(t *testing.T) {
	w := newWorld(t, 2)
	w.spoil(2)
	stops := func(f facts.Instance) facts.Instance { f.State = facts.Stopping; return f }
	a := w.run(w.reconciler(w.seeing(stops)), Input{Mode: Correct})
	if a.Summary != (Summary{Missing: 1, Failed: 1}) || !strings.Contains(a.Drift[0].Error, "left to the next run") || w.calls["converge"] > 0 {
		t.Errorf("want nothing made for an instance that has stopped, got %+v", a)
	}
}
