package reconcile

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance/instancetest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// world is a fleet: Vault, the ledger and EC2 in memory, and a clock. Sizes, times, order and faults are tested here; infra/lab
// tests the repairs on real parts.
type world struct {
	t        *testing.T
	profiles *grant.Set
	realm    grant.Realm
	*vaulttest.Vault
	*ledgertest.Table

	mu      sync.Mutex
	now     time.Time
	ec2     map[string]facts.Instance
	calls   map[string]int // by kind
	sent    []event.Event
	deleted []string // paths
	cut     []string // aliases
	// tick is how much time passes with each call of a kind.
	tick map[string]time.Duration
	// fail makes calls of a kind fail.
	fail map[string]error
	// before and after, if not nil, are called with each call's kind and subject, before and after its effect.
	before, after func(kind, what string)
}

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	here  = facts.Place{Account: "123456789012", Region: "us-east-1"}
	there = facts.Place{Account: "444455556666", Region: "us-east-1"} // of a member account
)

// builtIn are the profiles of every world. A set is never changed, so the tests share one.
var builtIn = sync.OnceValues(func() (*grant.Set, error) { return grant.Load(templates.FS) })

func newWorld(t *testing.T, n int) *world {
	t.Helper()
	set, err := builtIn()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, profiles: set, realm: grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"}, Vault: vaulttest.New(), Table: ledgertest.New(), now: start,
		ec2: map[string]facts.Instance{}, calls: map[string]int{}, tick: map[string]time.Duration{}, fail: map[string]error{},
	}
	for i := range n {
		w.provision(w.launch(worker(i)))
	}
	return w
}

// id returns the ID of the n-th instance, in their order.
func id(n int) string { return fmt.Sprintf("i-%017x", n*7919+1) }

// worker returns the n-th instance, running, with a role that a profile fits.
func worker(n int) facts.Instance {
	return facts.Instance{
		ID: id(n), State: facts.Running, Account: here.Account, Region: here.Region, VPCID: "vpc-0a1b2c3d",
		PrivateDNSName: fmt.Sprintf("ip-10-1-%d-%d.ec2.internal", n/250, n%250+1), IPv4s: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(n / 250), byte(n%250 + 1)})},
		IAMInstanceProfileARN: "arn:aws:iam::123456789012:instance-profile/alice-worker", IAMRoleARN: "arn:aws:iam::123456789012:role/alice-worker",
	}
}

// noRole removes the role of an instance, so that no profile fits it.
func noRole(f facts.Instance) facts.Instance {
	f.IAMRoleARN = ""
	return f
}

// launch has EC2 show an instance.
func (w *world) launch(f facts.Instance) facts.Instance {
	w.ec2[f.ID] = f
	return f
}

// launchAs has EC2 show an instance like the n-th, with its name and address, under another ID.
func (w *world) launchAs(n int, newID string) facts.Instance {
	f := w.ec2[id(n)]
	f.ID = newID
	return w.launch(f)
}

// terminate has EC2 show the n-th instance as terminated.
func (w *world) terminate(n int) {
	f := w.ec2[id(n)]
	f.State = facts.Terminated
	w.ec2[f.ID] = f
}

// makeObjects makes an instance's objects in Vault, as the provision of a deployment would.
func (w *world) makeObjects(f facts.Instance, realm grant.Realm) *grant.Grant {
	p, err := w.profiles.Match(f)
	if err != nil || p == nil {
		w.t.Fatalf("matching %s: %v, %v", f.ID, p, err)
	}
	g, err := p.Render(f, realm)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range g.All() {
		if grant.MustReplace(w.Objects[o.Path], o) {
			delete(w.Objects, o.Path)
		}
		if _, err := (vaulttest.Client{Vault: w.Vault}).Write(w.t.Context(), o.Path, o.Fields); err != nil {
			w.t.Fatal(err)
		}
	}
	return g
}

