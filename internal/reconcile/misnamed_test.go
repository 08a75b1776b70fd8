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

// doors makes what a function that was taken over could leave to come back by, and others' objects beside it.
func (w *world) doors() {
	for _, path := range []string{doorPolicy, doorLogin, doorRole} {
		w.Objects[path] = map[string]any{}
	}
	for _, path := range []string{"sys/policies/acl/admin", "sys/policies/acl/i-door", "auth/aws/role/operators", "alice_cluster/pki/k8s/roles/server"} {
		w.Objects[path] = map[string]any{}
	}
}

// doorRows are the rows without an instance.
func doorRows(a Answer) []Drift {
	return slices.DeleteFunc(slices.Clone(a.Drift), func(d Drift) bool { return d.InstanceID != "" })
}

func isToldOfDoors(a Answer) bool {
	rows := doorRows(a)
	want := []Drift{{Object: grant.KindPKIRole, Path: doorRole}, {Object: grant.KindAuthRole, Path: doorLogin}, {Object: grant.KindPolicy, Path: doorPolicy}}
	return slices.EqualFunc(rows, want, func(d, w Drift) bool {
		return d.Object == w.Object && d.Path == w.Path && d.Reason == Conflicting && d.Action == None && d.Fields != nil && strings.Contains(d.Error, "delete it by hand")
	})
}

func TestMisnamed_IsToldAndNeverRemoved(t *testing.T) {
	for _, mode := range []Mode{Detect, Correct} {
		w := newWorld(t, 3)
		w.doors()
		before := maps.Clone(w.Objects)
		var witnessed []string
		observer := Observer{Log: slog.New(slog.DiscardHandler), Drift: func(_ context.Context, d Drift, _ facts.Place, _ string) { witnessed = append(witnessed, d.Path) }}
		a := w.reconciler(adopting).Run(t.Context(), Input{Mode: mode, Force: true}, w.converger(both, true), observer)
		if !isToldOfDoors(a) || len(a.Drift) != 3 || a.Summary != (Summary{Conflicting: 3}) || a.Blocked || len(witnessed) != 3 {
			t.Errorf("%s: want the three told and no other's, got %+v, witnessed %q", mode, a, witnessed)
		}
		if touched := w.touched(before); len(touched) > 0 || w.calls["get"] > 0 {
			t.Errorf("%s: want nothing done about them, touched %q, %d records read", mode, touched, w.calls["get"])
		}
		for _, in := range []Input{{Mode: mode, InstanceIDs: []string{id(0)}}, {Mode: mode, Profile: "alice_cluster-worker"}} {
			if a := w.reconcile(in); len(a.Drift) > 0 {
				t.Errorf("%+v: want them told by runs for the whole fleet only\n%s", in, told(a))
			}
		}
	}
}

func TestMisnamed_CountsOnceOverStretchesAndInvocations(t *testing.T) {
	w := newWorld(t, 60)
	w.doors()
	spoiled := w.spoil(1)
	w.tick["converge"] = 30 * time.Second
	rows := 0
	a, invocations := w.goOn(Input{Mode: Correct, Cursor: &Cursor{Limit: 10}}, func(a Answer) { rows += len(doorRows(a)) })
	if a.Summary != (Summary{Missing: spoiled, Corrected: spoiled, Conflicting: 3}) || rows != 3 || invocations < 2 {
		t.Errorf("want three rows once over %d invocations, got %d\n%s", invocations, rows, told(a))
	}
}

func TestTeardown_TellsWhatIsMisnamed(t *testing.T) {
	w := newWorld(t, 3)
	w.doors()
	a := w.tearDown(Input{})
	if !isToldOfDoors(a) || a.Summary.Corrected != 3 || a.Summary.Conflicting != 3 || w.Objects[doorPolicy] == nil || len(w.live()) > 0 {
		t.Errorf("want the instances removed and the three told as left, got %+v", a)
	}
	if again := w.tearDown(Input{InstanceIDs: []string{id(0)}}); len(again.Drift) > 0 {
		t.Errorf("want them not told again when some instances are looked at once more, got %+v", again)
	}
}
