package reconcile

import (
	"context"
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
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// world is a fleet in memory. What is repaired by lifecycle on real parts is tested in infra/lab; here it is the size,
// the time, the order and the faults.
type world struct {
	t        *testing.T
	profiles *grant.Set
	realm    grant.Realm

	mu        sync.Mutex
	now       time.Time
	objects   map[string]map[string]any
	leftovers []vault.Alias // what logins left
	tornDown  *time.Time
	records   map[string]ledger.Record
	claims    map[ledger.Name]ledger.Claim
	ec2       map[string]facts.Instance
	calls     map[string]int
	sent      []event.Event
	deleted   []string // paths
	cut       []string // aliases
	// tick is how much time passes with each call of a kind.
	tick map[string]time.Duration
	// fail makes calls of a kind fail.
	fail map[string]error
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
		t: t, profiles: set, realm: grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"}, now: start,
		objects: map[string]map[string]any{}, records: map[string]ledger.Record{}, claims: map[ledger.Name]ledger.Claim{},
		ec2: map[string]facts.Instance{}, calls: map[string]int{}, tick: map[string]time.Duration{}, fail: map[string]error{},
	}
	for i := range n {
		w.provision(w.launch(worker(i)))
	}
	return w
}

// id is that of the n-th instance, in their order.
func id(n int) string { return fmt.Sprintf("i-%017x", n*7919+1) }

// worker is the n-th instance, running, of a role that a profile fits.
func worker(n int) facts.Instance {
	return facts.Instance{
		ID: id(n), State: facts.Running, Account: here.Account, Region: here.Region, VPCID: "vpc-0a1b2c3d",
		PrivateDNSName: fmt.Sprintf("ip-10-1-%d-%d.ec2.internal", n/250, n%250+1), IPv4s: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(n / 250), byte(n%250 + 1)})},
		IAMInstanceProfileARN: "arn:aws:iam::123456789012:instance-profile/alice-worker", IAMRoleARN: "arn:aws:iam::123456789012:role/alice-worker",
	}
}

// noRole takes the role from an instance: no profile fits it then.
func noRole(f facts.Instance) facts.Instance {
	f.IAMRoleARN = ""
	return f
}

// launch has EC2 show an instance.
func (w *world) launch(f facts.Instance) facts.Instance {
	w.ec2[f.ID] = f
	return f
}

// terminate has EC2 show the n-th instance as terminated.
func (w *world) terminate(n int) {
	f := w.ec2[id(n)]
	f.State = facts.Terminated
	w.ec2[f.ID] = f
}

// stand leaves Vault as the provision of a deployment would.
func (w *world) stand(f facts.Instance, realm grant.Realm) *grant.Grant {
	p, err := w.profiles.Match(f)
	if err != nil || p == nil {
		w.t.Fatalf("matching %s: %v, %v", f.ID, p, err)
	}
	g, err := p.Render(f, realm)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, o := range g.All() {
		w.objects[o.Path] = o.Fields
	}
	return g
}

// provision leaves Vault and the ledger as lifecycle would.
func (w *world) provision(f facts.Instance) {
	g := w.stand(f, w.realm)
	r := ledger.Record{
		InstanceID: f.ID, State: ledger.Active, Account: f.Account, Region: f.Region, Profile: g.Profile.Name, BasePath: g.Profile.BasePath, FQDN: g.FQDN,
		UpdatedAt: start.Add(-time.Hour), Version: 1,
	}
	for _, o := range g.All() {
		r.Objects = append(r.Objects, ledger.Object{Kind: o.Kind, Path: o.Path, SHA256: o.SHA256()})
	}
	r.Claims = ledger.NamesOf(g)
	w.records[f.ID] = r
	for _, name := range r.Claims {
		w.claims[name] = ledger.Claim{InstanceID: f.ID, Account: f.Account, Region: f.Region}
	}
}

// remove leaves them as lifecycle would once the instance is gone.
func (w *world) remove(instanceID string) {
	r := w.records[instanceID]
	for _, o := range r.Objects {
		delete(w.objects, o.Path)
	}
	for _, name := range r.Names() {
		delete(w.claims, name)
	}
	at := w.now
	r.Claims = nil
	r.State, r.Objects, r.Version, r.UpdatedAt, r.DeletedAt = ledger.Deleted, nil, r.Version+1, at, &at
	w.records[instanceID] = r
}

// do counts a call, lets time pass, and fails where it is to.
func (w *world) do(kind string) error {
	w.calls[kind]++
	w.now = w.now.Add(w.tick[kind])
	return w.fail[kind]
}

func (w *world) Read(_ context.Context, path string) (map[string]any, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.objects[path], w.do("read")
}

func (w *world) List(_ context.Context, path string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := []string{"default"}
	for p := range w.objects {
		if name, ok := strings.CutPrefix(p, path+"/"); ok && !strings.Contains(name, "/") {
			out = append(out, name)
		}
	}
	return out, w.do("list " + path)
}