// provision leaves Vault and the ledger as converge would.
func (w *world) provision(f facts.Instance) {
	g := w.makeObjects(f, w.realm)
	r := ledger.Record{
		InstanceID: f.ID, State: ledger.Active, Account: f.Account, Region: f.Region, Profile: g.Profile.Name, BasePath: g.Profile.BasePath, FQDN: g.FQDN,
		UpdatedAt: start.Add(-time.Hour), Version: 1,
	}
	for _, o := range g.All() {
		roleID, _ := w.Objects[o.Path]["role_id"].(string)
		r.Objects = append(r.Objects, ledger.Object{Kind: o.Kind, Path: o.Path, SHA256: o.SHA256(), RoleID: roleID})
	}
	r.Claims = ledger.NamesOf(g)
	w.Records[f.ID] = r
	for _, name := range r.Claims {
		w.Claims[name] = ledger.Claim{InstanceID: f.ID, Account: f.Account, Region: f.Region}
	}
}

// remove leaves them as converge would once the instance is gone.
func (w *world) remove(instanceID string) {
	r := w.Records[instanceID]
	for _, o := range r.Objects {
		delete(w.Objects, o.Path)
	}
	for _, name := range r.Names() {
		delete(w.Claims, name)
	}
	at := w.now
	r.Claims, r.FormerRoleIDs = nil, r.RoleIDs()
	r.State, r.Objects, r.Version, r.UpdatedAt, r.DeletedAt = ledger.Deleted, nil, r.Version+1, at, &at
	w.Records[instanceID] = r
}

// do makes a call: it counts it, lets time pass, and fails where it is to fail. Lists are counted by folder.
func (w *world) do(kind, what string, effect func() error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch kind {
	case "list":
		kind += " " + what
	case "delete":
		w.deleted = append(w.deleted, what)
	case "cut":
		w.cut = append(w.cut, strings.Fields(what)[1:]...)
	}
	w.calls[kind]++
	w.now = w.now.Add(w.tick[kind])
	if err := w.fail[kind]; err != nil {
		return err
	}
	if w.before != nil {
		w.before(kind, what)
	}
	err := effect()
	if w.after != nil {
		w.after(kind, what)
	}
	return err
}

// makeLate has an object made right after its folder is listed.
func (w *world) makeLate(folder, name string) {
	path := folder + "/" + name
	fields := w.Objects[path]
	delete(w.Objects, path)
	w.after = func(kind, _ string) {
		if kind == "list "+folder {
			w.Objects[path] = fields
		}
	}
}

func (w *world) vault() vaulttest.Client { return vaulttest.Client{Vault: w.Vault, Do: w.do} }

func (w *world) ledger() ledgertest.Client {
	return ledgertest.Client{Table: w.Table, Now: func() time.Time { return w.now }, Do: w.do}
}

func (w *world) instances() instancetest.EC2 {
	return instancetest.EC2{Own: here.Account, Instances: w.ec2, Now: func() time.Time { return w.now }, Do: w.do}
}

// seeing returns EC2 with a look that shows changed facts.
func (w *world) seeing(change func(facts.Instance) facts.Instance) func(*Options) {
	ec2 := w.instances()
	ec2.Seen = func(id string) (facts.Instance, bool) {
		f, found := w.ec2[id]
		return change(f), found
	}
	return func(o *Options) { o.Instances = ec2 }
}

// Owner returns no owner: no PKI mount is marked.
func (w *world) Owner(context.Context, string) (string, error) { return "", nil }

// atOnce is a ledger whose teardown is in force at once: the wait for that is not tested here.
type atOnce struct{ ledgertest.Client }

func (l atOnce) TearDown(ctx context.Context) (time.Time, error) {
	since, err := l.Client.TearDown(ctx)
	return since.Add(-ledger.TeardownTime), err
}

