package reconcile

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// Here stands what the real lifecycle needs of the world: what reconcile decides and what lifecycle then does are each
// right by themselves, and what is removed in the end comes of both.

func (w *world) Write(_ context.Context, path string, fields map[string]any) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.objects[path] = maps.Clone(fields)
	return w.do("write")
}

func (w *world) Delete(_ context.Context, path string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deleted = append(w.deleted, path)
	delete(w.objects, path)
	return w.do("delete")
}

func (w *world) LoginMount(_ context.Context, mount string) (vault.LoginMount, error) {
	return vault.LoginMount{Path: mount, EC2Alias: "instance_id", IAMAlias: "role_id"}, nil
}

// RoleNow is what every look says as well.
func (i instances) RoleNow(_ context.Context, f facts.Instance) (string, error) {
	return f.IAMRoleARN, nil
}

// Owner: no PKI mount is marked.
func (w *world) Owner(context.Context, string) (string, error) { return "", nil }

func (w *world) CutOff(_ context.Context, _ vault.LoginMount, cut vault.Cut) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = append(w.cut, slices.Concat(cut.Sure, cut.Recorded)...)
	return 0, nil
}

// TearDown is in force at once: what waits is not tested here.
func (w *world) TearDown(context.Context) (time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tornDown == nil {
		since := w.now.Add(-ledger.TeardownTime)
		w.tornDown = &since
	}
	return *w.tornDown, w.do("tear down")
}

func (w *world) TornDown(context.Context) (*time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tornDown, w.do("torn down")
}

func (w *world) RevokePrefix(context.Context, string) error { return nil }

func (w *world) Put(_ context.Context, p ledger.Write) (*ledger.Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, err := ledgertest.Table{Records: w.records, Claims: w.claims}.Put(p, w.now)
	if err != nil {
		return nil, err
	}
	return r, w.do("put")
}

var both = converge.Duties{Make: true, Remove: true}

// converger is the real lifecycle.
func (w *world) converger(duties converge.Duties, adopt bool) *converge.Converger {
	return &converge.Converger{Options: converge.Options{
		Duties: duties, Profiles: w.profiles, Realm: w.realm, Vault: w, Cutter: w, Ledger: w, Instances: instances{w}, Mounts: w,
		Adopt: adopt, NewOwner: rand.Text, Now: w.clock,
	}}
}

// reconcile runs with the real lifecycle.
func (w *world) reconcile(in Input, change ...func(*Options)) Answer {
	w.t.Helper()
	r := w.reconciler(change...)
	return r.Run(w.t.Context(), in, w.converger(both, r.Adopt), Observer{Log: slog.New(slog.DiscardHandler)})
}

func adopting(o *Options) { o.Adopt = true }

// under is what stands in Vault under an instance's name, sorted.
func (w *world) under(instanceID string) []string {
	var paths []string
	for path := range w.objects {
		if strings.Contains(path, instanceID) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	return paths
}

// touched names what was made, changed or deleted in Vault since it was as before.
func (w *world) touched(before map[string]map[string]any) []string {
	var out []string
	for path, fields := range before {
		if !reflect.DeepEqual(w.objects[path], fields) {
			out = append(out, path)
		}
	}
	for path := range w.objects {
		if before[path] == nil {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

// granted is an error unless the whole grant of a running worker stands in Vault, recorded and claimed.
func (w *world) granted(instanceID string) error {
	r := w.records[instanceID]
	for _, name := range r.Claims {
		if c := w.claims[name]; c.InstanceID != instanceID {
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
		if d := o.Differences(w.objects[o.Path]); w.objects[o.Path] == nil || len(d) > 0 || !r.Has(o.Path) {
			return fmt.Errorf("instance %s: %s: it stands there: %v, it differs in %v, recorded: %v", instanceID, o.Path, w.objects[o.Path] != nil, d, r.Has(o.Path))
		}
	}
	if r.State != ledger.Active || r.LeaseOwner != "" {
		return fmt.Errorf("instance %s: want its record active and free, got %+v", instanceID, r)
	}
	return nil
}

// removed is an error if anything but the tombstone is left of an instance.
func (w *world) removed(instanceID string) error {
	r := w.records[instanceID]
	if left := w.under(instanceID); len(left) > 0 || r.State != ledger.Deleted || len(r.Objects) > 0 {
		return fmt.Errorf("instance %s: %q are left in Vault, the record is %+v", instanceID, left, r)
	}
	for name, c := range w.claims {
		if _, former := r.HeldUntil(name); c.InstanceID == instanceID && !former {
			return fmt.Errorf("instance %s still holds the name %v", instanceID, name)
		}
	}
	if !slices.Contains(w.cut, instanceID) {
		return fmt.Errorf("instance %s: its tokens were not cut, only %q", instanceID, w.cut)
	}
	return nil
}

// told is an answer as a failure's message shows it: its first rows, and what it counts.
func told(a Answer) string {
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
