package converge_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// world is everything outside in memory: it counts every call, can fail any of them, and can stand still in time.
// What Vault and DynamoDB really do is tested in infra/lab; here it is the order and the faults.
type world struct {
	t *testing.T

	mu       sync.Mutex
	now      time.Time
	objects  map[string]map[string]any // Vault
	entities map[string]bool           // by alias
	records  map[string]ledger.Record
	claims   map[ledger.Name]ledger.Claim
	ec2      map[string]facts.Instance
	calls    []string
	roles    int
	tornDown *time.Time
	ec2Alias string            // of the auth mount
	iamAlias string            // the same
	named    bool              // logins put the instance ID into the alias's metadata
	owners   map[string]string // of PKI mounts, as they are marked
	// fail is asked at every call; its error is given before (took false) or after (took true) the call's effect.
	fail func(n int, call string) (err error, took bool)
	// check is run after every effect.
	check func()
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newWorld(t *testing.T) *world {
	return &world{
		t: t, now: start, objects: map[string]map[string]any{}, entities: map[string]bool{}, records: map[string]ledger.Record{},
		claims: map[ledger.Name]ledger.Claim{}, ec2: map[string]facts.Instance{}, ec2Alias: "instance_id", iamAlias: "role_id",
	}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// do is one call: it may fail before or after its effect.
func (w *world) do(call string, effect func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, call)
	var err error
	var took bool
	if w.fail != nil {
		err, took = w.fail(len(w.calls), call)
	}
	if err != nil && !took {
		return err
	}
	if e := effect(); e != nil {
		return e
	}
	if w.check != nil {
		w.check()
	}
	return err
}

func (w *world) Read(_ context.Context, path string) (out map[string]any, err error) {
	err = w.do("vault read "+path, func() error {
		out = maps.Clone(w.objects[path])
		return nil
	})
	return out, err
}

func (w *world) Write(_ context.Context, path string, fields map[string]any) error {
	return w.do("vault write "+path, func() error {
		stored := maps.Clone(fields)
		if strings.Contains(path, "/role/") {
			if old := w.objects[path]; old != nil {
				stored["role_id"] = old["role_id"]
			} else {
				w.roles++
				stored["role_id"] = fmt.Sprintf("role-%d", w.roles)
			}
		}
		w.objects[path] = stored
		return nil
	})
}

func (w *world) Delete(_ context.Context, path string) error {
	return w.do("vault delete "+path, func() error {
		delete(w.objects, path)
		return nil
	})
}

func (w *world) LoginMount(_ context.Context, mount string) (out vault.LoginMount, err error) {
	err = w.do("vault mount "+mount, func() error {
		out = vault.LoginMount{Path: mount, EC2Alias: w.ec2Alias, IAMAlias: w.iamAlias}
		return nil
	})
	return out, err
}

func (w *world) CutOff(_ context.Context, m vault.LoginMount, cut vault.Cut) (n int, err error) {
	err = w.do("vault cut "+m.Path, func() error {
		for _, a := range cut.Recorded {
			if w.entities[a] && !w.named {
				return fault.Conflictf("nothing shows whose the alias %s is", a)
			}
		}
		for _, a := range slices.Concat(cut.Sure, cut.Recorded) {
			if w.entities[a] {
				delete(w.entities, a)
				n++
			}
		}
		return nil
	})
	return n, err
}

func (w *world) RevokePrefix(_ context.Context, prefix string) error {
	return w.do("vault revoke "+prefix, func() error { return nil })
}

func (w *world) Get(_ context.Context, id string) (out *ledger.Record, err error) {
	err = w.do("ledger get "+id, func() error {
		if r, ok := w.records[id]; ok {
			r.Objects = slices.Clone(r.Objects)
			out = &r
		}
		return nil
	})
	return out, err
}

func (w *world) Holder(_ context.Context, name ledger.Name) (out *ledger.Claim, err error) {
	err = w.do("ledger holder "+name.Text, func() error {
		if c, ok := w.claims[name]; ok {
			out = &c
		}
		return nil
	})
	return out, err
}

func (w *world) TornDown(context.Context) (out *time.Time, err error) {
	err = w.do("ledger torn down", func() error {
		out = w.tornDown
		return nil
	})
	return out, err
}

func (w *world) Put(_ context.Context, p ledger.Write) (out *ledger.Record, err error) {
	err = w.do(fmt.Sprintf("ledger put %s %s", p.New.State, p.New.InstanceID), func() (err error) {
		out, err = ledgertest.Table{Records: w.records, Claims: w.claims}.Put(p, w.now)
		return err
	})
	return out, err
}

func (w *world) Look(_ context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	out := map[facts.Ref]instance.Sighting{}
	for _, r := range refs {
		err := w.do("ec2 look "+r.ID, func() error {
			f, ok := w.ec2[r.ID]
			f.ObservedAt, f.RoleObservedAt = w.now, w.now
			ok = ok && f.Account == r.Account && f.Region == r.Region
			out[r] = instance.Sighting{Found: ok, Facts: f}
			return nil
		})
		if err != nil {
			out[r] = instance.Sighting{Err: err}
		}
	}
	return out
}

// RoleNow is what IAM says now: what the instance in EC2 has.
func (w *world) RoleNow(_ context.Context, f facts.Instance) (arn string, err error) {
	err = w.do("iam role "+f.ID, func() error {
		arn = w.ec2[f.ID].IAMRoleARN
		return nil
	})
	return arn, err
}

// Owner is whom a PKI mount is marked for.
func (w *world) Owner(_ context.Context, mount string) (string, error) { return w.owners[mount], nil }

var both = converge.Duties{Make: true, Remove: true}

// converger gives a converger as provision, deprovision or reconcile has it.
func (w *world) converger(duties converge.Duties, change ...func(*converge.Options)) *converge.Converger {
	w.t.Helper()
	set, err := grant.Load(templates.FS)
	if err != nil {
		w.t.Fatal(err)
	}
	owner := 0
	o := converge.Options{
		Duties: duties, Profiles: set, Realm: grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"},
		Vault: w, Cutter: w, Ledger: w, Instances: w, Mounts: w,
		NewOwner: func() string { owner++; return fmt.Sprintf("owner-%d-%p", owner, w) },
		Now:      w.clock,
	}
	for _, c := range change {
		c(&o)
	}
	return &converge.Converger{Options: o}
}

const (
	idA = "i-0123456789abcdef0"
	idB = "i-0123456789abcdef1"
)

// launch puts a running worker into EC2.
func (w *world) launch(id string, last byte) facts.Instance {
	f := facts.Instance{
		ID: id, State: facts.Running, Account: "123456789012", Region: "us-east-1", VPCID: "vpc-0a1b2c3d",
		PrivateDNSName:        fmt.Sprintf("ip-10-1-1-%d.ec2.internal", last),
		IPv4s:                 []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 1, last})},
		IAMInstanceProfileARN: "arn:aws:iam::123456789012:instance-profile/alice-worker",
		IAMRoleARN:            "arn:aws:iam::123456789012:role/alice-worker",
	}
	w.ec2[id] = f
	return f
}

