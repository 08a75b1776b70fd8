package reconcile

import (
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// lag has the first reads of each path show an older object.
func (w *world) lag(reads int, older func(path string) map[string]any) {
	seen := map[string]int{}
	var present map[string]any
	w.before = func(kind, path string) {
		if kind != "read" {
			return
		}
		present = w.Objects[path]
		if seen[path]++; seen[path] <= reads {
			w.Objects[path] = older(path)
		}
	}
	w.after = func(kind, path string) {
		if kind == "read" {
			w.Objects[path] = present
		}
	}
}

func TestCompare_LooksAgainAtWhatWasJustMade(t *testing.T) {
	absent := func(string) map[string]any { return nil }
	for name, row := range map[string]struct {
		reads int
		older func(path string) map[string]any
		made  time.Duration // before the run
		rows  int
	}{
		"absent at the first look":               {1, absent, time.Second, 0},
		"absent at two looks":                    {2, absent, time.Second, 0},
		"absent at each look":                    {9, absent, time.Second, 4},
		"another's policy at the first look":     {1, anothersPolicy, time.Second, 0},
		"absent, and made long ago":              {1, absent, time.Hour, 4},
		"as it should be, whenever it was made":  {0, absent, time.Second, 0},
		"as it should be, and was made long ago": {0, absent, time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 1)
			r := w.Records[id(0)]
			made := w.now.Add(-row.made)
			r.MadeAt = &made
			w.Records[id(0)] = r
			w.lag(row.reads, row.older)
			a := w.reconcile(Input{Mode: Detect})
			if len(a.Drift) != row.rows {
				t.Errorf("want %d rows, got\n%s", row.rows, answerText(a))
			}
			if want := 4; row.rows == 0 && row.reads == 0 && w.calls["read"] != want {
				t.Errorf("want %d reads of a fleet without drift, got %d", want, w.calls["read"])
			}
		})
	}
}

// anothersPolicy is a policy of another deployment at a policy's path, and nothing at others.
func anothersPolicy(path string) map[string]any {
	if grant.KindOf(path, grant.Mounts{}) != grant.KindPolicy {
		return nil
	}
	return map[string]any{"policy": grant.Marker{Deployment: "another", InstanceID: id(0), Profile: "a-b"}.String()}
}

// A removal's record is young, and its objects are still shown: by a list, and by reads.
func TestCompare_LeavesWhatWasJustRemoved(t *testing.T) {
	w := newWorld(t, 6)
	w.terminate(0)
	listed := map[string]map[string]any{}
	for path, object := range w.Objects {
		listed[path] = object
	}
	w.remove(id(0))
	w.Objects = listed
	if a := w.reconcile(Input{Mode: Detect}); len(a.Drift) != 0 {
		t.Errorf("want no row of an instance that was removed a moment ago, got\n%s", answerText(a))
	}
}
