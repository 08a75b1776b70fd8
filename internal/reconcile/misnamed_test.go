package reconcile

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

const (
	doorPolicy = "sys/policies/acl/ec2-i-door"
	doorLogin  = "auth/aws/role/i-door"
	doorRole   = "alice_cluster/pki/k8s/roles/i-door"
)

// doors makes objects by which an attacker could come back who once controlled a function, and others' objects beside them.
func (w *world) doors() {
	for _, path := range []string{doorPolicy, doorLogin, doorRole} {
		w.Objects[path] = map[string]any{}
	}
	for _, path := range []string{"sys/policies/acl/admin", "sys/policies/acl/i-door", "auth/aws/role/operators", "alice_cluster/pki/k8s/roles/server"} {
		w.Objects[path] = map[string]any{}
	}
}

// doorRows returns the rows without an instance.
func doorRows(a Answer) []Drift {
	return slices.DeleteFunc(slices.Clone(a.Drift), func(d Drift) bool { return d.InstanceID != "" })
}

func hasDoorRows(a Answer) bool {
	rows := doorRows(a)
	want := []Drift{{Object: grant.KindPKIRole, Path: doorRole}, {Object: grant.KindAuthRole, Path: doorLogin}, {Object: grant.KindPolicy, Path: doorPolicy}}
	return slices.EqualFunc(rows, want, func(d, w Drift) bool {
		return d.Object == w.Object && d.Path == w.Path && d.Reason == Conflicting && d.Action == None && d.Fields != nil && strings.Contains(d.Error, "delete it by hand")
	})
}

func TestMisnamed_IsReportedNeverRemoved(t *testing.T) {
	for _, mode := range []Mode{Detect, Correct} {
		w := newWorld(t, 3)
		w.doors()
		before := maps.Clone(w.Objects)
		var observed []string
		observer := Observer{Log: slog.New(slog.DiscardHandler), Drift: func(_ context.Context, d Drift, _ facts.Place, _ string) { observed = append(observed, d.Path) }}
		a := w.reconciler(adopting).Run(t.Context(), Input{Mode: mode, Force: true}, w.converger(both, true), observer)
		if !hasDoorRows(a) || len(a.Drift) != 3 || a.Summary != (Summary{Conflicting: 3}) || a.Blocked || len(observed) != 3 {
			t.Errorf("%s: want one row for each of the three, and none for others' objects, got %+v, observed %q", mode, a, observed)
		}
		if touched := w.touched(before); len(touched) > 0 || w.calls["get"] > 0 {
			t.Errorf("%s: want nothing touched and no record read, touched %q, %d records read", mode, touched, w.calls["get"])
		}
		for _, in := range []Input{{Mode: mode, InstanceIDs: []string{id(0)}}, {Mode: mode, Profile: "alice_cluster-worker"}} {
			w.wantNoDrift(in, "in a run for some instances")
		}
	}
}

func TestMisnamed_CountsOnceInARun(t *testing.T) {
	w := newWorld(t, 60)
	w.doors()
	spoiled := w.spoil(1)
	w.tick["converge"] = 30 * time.Second
	rows := 0
	a, invocations := w.goOn(Input{Mode: Correct, Cursor: &Cursor{Limit: 10}}, func(a Answer) { rows += len(doorRows(a)) })
	if a.Summary != (Summary{Missing: spoiled, Corrected: spoiled, Conflicting: 3}) || rows != 3 || invocations < 2 {
		t.Errorf("want three rows, each once, over %d invocations, got %d\n%s", invocations, rows, answerText(a))
	}
}

func TestTeardown_ReportsMisnamedObjects(t *testing.T) {
	w := newWorld(t, 3)
	w.doors()
	a := w.tearDown(Input{})
	if !hasDoorRows(a) || a.Summary.Corrected != 3 || a.Summary.Conflicting != 3 || w.Objects[doorPolicy] == nil || len(w.live()) > 0 {
		t.Errorf("want the instances removed, and the three left with a row each, got %+v", a)
	}
	if again := w.tearDown(Input{InstanceIDs: []string{id(0)}}); len(again.Drift) > 0 {
		t.Errorf("want no rows of them in a run for some instances, got %+v", again)
	}
}
