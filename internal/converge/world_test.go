package converge_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance/instancetest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// world is Vault, the ledger and EC2 in memory, and a clock. It counts every call and can make any of them fail. The order of
// calls and their faults are tested here; infra/lab tests what Vault and DynamoDB do.
type world struct {
	t *testing.T
	*vaulttest.Vault
	*ledgertest.Table

	mu     sync.Mutex
	now    time.Time
	ec2    map[string]facts.Instance
	calls  []string
	owners map[string]string // of PKI mounts, by their marks
	// fail is asked at every call; its error is returned before (took false) or after (took true) the call's effect.
	fail func(n int, call string) (err error, took bool)
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newWorld(t *testing.T) *world {
	return &world{t: t, Vault: vaulttest.New(), Table: ledgertest.New(), now: start, ec2: map[string]facts.Instance{}}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// calling returns the hook of a part's calls.
func (w *world) calling(part string) func(kind, what string, effect func() error) error {
	return func(kind, what string, effect func() error) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		call := strings.TrimSpace(part + " " + kind + " " + what)
		w.calls = append(w.calls, call)
		var err error
		var took bool
		if w.fail != nil {
			err, took = w.fail(len(w.calls), call)
		}
		if err != nil && !took {
			return err
		}
		return cmp.Or(effect(), err)
	}
}

func (w *world) instances() instancetest.EC2 {
	return instancetest.EC2{Instances: w.ec2, Now: func() time.Time { return w.now }, Do: w.calling("ec2")}
}

func alias(name string) vaulttest.Alias { return vaulttest.Alias{Mount: "aws", Name: name} }

// logIn makes the entities of logins under aliases that name no instance.
func (w *world) logIn(names ...string) {
	for _, name := range names {
		w.Add(alias(name), "")
	}
}

// hasTokens reports whether tokens live of logins under an alias.
func (w *world) hasTokens(name string) bool {
	_, exists := w.Entities[alias(name)]
	return exists
}

// Owner returns the deployment that a PKI mount is marked for.
func (w *world) Owner(_ context.Context, mount string) (string, error) { return w.owners[mount], nil }

var both = converge.Duties{Make: true, Remove: true}

// converger returns a converger with the duties of a function.
func (w *world) converger(duties converge.Duties, change ...func(*converge.Options)) *converge.Converger {
	w.t.Helper()
	set, err := grant.Load(templates.FS)
	if err != nil {
		w.t.Fatal(err)
	}
	owner := 0
	vault := vaulttest.Client{Vault: w.Vault, Do: w.calling("vault")}
	o := converge.Options{
		Duties: duties, Profiles: set, Realm: grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"},
		Vault: vault, Cutter: vault, Ledger: ledgertest.Client{Table: w.Table, Now: func() time.Time { return w.now }, Do: w.calling("ledger")},
		Instances: w.instances(), Mounts: w,
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

// launch has EC2 show a running worker.
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
	return c.Converge(w.t.Context(), req, w.instances().Look(w.t.Context(), []facts.Ref{req.Ref})[req.Ref])
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
	r := w.Records[id]
	var paths []string
	for path := range w.Objects {
		if strings.Contains(path, id) {
			paths = append(paths, path)
		}
	}
	if len(paths) != 4 || r.State != ledger.Active || len(r.Objects) != 4 || r.RoleID("auth/aws/role/"+id) == "" || r.LeaseOwner != "" {
		return fmt.Errorf("instance %s: objects %v, record %+v", id, paths, r)
	}
	for _, o := range r.Objects {
		if w.Objects[o.Path] == nil {
			return fmt.Errorf("instance %s: %s is recorded and not there", id, o.Path)
		}
	}
	for _, name := range r.Claims {
		if c := w.Claims[name]; c.InstanceID != id {
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
	for path := range w.Objects {
		if strings.Contains(path, id) {
			return fmt.Errorf("%s is left in Vault", path)
		}
	}
	for n, c := range w.Claims {
		if c.InstanceID == id {
			return fmt.Errorf("%v is still claimed", n)
		}
	}
	if w.hasTokens(id) {
		return fmt.Errorf("the entity of %s is left: its tokens live", id)
	}
	if r := w.Records[id]; r.State != ledger.Deleted || len(r.Objects) > 0 || r.LeaseOwner != "" {
		return fmt.Errorf("the record is no tombstone: %+v", r)
	}
	return nil
}

var errDown = errors.New("down")

func trigger(id string, state facts.State, at time.Time) converge.Request {
	return converge.Request{Ref: facts.Ref{ID: id, Place: facts.Place{Account: "123456789012", Region: "us-east-1"}}, Told: state, At: at}
}

func sighting(f facts.Instance) instance.Sighting { return instance.Sighting{Found: true, Facts: f} }
