package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/lifecycle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// world is a fleet in memory. What is repaired by lifecycle on real parts is tested in infra/lab; here it is the size,
// the time and the faults.
type world struct {
	t        *testing.T
	profiles *grant.Set
	realm    grant.Realm

	mu      sync.Mutex
	now     time.Time
	objects map[string]map[string]any
	records map[string]ledger.Record
	ec2     map[string]facts.Instance
	unseen  map[string]bool // EC2's listings leave them out
	calls   map[string]int
	sent    []event.Trigger
	// tick is how much time passes with each call of a kind.
	tick map[string]time.Duration
	// fail makes calls of a kind fail.
	fail map[string]error
}

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	here  = instance.Place{Account: "123456789012", Region: "us-east-1"}
)

func newWorld(t *testing.T, n int) *world {
	t.Helper()
	set, err := grant.Load(templates.FS)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, profiles: set, realm: grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"}, now: start,
		objects: map[string]map[string]any{}, records: map[string]ledger.Record{}, ec2: map[string]facts.Instance{}, unseen: map[string]bool{},
		calls: map[string]int{}, tick: map[string]time.Duration{}, fail: map[string]error{},
	}
	for i := range n {
		f := facts.Instance{
			ID: id(i), State: facts.Running, Account: here.Account, Region: here.Region, VPCID: "vpc-0a1b2c3d",
			PrivateDNSName: fmt.Sprintf("ip-10-1-%d-%d.ec2.internal", i/250, i%250+1), IPv4s: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(i%250 + 1)})},
			IAMInstanceProfileARN: "arn:aws:iam::123456789012:instance-profile/alice-worker", IAMRoleARN: "arn:aws:iam::123456789012:role/alice-worker",
		}
		w.ec2[f.ID] = f
		w.provision(f)
	}
	return w
}

// id is that of the n-th instance, in their order.
func id(n int) string { return fmt.Sprintf("i-%017x", n*7919+1) }

// provision leaves Vault and the ledger as lifecycle would.
func (w *world) provision(f facts.Instance) {
	p, err := w.profiles.Match(f)
	if err != nil || p == nil {
		w.t.Fatalf("matching %s: %v, %v", f.ID, p, err)
	}
	g, err := p.Render(f, w.realm)
	if err != nil {
		w.t.Fatal(err)
	}
	r := ledger.Record{
		InstanceID: f.ID, State: ledger.Active, Account: f.Account, Region: f.Region, Profile: p.Name, BasePath: p.BasePath, FQDN: g.FQDN,
		UpdatedAt: start.Add(-time.Hour), Version: 1,
	}
	for _, o := range g.All() {
		w.objects[o.Path] = o.Fields
		r.Objects = append(r.Objects, ledger.Object{Kind: o.Kind, Path: o.Path, SHA256: o.SHA256()})
	}
	w.records[f.ID] = r
}

func (w *world) remove(instanceID string) {
	for _, o := range w.records[instanceID].Objects {
		delete(w.objects, o.Path)
	}
	w.records[instanceID] = ledger.Record{InstanceID: instanceID, State: ledger.Deleted, Version: 2, UpdatedAt: w.now}
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

func (w *world) Aliases(context.Context, string) ([]vault.Alias, error) { return nil, nil }

func (w *world) Scan(_ context.Context, v ledger.Visitor) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.records {
		v.Record(r)
		if r.FQDN != "" {
			v.Claim(r.Name(), ledger.Claim{InstanceID: r.InstanceID})
		}
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
	for _, r := range w.records {
		if r.Name() == name && r.FQDN != "" {
			return &ledger.Claim{InstanceID: r.InstanceID}, nil
		}
	}
	return nil, nil
}

func (w *world) Account(context.Context) (string, error) { return here.Account, nil }

// instances is the world as EC2, since both list.
type instances struct{ *world }

func (i instances) List(_ context.Context, p instance.Place, ids []string, each func([]instance.Sighting) error) error {
	w := i.world
	w.mu.Lock()
	var all []instance.Sighting
	for _, f := range w.ec2 {
		if f.Account == p.Account && f.Region == p.Region && !w.unseen[f.ID] && (len(ids) == 0 || slices.Contains(ids, f.ID)) {
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

func (i instances) Look(_ context.Context, refs []instance.Ref) map[instance.Ref]instance.Sighting {
	w := i.world
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[instance.Ref]instance.Sighting{}
	for _, r := range refs {
		f, ok := w.ec2[r.ID]
		out[r] = instance.Sighting{Found: ok && f.Account == r.Account && f.Region == r.Region, Facts: f}
	}
	return out
}

// Converge does what lifecycle does, at once.
func (w *world) Converge(_ context.Context, t event.Trigger, s instance.Sighting) (lifecycle.Outcome, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.do("converge"); err != nil {
		return lifecycle.Outcome{}, err
	}
	if t.State == facts.Terminated {
		w.remove(t.InstanceID)
		return lifecycle.Outcome{Action: lifecycle.Deprovisioned}, nil
	}
	w.provision(s.Facts)
	return lifecycle.Outcome{Action: lifecycle.Provisioned}, nil
}

func (w *world) Send(_ context.Context, triggers []event.Trigger) []error {
	w.sent = append(w.sent, triggers...)
	return make([]error, len(triggers))
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) reconciler(change ...func(*Options)) *Reconciler {
	o := Options{
		Profiles: w.profiles, Realm: w.realm, Vault: w, Ledger: w, Instances: instances{w}, Regions: []string{here.Region},
		DeleteLimit: 20, Now: w.clock,
	}
	for _, c := range change {
		c(&o)
	}
	return &Reconciler{Options: o}
}

func (w *world) run(r *Reconciler, in Input) Answer {
	w.t.Helper()
	return r.Run(w.t.Context(), in, w, slog.New(slog.NewTextHandler(io.Discard, nil)))
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
