package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// blow is what happens to a call.
type blow int

const (
	fails       blow = iota // before it takes effect
	unanswered              // it takes effect, and its answer is lost
	dies                    // it takes effect, and the process does nothing more
	freezes                 // it takes effect, and then the process stands still
	interrupted             // it takes effect, and then something else happens
	blows
)

func (b blow) String() string {
	return [...]string{"fails", "takes effect and its answer is lost", "is the process's last", "is followed by a freeze", "is interrupted"}[b]
}

// step names one call of a run: what it does to what, and for the how-manieth time. Calls made side by side have no order,
// but each has a name.
type step struct {
	call string
	nth  int
}

// strike is a blow to one step; where the step has no call, to the nth call that begins with prefix.
type strike struct {
	blow   blow
	at     step
	prefix string
	length time.Duration // of a freeze
	then   func()        // what happens meanwhile
}

var (
	errDown = errors.New("down")
	errDead = errors.New("this process is dead")
)

// process is one sandbox of a function at work in the world. Each call is one step.
type process struct {
	*world
	name   string
	strike *strike
	lag    time.Duration // how old what EC2 answers may be

	steps  []step
	seen   map[string]int
	begun  int // calls with the strike's prefix
	hit    bool
	dead   bool
	owners map[string]bool
}

func (w *world) process(s *strike) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.processes++
	return &process{world: w, name: fmt.Sprintf("process-%d", w.processes), strike: s, seen: map[string]int{}, owners: map[string]bool{}}
}

// struck tells whether this call is the one. The world is locked.
func (p *process) struck(s step) bool {
	if p.strike == nil || p.hit {
		return false
	}
	if p.strike.at.call != "" {
		p.hit = p.strike.at == s
		return p.hit
	}
	if strings.HasPrefix(s.call, p.strike.prefix) {
		p.begun++
	}
	p.hit = p.begun == p.strike.at.nth
	return p.hit
}

// do is one call. It takes about a tick, in which others go on; each call its own time, so that the order of those made
// side by side is always the same. Deadlines do not end it: the clock behind them may have stood still with the sandbox.
func (p *process) do(call string, effect func() error) error {
	own := fnv.New32a()
	_, _ = own.Write([]byte(p.name + call))
	time.Sleep(tick + time.Duration(own.Sum32()%1_000_000))
	p.mu.Lock()
	if p.dead {
		p.mu.Unlock()
		return errDead
	}
	p.seen[call]++
	s := step{call, p.seen[call]}
	p.steps = append(p.steps, s)
	hit := p.struck(s)
	if hit && p.strike.blow == fails {
		p.mu.Unlock()
		return errDown
	}
	err := effect()
	if err == nil {
		p.rules()
	}
	if hit && p.strike.blow == dies {
		p.dead = true
		err = errDead
	}
	p.mu.Unlock()
	if !hit || err != nil {
		return err
	}
	if p.strike.blow == unanswered {
		return errDown
	}
	if p.strike.then != nil {
		p.strike.then()
	}
	time.Sleep(p.strike.length)
	return nil
}

func (p *process) Read(_ context.Context, path string) (out map[string]any, err error) {
	err = p.do("vault read "+path, func() error {
		out = maps.Clone(p.objects[path])
		return nil
	})
	return out, err
}

// Write merges, as Vault does for the auth roles of AWS, and resets all else.
func (p *process) Write(_ context.Context, path string, fields map[string]any) error {
	return p.do("vault write "+path, func() error {
		p.ruleWrite(path, fields)
		stored := maps.Clone(fields)
		if strings.HasPrefix(path, "auth/") {
			stored = maps.Clone(p.objects[path])
			if stored == nil {
				p.roleIDs++
				stored = map[string]any{"role_id": fmt.Sprintf("role-%d", p.roleIDs)}
			}
			maps.Copy(stored, fields)
		}
		p.objects[path] = stored
		return nil
	})
}

func (p *process) Delete(_ context.Context, path string) error {
	return p.do("vault delete "+path, func() error {
		if p.foreign[path] != nil {
			p.breaks("%s is somebody else's and was deleted", path)
		}
		delete(p.objects, path)
		delete(p.bears, path)
		return nil
	})
}

