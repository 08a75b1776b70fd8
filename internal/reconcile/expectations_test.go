package reconcile

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// under returns the paths in Vault that bear an instance's ID, sorted.
func (w *world) under(instanceID string) []string {
	var paths []string
	for path := range w.Objects {
		if strings.Contains(path, instanceID) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// touched returns the paths that were made, changed or deleted in Vault since it was as before.
func (w *world) touched(before map[string]map[string]any) []string {
	var out []string
	for path, fields := range before {
		if !reflect.DeepEqual(w.Objects[path], fields) {
			out = append(out, path)
		}
	}
	for path := range w.Objects {
		if before[path] == nil {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

// granted returns an error unless Vault holds the whole grant of a running worker, recorded and claimed.
func (w *world) granted(instanceID string) error {
	r := w.Records[instanceID]
	for _, name := range r.Claims {
		if c := w.Claims[name]; c.InstanceID != instanceID {
			return fmt.Errorf("instance %s: its name %v is claimed by %q", instanceID, name, c.InstanceID)
		}
	}
	p, err := w.profiles.Match(w.ec2[instanceID])
	if err != nil || p == nil {
		return fmt.Errorf("instance %s: profile %v, %w", instanceID, p, err)
	}
	g, err := p.Render(w.ec2[instanceID], w.realm)
	if err != nil {
		return err
	}
	for _, o := range g.All() {
		if d := o.Differences(w.Objects[o.Path]); w.Objects[o.Path] == nil || len(d) > 0 || !r.Has(o.Path) {
			return fmt.Errorf("instance %s: %s: it exists: %v, it differs in %v, recorded: %v", instanceID, o.Path, w.Objects[o.Path] != nil, d, r.Has(o.Path))
		}
	}
	if r.State != ledger.Active || r.LeaseOwner != "" {
		return fmt.Errorf("instance %s: want its record active and free, got %+v", instanceID, r)
	}
	return nil
}

// removed returns an error if anything but the tombstone is left of an instance.
func (w *world) removed(instanceID string) error {
	r := w.Records[instanceID]
	if left := w.under(instanceID); len(left) > 0 || r.State != ledger.Deleted || len(r.Objects) > 0 {
		return fmt.Errorf("instance %s: %q are left in Vault, the record is %+v", instanceID, left, r)
	}
	for name, c := range w.Claims {
		if _, former := r.HeldUntil(name); c.InstanceID == instanceID && !former {
			return fmt.Errorf("instance %s still holds the name %v", instanceID, name)
		}
	}
	if !slices.Contains(w.cut, instanceID) {
		return fmt.Errorf("instance %s: its tokens were not cut, only %q", instanceID, w.cut)
	}
	return nil
}

// wantRemoved fails unless nothing but the tombstone is left of an instance. why says when; a is the answer of the last run.
func (w *world) wantRemoved(instanceID, why string, a Answer) {
	w.t.Helper()
	if err := w.removed(instanceID); err != nil {
		w.t.Errorf("%s: %v\n%s", why, err, answerText(a))
	}
}

// wantUntouched fails if Vault is not as before, or a token was cut.
func (w *world) wantUntouched(before map[string]map[string]any, why string, a Answer) {
	w.t.Helper()
	if touched := w.touched(before); len(touched)+len(w.cut)+len(w.deleted) > 0 {
		w.t.Errorf("%s: want nothing touched, touched %q, deleted %q, cut %q\n%s", why, touched, w.deleted, w.cut, answerText(a))
	}
}

// wantNoDrift fails if a run has a row. It returns the run's answer.
func (w *world) wantNoDrift(in Input, why string) Answer {
	w.t.Helper()
	a := w.reconcile(in)
	if len(a.Drift) > 0 {
		w.t.Errorf("%s: want no row, got\n%s", why, answerText(a))
	}
	return a
}

// wantAllConflicting corrects twice, so that the second run sees the result of the first. It fails unless each run has a
// conflicting row for each of n instances, and touches nothing.
func (w *world) wantAllConflicting(n int, change ...func(*Options)) {
	w.t.Helper()
	before := maps.Clone(w.Objects)
	for range 2 {
		a := w.reconcile(Input{Mode: Correct}, change...)
		w.wantUntouched(before, "instances of another deployment", a)
		if a.Summary != (Summary{Conflicting: n}) {
			w.t.Errorf("want one row for each of the %d and nothing done, got\n%s", n, answerText(a))
		}
		w.now = w.now.Add(time.Hour)
	}
}

// answerText returns an answer for the message of a failure: its first rows and its counts.
func answerText(a Answer) string {
	const shown = 6
	var out strings.Builder
	for i, d := range a.Drift {
		if i == shown {
			fmt.Fprintf(&out, "… %d rows in all\n", len(a.Drift))
			break
		}
		fmt.Fprintf(&out, "%s %s %s %s %s %q\n", d.InstanceID, d.Object, d.Reason, d.Action, d.Path, d.Error)
	}
	fmt.Fprintf(&out, "%+v blocked: %v %q cursor: %+v", a.Summary, a.Blocked, a.BlockedReason, a.Cursor)
	return out.String()
}
