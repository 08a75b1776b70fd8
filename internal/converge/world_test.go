package converge_test

import (
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
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance/instancetest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
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
	// fail is asked before every call; its error is the call's.
	fail func(call string) error
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func newWorld(t *testing.T) *world {
	return &world{t: t, Vault: vaulttest.New(), Table: ledgertest.New(), now: start, ec2: map[string]facts.Instance{}}
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
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
		if w.fail != nil {
			if err := w.fail(call); err != nil {
				return err
			}
		}
		return effect()
	}
}

// failAt makes every call that begins with a prefix fail.
func (w *world) failAt(prefix string, err error) {
	w.fail = func(call string) error {
		if strings.HasPrefix(call, prefix) {
			return err
		}
		return nil
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

// roleID returns the ID of idA's auth role in its record.
func (w *world) roleID() string {
	r := w.Records[idA]
	return r.RoleID(roleA)
}

// hasTokens reports whether tokens live of logins under an alias.
func (w *world) hasTokens(name string) bool {
	_, exists := w.Entities[alias(name)]
	return exists
}

// Owner returns the deployment that a PKI mount is marked for.
func (w *world) Owner(_ context.Context, mount string) (string, error) { return w.owners[mount], nil }

// The duties of provision, deprovision and reconcile.
var (
	mayMake   = converge.Duties{Make: true}
	mayRemove = converge.Duties{Remove: true}
	both      = converge.Duties{Make: true, Remove: true}
)

// converger returns a converger with the duties of a function.
func (w *world) converger(duties converge.Duties, change ...func(*converge.Options)) *converge.Converger {
	w.t.Helper()
	set, err := grant.Load(templates.FS)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, p := range set.Profiles {
		p.Addresses = facts.OwnAll // so that a test changes a grant by an address
	}
	owner := 0
	client := vaulttest.Client{Vault: w.Vault, Do: w.calling("vault")}
	o := converge.Options{
		Duties: duties, Profiles: set, Realm: grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"},
		Vault: client, Cutter: client, Ledger: ledgertest.Client{Table: w.Table, Now: func() time.Time { return w.now }, Do: w.calling("ledger")},
		Instances: w.instances(), Mounts: w, Looks: vault.Looks{Pause: time.Nanosecond},
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

// launched returns a world in which instance A runs, and a converger.
func launched(t *testing.T, duties converge.Duties, change ...func(*converge.Options)) (*world, *converge.Converger) {
	t.Helper()
	w := newWorld(t)
	w.launch(idA, 4)
	return w, w.converger(duties, change...)
}

// provisioned returns a world in which instance A has its grant, and the converger that made it.
func provisioned(t *testing.T, duties converge.Duties, change ...func(*converge.Options)) (*world, *converge.Converger) {
	t.Helper()
	w, c := launched(t, duties, change...)
	w.must(c, idA, facts.Running, converge.Provisioned)
	return w, c
}

// show changes the facts that EC2 shows of an instance.
func (w *world) show(id string, change func(*facts.Instance)) {
	f := w.ec2[id]
	change(&f)
	w.ec2[id] = f
}

// setState changes the state of instance A.
func (w *world) setState(state facts.State) { w.show(idA, func(f *facts.Instance) { f.State = state }) }

// unmatch changes the role of instance A to one that no profile fits.
func (w *world) unmatch() {
	w.show(idA, func(f *facts.Instance) { f.IAMRoleARN = "arn:aws:iam::123456789012:role/other" })
}

// addAddress gives an instance another address, and with it a changed grant.
func addAddress(f *facts.Instance) { f.IPv4s = append(f.IPv4s, netip.MustParseAddr("10.1.1.77")) }

// edit changes idA's record by hand.
func (w *world) edit(change func(*ledger.Record)) {
	r := w.Records[idA]
	change(&r)
	w.Records[idA] = r
}

// handle looks at the instance and converges it, as a function does with an event of now.
func (w *world) handle(c *converge.Converger, id string, state facts.State) (converge.Outcome, error) {
	w.t.Helper()
	return w.handleAt(c, w.event(id, state))
}

// handleAt is handle with any request.
func (w *world) handleAt(c *converge.Converger, req converge.Request) (converge.Outcome, error) {
	w.t.Helper()
	return c.Converge(w.t.Context(), req, w.instances().Describe(w.t.Context(), []facts.Ref{req.Ref})[req.Ref])
}

func (w *world) must(c *converge.Converger, id string, state facts.State, want converge.Action) converge.Outcome {
	w.t.Helper()
	return w.mustAt(c, w.event(id, state), want)
}

// mustAt is must with any request.
func (w *world) mustAt(c *converge.Converger, req converge.Request, want converge.Action) converge.Outcome {
	w.t.Helper()
	got, err := w.handleAt(c, req)
	if err != nil || got.Action != want {
		w.t.Fatalf("%+v: want %q, got %+v, %v", req, want, got, err)
	}
	return got
}

// wantFault fails unless a request ends with a fault of this kind that says all of these texts.
func (w *world) wantFault(c *converge.Converger, req converge.Request, kind fault.Kind, why string, says ...string) {
	w.t.Helper()
	if got, err := w.handleAt(c, req); !isFault(err, kind, says...) {
		w.t.Errorf("%s: want %s that says %q, got %+v, %v", why, kind, says, got, err)
	}
}

// breakOff makes a request fail, because every call that begins with prefix fails.
func (w *world) breakOff(c *converge.Converger, req converge.Request, prefix string, err error) {
	w.t.Helper()
	w.failAt(prefix, err)
	w.wantFault(c, req, fault.Retry, "the run breaks off")
	w.fail = nil
}

// mustRemove fails unless instance A, as EC2 shows it, loses everything but its tombstone.
func (w *world) mustRemove(c *converge.Converger) {
	w.t.Helper()
	w.must(c, idA, w.ec2[idA].State, converge.Deprovisioned)
	w.wantNothing(idA)
}

// mustEnd is mustRemove once EC2 shows instance A as terminated.
func (w *world) mustEnd(c *converge.Converger) {
	w.t.Helper()
	w.setState(facts.Terminated)
	w.mustRemove(c)
}

// count returns how many calls since the last reset begin with a prefix.
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

// granted returns an error unless Vault holds exactly a worker's four objects for the instance, recorded and claimed.
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
			return fmt.Errorf("instance %s: %s is recorded and does not exist", id, o.Path)
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

// nothing returns an error if anything but the tombstone is left of the instance.
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
		return fmt.Errorf("the entity of %s is left, with its tokens", id)
	}
	if r := w.Records[id]; r.State != ledger.Deleted || len(r.Objects) > 0 || r.LeaseOwner != "" {
		return fmt.Errorf("the record of %s is no tombstone: %+v", id, r)
	}
	return nil
}

// wantGranted fails unless the instance has a worker's grant.
func (w *world) wantGranted(id string) {
	w.t.Helper()
	if err := w.granted(id); err != nil {
		w.t.Error(err)
	}
}

// wantNothing fails unless nothing but the tombstone is left of the instance.
func (w *world) wantNothing(id string) {
	w.t.Helper()
	if err := w.nothing(id); err != nil {
		w.t.Error(err)
	}
}

var errDown = errors.New("down")

// isFault reports whether an error has a kind and says all of these texts.
func isFault(err error, kind fault.Kind, says ...string) bool {
	unsaid := func(text string) bool { return !strings.Contains(err.Error(), text) }
	return err != nil && fault.KindOf(err) == kind && !slices.ContainsFunc(says, unsaid)
}

// marked returns a policy with a marker.
func marked(deployment, id string) map[string]any {
	return map[string]any{"policy": grant.Marker{Deployment: deployment, InstanceID: id, Profile: "a-b"}.String()}
}

// event returns the request of an event of now.
func (w *world) event(id string, state facts.State) converge.Request {
	return request(id, state, w.clock())
}

// request returns the request of an event.
func request(id string, state facts.State, at time.Time) converge.Request {
	return converge.Request{Ref: facts.Ref{ID: id, Place: facts.Place{Account: "123456789012", Region: "us-east-1"}}, Told: state, At: at}
}

func sighting(f facts.Instance) instance.Sighting { return instance.Sighting{Found: true, Facts: f} }