func (p *process) LoginMount(_ context.Context, mount string) (out vault.LoginMount, err error) {
	err = p.do("vault mount "+mount, func() error {
		out = vault.LoginMount{Path: mount, EC2Alias: "role_id", IAMAlias: "role_id"}
		return nil
	})
	return out, err
}

func (p *process) CutOff(_ context.Context, m vault.LoginMount, cut vault.Cut) (n int, err error) {
	aliases := slices.Concat(cut.Sure, cut.Recorded)
	err = p.do(fmt.Sprintf("vault cut %s %v", m.Path, aliases), func() error {
		for _, a := range aliases {
			if _, ok := p.entities[a]; ok {
				delete(p.entities, a)
				n++
			}
		}
		return nil
	})
	return n, err
}

func (p *process) RevokePrefix(_ context.Context, prefix string) error {
	return p.do("vault revoke "+prefix, func() error { return nil })
}

func (p *process) List(_ context.Context, path string) (out []string, err error) {
	err = p.do("vault list "+path, func() error {
		if path == "sys/policies/acl" {
			out = append(out, "default", "root") // which every Vault has
		}
		for _, at := range slices.Sorted(maps.Keys(p.objects)) {
			if name, ok := strings.CutPrefix(at, path+"/"); ok && !strings.Contains(name, "/") {
				out = append(out, name)
			}
		}
		return nil
	})
	return out, err
}

func (p *process) Aliases(context.Context, string) (out []vault.Alias, err error) {
	err = p.do("vault aliases", func() error {
		for _, name := range slices.Sorted(maps.Keys(p.entities)) {
			out = append(out, vault.Alias{Name: name, EntityID: "e-" + name})
		}
		return nil
	})
	return out, err
}

func (p *process) Get(_ context.Context, id string) (out *ledger.Record, err error) {
	err = p.do("ledger get "+id, func() error {
		if r, ok := p.records[id]; ok {
			r.Objects = slices.Clone(r.Objects)
			out = &r
		}
		return nil
	})
	return out, err
}

func (p *process) Holder(_ context.Context, name ledger.Name) (out *ledger.Claim, err error) {
	err = p.do("ledger holder "+name.Under+" "+name.Text, func() error {
		if c, ok := p.claims[name]; ok {
			out = &c
		}
		return nil
	})
	return out, err
}

func (p *process) Put(_ context.Context, put ledger.Write) (out *ledger.Record, err error) {
	err = p.do(fmt.Sprintf("ledger put %s %s", put.New.State, put.New.InstanceID), func() (err error) {
		from := p.records[put.New.InstanceID].State
		if out, err = (ledgertest.Table{Records: p.records, Claims: p.claims}).Put(put, time.Now()); err == nil {
			p.rulePut(from, *out)
		}
		return err
	})
	return out, err
}

// TornDown and TearDown: this deployment stays.
func (p *process) TornDown(context.Context) (*time.Time, error) {
	return nil, p.do("ledger torn down", func() error { return nil })
}

func (p *process) TearDown(context.Context) (time.Time, error) { return time.Time{}, errDown }

func (p *process) Scan(_ context.Context, v ledger.Visitor) error {
	return p.do("ledger scan", func() error {
		for _, id := range slices.Sorted(maps.Keys(p.records)) {
			v.Record(p.records[id])
		}
		for name, c := range p.claims {
			v.Claim(name, c)
		}
		return nil
	})
}

// Owner: no PKI mount is marked.
func (p *process) Owner(context.Context, string) (string, error) { return "", nil }

// cloud is the process as EC2 serves it; both Vault and EC2 list.
type cloud struct{ *process }

func (c cloud) Account(context.Context) (string, error) { return here.Account, nil }