// setState changes the state of the first instance.
func (w *world) setState(state facts.State) {
	f := w.ec2[idA]
	f.State = state
	w.ec2[idA] = f
}

// handle looks at the instance and converges it, as a function does with an event.
func (w *world) handle(c *converge.Converger, id string, state facts.State) (converge.Outcome, error) {
	w.t.Helper()
	return w.handleAt(c, trigger(id, state, w.clock()))
}

// handleAt is handle with an event of another time or place.
func (w *world) handleAt(c *converge.Converger, req converge.Request) (converge.Outcome, error) {
	w.t.Helper()
	return c.Converge(w.t.Context(), req, w.Look(w.t.Context(), []facts.Ref{req.Ref})[req.Ref])
}

func (w *world) must(c *converge.Converger, id string, state facts.State, want converge.Action) {
	w.t.Helper()
	got, err := w.handle(c, id, state)
	if err != nil || got.Action != want {
		w.t.Fatalf("%s %s: got %q, %v, want %q", id, state, got.Action, err, want)
	}
}

// count is how many calls since the last reset begin with this.
func (w *world) count(prefix string) int {
	n := 0
	for _, c := range w.calls {
		if strings.HasPrefix(c, prefix) {
			n++
		}
	}
	return n
}

func (w *world) index(prefix string) int {
	return slices.IndexFunc(w.calls, func(c string) bool { return strings.HasPrefix(c, prefix) })
}

func (w *world) lastIndex(prefix string) int {
	for i, c := range slices.Backward(w.calls) {
		if strings.HasPrefix(c, prefix) {
			return i
		}
	}
	return -1
}

// granted is an error unless exactly a worker's four objects stand in Vault for the instance, recorded and claimed.
func (w *world) granted(id string) error {
	r := w.records[id]
	var paths []string
	for path := range w.objects {
		if strings.Contains(path, id) {
			paths = append(paths, path)
		}
	}
	if len(paths) != 4 || r.State != ledger.Active || len(r.Objects) != 4 || r.RoleID("auth/aws/role/"+id) == "" || r.LeaseOwner != "" {
		return fmt.Errorf("instance %s: objects %v, record %+v", id, paths, r)
	}
	for _, o := range r.Objects {
		if w.objects[o.Path] == nil {
			return fmt.Errorf("instance %s: %s is recorded and not there", id, o.Path)
		}
	}
	for _, name := range r.Claims {
		if c := w.claims[name]; c.InstanceID != id {
			return fmt.Errorf("instance %s: its name %v is claimed by %q", id, name, c.InstanceID)
		}
	}
	if len(r.Claims) == 0 {
		return fmt.Errorf("instance %s: it holds no name", id)
	}
	return nil
}

// nothing is an error if anything but the tombstone is left of the instance.
func (w *world) nothing(id string) error {
	for path := range w.objects {
		if strings.Contains(path, id) {
			return fmt.Errorf("%s is left in Vault", path)
		}
	}
	for n, c := range w.claims {
		if c.InstanceID == id {
			return fmt.Errorf("%v is still claimed", n)
		}
	}
	if w.entities[id] {
		return fmt.Errorf("the entity of %s is left: its tokens live", id)
	}
	if r := w.records[id]; r.State != ledger.Deleted || len(r.Objects) > 0 || r.LeaseOwner != "" {
		return fmt.Errorf("the record is no tombstone: %+v", r)
	}
	return nil
}

var errDown = errors.New("down")

func trigger(id string, state facts.State, at time.Time) converge.Request {
	return converge.Request{Ref: facts.Ref{ID: id, Place: facts.Place{Account: "123456789012", Region: "us-east-1"}}, Told: state, At: at}
}

func sighting(f facts.Instance) instance.Sighting { return instance.Sighting{Found: true, Facts: f} }