func (w *world) Aliases(context.Context, string) ([]vault.Alias, error) { return w.leftovers, nil }

func (w *world) Scan(_ context.Context, v ledger.Visitor) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.records {
		v.Record(r)
	}
	for name, c := range w.claims {
		v.Claim(name, c)
	}
	return w.do("scan")
}

func (w *world) Get(_ context.Context, instanceID string) (*ledger.Record, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r, ok := w.records[instanceID]
	if !ok {
		return nil, w.do("get")
	}
	return &r, w.do("get")
}

func (w *world) Holder(_ context.Context, name ledger.Name) (*ledger.Claim, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c, held := w.claims[name]; held {
		return &c, nil
	}
	return nil, nil
}

func (w *world) Account(context.Context) (string, error) { return here.Account, nil }

// instances is the world as EC2, since both list.
type instances struct{ *world }

func (i instances) List(_ context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error {
	w := i.world
	w.mu.Lock()
	var all []instance.Sighting
	for _, f := range w.ec2 {
		if f.Account == p.Account && f.Region == p.Region && (len(ids) == 0 || slices.Contains(ids, f.ID)) {
			all = append(all, instance.Sighting{Found: true, Facts: f})
		}
	}
	err := w.do("ec2 " + p.Region)
	w.mu.Unlock()
	for page := range slices.Chunk(all, 10) {
		if err := each(page); err != nil {
			return err
		}
	}
	return err
}

func (i instances) Look(_ context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	w := i.world
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[facts.Ref]instance.Sighting{}
	for _, r := range refs {
		f, ok := w.ec2[r.ID]
		s := instance.Sighting{Found: ok && f.Account == r.Account && f.Region == r.Region}
		if s.Found {
			s.Facts = f
		}
		s.Facts.ObservedAt = w.now
		out[r] = s
	}
	return out
}

// altered is an EC2 that answers otherwise than the world is: in its listings, or when it is looked at once more.
type altered struct {
	instances
	listed, looked func(*instance.Sighting)
}

func (a altered) List(ctx context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error {
	return a.instances.List(ctx, p, ids, func(page []instance.Sighting) error {
		for i := range page {
			if a.listed != nil {
				a.listed(&page[i])
			}
		}
		return each(page)
	})
}

func (a altered) Look(ctx context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	out := a.instances.Look(ctx, refs)
	for r, s := range out {
		if a.looked != nil {
			a.looked(&s)
		}
		out[r] = s
	}
	return out
}

// interrupted is a ledger in which something happens just before the scan, or just after it.
type interrupted struct {
	*world
	before, after func()
}

func (l interrupted) Scan(ctx context.Context, v ledger.Visitor) error {
	if l.before != nil {
		l.before()
	}
	err := l.world.Scan(ctx, v)
	if l.after != nil {
		l.after()
	}
	return err
}

// Converge does what converge.Converger does, at once.
func (w *world) Converge(_ context.Context, req converge.Request, s instance.Sighting) (converge.Outcome, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.do("converge"); err != nil {
		return converge.Outcome{}, err
	}
	if req.Absent || s.Facts.State == facts.Terminated {
		w.remove(req.ID)
		return converge.Outcome{Action: converge.Deprovisioned}, nil
	}
	w.provision(s.Facts)
	return converge.Outcome{Action: converge.Provisioned}, nil
}

func (w *world) Send(_ context.Context, events []event.Event) []error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, events...)
	for range slices.Chunk(events, 10) { // as many as SQS takes at once
		_ = w.do("send")
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
		Profiles: w.profiles, Realm: w.realm, Vault: w, Ledger: w, Teardowns: w, Instances: instances{w}, Regions: []string{here.Region},
		DeleteLimit: 20, Now: w.clock,
	}
	for _, c := range change {
		c(&o)
	}
	return &Reconciler{Options: o}
}

func (w *world) run(r *Reconciler, in Input) Answer {
	w.t.Helper()
	return r.Run(w.t.Context(), in, w, Observer{Log: slog.New(slog.DiscardHandler)})
}

// goOn runs invocation after invocation, as the function's own queue does, until one ends without a cursor. each sees
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
	w.t.Fatalf("want the run to end, after %d invocations it is at\n%s", invocations, told(last))
	return last, invocations
}

// loosen has an object answer with another value.
func (w *world) loosen(path, field string, value any) {
	w.objects[path] = maps.Clone(w.objects[path])
	w.objects[path][field] = value
}

// spoil deletes the policies of every n-th instance.
func (w *world) spoil(each int) (spoiled int) {
	for n := range len(w.ec2) {
		if n%each == 0 {
			delete(w.objects, grant.PolicyPath(grant.PolicyName(id(n), "node")))
			spoiled++
		}
	}
	return spoiled
}

var errStorage = errors.New("storage is away")