func (c cloud) List(_ context.Context, place facts.Place, ids []string, each func([]instance.Sighting) error) error {
	var page []instance.Sighting
	err := c.do("ec2 list "+place.Region, func() error {
		for _, id := range slices.Sorted(maps.Keys(c.ec2)) {
			if f := c.ec2[id]; len(ids) == 0 || slices.Contains(ids, id) {
				f.ObservedAt = time.Now()
				page = append(page, instance.Sighting{Found: true, Facts: f})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return each(page)
}

// RoleNow is the role in the instance profile that EC2 showed, which may lag: here an instance changes its profile, and no
// profile its role.
func (c cloud) RoleNow(_ context.Context, f facts.Instance) (arn string, err error) {
	err = c.do("iam role "+f.ID, func() error {
		for _, v := range c.history[f.ID] {
			if v.facts.IAMInstanceProfileARN == f.IAMInstanceProfileARN {
				arn = v.facts.IAMRoleARN
			}
		}
		return nil
	})
	return arn, err
}

func (c cloud) Look(_ context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	out := map[facts.Ref]instance.Sighting{}
	for _, ref := range slices.SortedFunc(slices.Values(refs), func(a, b facts.Ref) int { return strings.Compare(a.ID, b.ID) }) {
		err := c.do("ec2 look "+ref.ID, func() error {
			s := instance.Sighting{}
			for _, v := range c.history[ref.ID] {
				if v.from.After(time.Now().Add(-c.lag)) && c.lag > 0 {
					break
				}
				s.Found, s.Facts = v.found, v.facts
			}
			s.Facts.ObservedAt = time.Now()
			out[ref] = s
			return nil
		})
		if err != nil {
			out[ref] = instance.Sighting{Err: fault.New(fault.Retry, err)}
		}
	}
	return out
}

// The functions' duties.
var (
	provision   = converge.Duties{Make: true}
	deprovision = converge.Duties{Remove: true}
	both        = converge.Duties{Make: true, Remove: true}
)

func (p *process) converger(d converge.Duties) *converge.Converger {
	return &converge.Converger{Options: converge.Options{
		Duties: d, Profiles: profiles(), Realm: realm, Vault: p, Cutter: p, Ledger: p, Instances: cloud{p}, Mounts: p, RevokeCertificates: true,
		NewOwner: func() string {
			p.mu.Lock()
			defer p.mu.Unlock()
			owner := fmt.Sprintf("%s-%d", p.name, len(p.owners))
			p.owners[owner] = true
			return owner
		},
		Now: time.Now,
	}}
}

// handle does what a function does with an event: it looks at the instance and converges it.
func (p *process) handle(d converge.Duties, e event.Event) (converge.Outcome, error) {
	req := converge.RequestOf(e)
	if e.Hook != nil {
		// The function asks Auto Scaling, and an event alone ends nothing.
		if err := p.do("autoscaling stand "+e.ID, func() error { req.Leaving = p.leaving[e.ID]; return nil }); err != nil {
			return converge.Outcome{}, err
		}
	}
	s := cloud{p}.Look(context.Background(), []facts.Ref{e.Ref})[e.Ref]
	out, err := p.converger(d).Converge(context.Background(), req, s)
	if err == nil {
		p.ruleDone(e, req.Leaving)
	}
	return out, err
}

// reconcile does what the reconcile function does by its schedule.
func (p *process) reconcile(in reconcile.Input) reconcile.Answer {
	r := reconcile.Reconciler{Options: reconcile.Options{
		Profiles: profiles(), Realm: realm, Vault: p, Ledger: p, Teardowns: p, Instances: cloud{p}, Regions: []string{here.Region}, DeleteLimit: 20, Now: time.Now,
	}}
	return r.Run(context.Background(), in, p.converger(both), reconcile.Observer{Log: slog.New(slog.DiscardHandler)})
}

// dutiesFor are those of the function that AWS's rule hands an event to; the states without a rule go to provision.
func dutiesFor(t event.Event) converge.Duties {
	if t.State == facts.ShuttingDown || t.State == facts.Terminated || t.Hook != nil {
		return deprovision
	}
	return provision
}

// isRetry tells whether a queue would deliver again.
func isRetry(err error) bool { return fault.KindOf(err) == fault.Retry }