// Converge has the effect of converge.Converger, without its calls.
func (w *world) Converge(_ context.Context, req converge.Request, s instance.Sighting) (out converge.Outcome, err error) {
	err = w.do("converge", req.ID, func() error { //nolint:contextcheck // the writes are the test's own
		out.Action = converge.Provisioned
		if req.Absent || s.Facts.State == facts.Terminated {
			out.Action = converge.Deprovisioned
			w.remove(req.ID)
		} else {
			w.provision(s.Facts)
		}
		return nil
	})
	return out, err
}

// Send takes events as SQS does, ten in a call.
func (w *world) Send(_ context.Context, events []event.Event) []error {
	for few := range slices.Chunk(events, 10) {
		_ = w.do("send", "", func() error {
			w.sent = append(w.sent, few...)
			return nil
		})
	}
	return make([]error, len(events))
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) reconciler(change ...func(*Options)) *Reconciler {
	o := Options{
		Profiles: w.profiles, Realm: w.realm, Vault: w.vault(), Ledger: w.ledger(), Teardowns: atOnce{w.ledger()}, Instances: w.instances(), Places: []facts.Place{{Region: here.Region}},
		DeleteLimit: 20, Now: w.clock, Looks: vault.Looks{Pause: time.Nanosecond},
	}
	for _, c := range change {
		c(&o)
	}
	return &Reconciler{Options: o}
}

func (w *world) run(r *Reconciler, in Input) Answer {
	w.t.Helper()
	return r.Run(w.t.Context(), in, w, silent)
}

// goOn runs invocation after invocation, as the function's own queue does, until one returns no cursor. each is called with
// every answer.
func (w *world) goOn(in Input, each func(Answer), change ...func(*Options)) (last Answer, invocations int) {
	w.t.Helper()
	for invocations < 20 {
		last = w.run(w.reconciler(change...), in)
		invocations++
		each(last)
		if last.Cursor == nil {
			return last, invocations
		}
		in.Cursor = last.Cursor
	}
	w.t.Fatalf("want the run to end, after %d invocations its answer is\n%s", invocations, answerText(last))
	return last, invocations
}

var both = converge.Duties{Make: true, Remove: true}

// converger returns the real converger.
func (w *world) converger(duties converge.Duties, adopt bool) *converge.Converger {
	return &converge.Converger{Options: converge.Options{
		Duties: duties, Profiles: w.profiles, Realm: w.realm, Vault: w.vault(), Cutter: w.vault(), Ledger: w.ledger(), Instances: w.instances(), Mounts: w,
		Adopt: adopt, NewOwner: rand.Text, Now: w.clock, Looks: vault.Looks{Pause: time.Nanosecond},
	}}
}

// reconcile runs with the real converger.
func (w *world) reconcile(in Input, change ...func(*Options)) Answer {
	w.t.Helper()
	r := w.reconciler(change...)
	return r.Run(w.t.Context(), in, w.converger(both, r.Adopt), silent)
}

func adopting(o *Options) { o.Adopt = true }

func alias(name string) vaulttest.Alias { return vaulttest.Alias{Mount: "aws", Name: name} }

// edit changes the record of an instance by hand.
func (w *world) edit(instanceID string, change func(*ledger.Record)) {
	r := w.Records[instanceID]
	change(&r)
	w.Records[instanceID] = r
}

// loosen changes a field of an object by hand.
func (w *world) loosen(path, field string, value any) {
	w.Objects[path] = maps.Clone(w.Objects[path])
	w.Objects[path][field] = value
}

// spoil deletes the policies of every n-th instance.
func (w *world) spoil(each int) (spoiled int) {
	for n := range len(w.ec2) {
		if n%each == 0 {
			delete(w.Objects, grant.PolicyPath(grant.PolicyName(id(n), "node")))
			spoiled++
		}
	}
	return spoiled
}

var (
	errStorage = errors.New("storage is away")
	silent     = Observer{Log: slog.New(slog.DiscardHandler)}
)
