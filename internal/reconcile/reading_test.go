package reconcile

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// A fleet of 100,000 must be one stretch: each further stretch reads everything again.
func TestFleet_IsReadOnce(t *testing.T) {
	if stretch < 100_000 {
		t.Errorf("want a fleet of 100,000 in one stretch, got stretches of %d", stretch)
	}
	const n, pages = 95, 10
	w := newWorld(t, n)
	w.spoil(7)
	delete(w.ec2, id(3))
	a := w.run(w.reconciler(), Input{Mode: Detect})
	if a.Scanned.Records != n || len(a.Drift) == 0 {
		t.Fatalf("want the whole fleet compared, got\n%s", answerText(a))
	}
	if w.calls["scan"] != 1 {
		t.Errorf("want the ledger scanned once, got %d", w.calls["scan"])
	}
	if got := w.calls["list "+here.Region]; got != pages {
		t.Errorf("want each of %d pages of EC2 read once, got %d", pages, got)
	}
	lists := 0
	for call, times := range w.calls {
		if strings.HasPrefix(call, "list ") && call != "list "+here.Region {
			lists++
			if times != 1 {
				t.Errorf("want one %s, got %d", call, times)
			}
		}
	}
	if want := 3 + len(w.profiles.OutputFolders()); lists != want {
		t.Errorf("want %d folders listed, got %d", want, lists)
	}
}

// Rows take more memory than records: a fleet in which everything differs is compared in shorter stretches.
func TestManyRows_ShortenTheStretch(t *testing.T) {
	const n, each = 400, heldRows/400 + 1
	w := newWorld(t, n)
	for i := range n {
		for k := range each {
			path := grant.PKIRolePath("alice_cluster/pki/k8s", grant.ObjectName(id(i), fmt.Sprintf("x%d", k)))
			w.Objects[path] = map[string]any{}
		}
	}
	a := w.run(w.reconciler(), Input{Mode: Detect})
	if a.Blocked || a.Cursor != nil || a.Summary != (Summary{Conflicting: n * each}) {
		t.Errorf("want each of %d rows once, got blocked %v (%s), %+v", n*each, a.Blocked, a.BlockedReason, a.Summary)
	}
	if w.calls["scan"] < 3 {
		t.Errorf("want the first stretch given up and at least two shorter ones, got %d scans", w.calls["scan"])
	}
}

// A comparison that leaves little of the invocation for repairs is not repeated at the same length for the few that are made.
func TestStretch_ShrinksWhenRepairsDoNotKeepUp(t *testing.T) {
	const n = 400
	w := newWorld(t, n)
	w.spoil(1)
	w.tick["read"], w.tick["converge"] = 500*time.Millisecond, 5*time.Second
	a := w.run(w.reconciler(), Input{Mode: Correct})
	if a.Cursor == nil || a.Cursor.After == "" || a.Summary.Corrected == 0 {
		t.Fatalf("want some repaired and the rest left, got\n%s", answerText(a))
	}
	if a.Cursor.Limit != n/2 {
		t.Errorf("want half of the fleet compared next, got %d", a.Cursor.Limit)
	}
}
