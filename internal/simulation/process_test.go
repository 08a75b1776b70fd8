package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance/instancetest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
)

// faultKind is a kind of fault that befalls a call.
type faultKind int

const (
	fails       faultKind = iota // before it takes effect
	unanswered                   // it takes effect, and its answer is lost
	dies                         // it takes effect, and is the process's last
	freezes                      // it takes effect, and then the process freezes
	interrupted                  // it takes effect, and then another step comes in between
	faultKinds
)

func (b faultKind) String() string {
	return [...]string{"fails", "takes effect and its answer is lost", "is the process's last", "is followed by a freeze", "is interrupted"}[b]
}

// step is the nth occurrence of a call in a run. Calls made side by side have no order, but each has a name.
type step struct {
	call string
	nth  int
}

// injection is a fault at one step; for a step without a call, at the nth call that begins with prefix.
type injection struct {
	kind   faultKind
	at     step
	prefix string
	length time.Duration // of a freeze
	then   func()        // runs after the call, of a freeze or an interruption
}

var (
	errDown = errors.New("down")
	errDead = errors.New("this process is dead")
)

// process is one sandbox of a function. Each of its calls is one step.
type process struct {
	*world
	name      string
	injection *injection
	lag       time.Duration // how old EC2's answers are
	behind    time.Duration // how old the objects are that Vault shows

	steps  []step
	seen   map[string]int
	begun  int // calls with the injection's prefix
	hit    bool
	dead   bool
	owners map[string]bool
}

func (w *world) process(s *injection) *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.processes++
	return &process{world: w, name: fmt.Sprintf("process-%d", w.processes), injection: s, seen: map[string]int{}, owners: map[string]bool{}}
}

// struck reports whether the fault is due at this step. The world is locked.
func (p *process) struck(s step) bool {
	if p.injection == nil || p.hit {
		return false
	}
	if p.injection.at.call != "" {
		p.hit = p.injection.at == s
		return p.hit
	}
	if strings.HasPrefix(s.call, p.injection.prefix) {
		p.begun++
	}
	p.hit = p.begun == p.injection.at.nth
	return p.hit
}

// do makes one call. It takes about a tick, in which other processes go on. Each call has its own duration, so that calls made
// side by side have the same order in every run. Deadlines do not end it: their clock may have been frozen with the sandbox.
func (p *process) do(call string, effect func() error) error {
	call = strings.TrimSpace(call)
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
	if hit && p.injection.kind == fails {
		p.mu.Unlock()
		return errDown
	}
	err := effect()
	if err == nil {
		p.checkAlways()
	}
	if hit && p.injection.kind == dies {
		p.dead = true
		err = errDead
	}
	p.mu.Unlock()
	if !hit || err != nil {
		return err
	}
	if p.injection.kind == unanswered {
		return errDown
	}
	if p.injection.then != nil {
		p.injection.then()
	}
	time.Sleep(p.injection.length)
	return nil
}

// vault returns the process's client of Vault.
func (p *process) vault() vaulttest.Client {
	return vaulttest.Client{Vault: p.Vault, Behind: p.behind, Do: func(kind, path string, effect func() error) error {
		return p.do("vault "+kind+" "+path, func() error {
			err := effect()
			switch {
			case err == nil && kind == "write":
				p.checkWrite(path)
			case err == nil && kind == "delete":
				p.checkDelete(path)
			}
			return err
		})
	}}
}

// ledger returns the process's client of the ledger.
func (p *process) ledger() ledgertest.Client {
	return ledgertest.Client{Table: p.Table, Now: time.Now, Do: func(kind, what string, effect func() error) error {
		return p.do("ledger "+kind+" "+what, func() error {
			id := what[strings.LastIndexByte(what, ' ')+1:]
			before := p.Records[id]
			err := effect()
			if err == nil && kind == "put" {
				p.checkPut(before, p.Records[id])
			}
			return err
		})
	}}
}

// cloud returns EC2 as the process sees it: looks lag behind, and roles are remembered.
func (p *process) cloud() instancetest.EC2 {
	cloud := instancetest.EC2{Own: here.Account, Instances: p.ec2, RoleAge: time.Minute, Now: time.Now, Do: func(kind, what string, effect func() error) error {
		return p.do("ec2 "+kind+" "+what, effect)
	}}
	if p.lag > 0 {
		cloud.Seen = func(id string) (f facts.Instance, found bool) {
			for _, v := range p.history[id] {
				if v.from.After(time.Now().Add(-p.lag)) {
					break
				}
				f, found = v.facts, v.found
			}
			return f, found
		}
	}
	return cloud
}

// Owner returns no owner: no PKI mount is marked.
func (p *process) Owner(context.Context, string) (string, error) { return "", nil }

// The duties of provision, deprovision and reconcile.
var (
	provision   = converge.Duties{Make: true}
	deprovision = converge.Duties{Remove: true}
	both        = converge.Duties{Make: true, Remove: true}
)

func (p *process) converger(d converge.Duties) *converge.Converger {
	waking := converge.Waker{Ledger: p.ledger(), Waiters: p.ledger(), Queue: p, Log: slog.New(slog.DiscardHandler), Now: time.Now}
	return &converge.Converger{Options: converge.Options{
		Duties: d, Profiles: profiles(), Realm: realm, Vault: p.vault(), Cutter: p.vault(), Ledger: waking, Records: p.ledger(), Waiters: p.ledger(), Instances: p.cloud(), Mounts: p, RevokeCertificates: true,
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

// Send sends instances that wait for a released name to the provision queue.
func (p *process) Send(_ context.Context, live []event.Event) []error {
	err := p.do("queue send", func() error {
		p.woken = append(p.woken, live...)
		return nil
	})
	errs := make([]error, len(live))
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// handle looks at the instance of an event and converges it, as a function does.
func (p *process) handle(d converge.Duties, e event.Event) (converge.Outcome, error) {
	req := converge.RequestOf(e)
	if e.Hook != nil {
		// An event alone ends nothing: the function asks Auto Scaling.
		if err := p.do("autoscaling stand "+e.ID, func() error { req.Leaving = p.leaving[e.ID]; return nil }); err != nil {
			return converge.Outcome{}, err
		}
	}
	c := p.converger(d)
	seen := p.cloud().Describe(context.Background(), []facts.Ref{e.Ref})
	s := seen[e.Ref]
	req.Batch = c.Begin(context.Background(), seen)
	out, err := c.Converge(context.Background(), req, s)
	if err == nil {
		p.checkDone(e, req.Leaving)
	} else {
		p.checkRefusal(e, err)
	}
	return out, err
}

// reconcile runs reconcile, as by its schedule.
func (p *process) reconcile(in reconcile.Input) reconcile.Answer {
	r := reconcile.Reconciler{Options: reconcile.Options{
		Profiles: profiles(), Realm: realm, Vault: p.vault(), Ledger: p.ledger(), Teardowns: p.ledger(), Instances: p.cloud(), Places: []facts.Place{{Region: here.Region}}, DeleteLimit: 20, Now: time.Now,
	}}
	return r.Run(context.Background(), in, p.converger(both), reconcile.Observer{Log: slog.New(slog.DiscardHandler)})
}

// dutiesFor returns the duties of the function to which AWS's rule sends an event. States without a rule go to provision.
func dutiesFor(t event.Event) converge.Duties {
	if t.State == facts.ShuttingDown || t.State == facts.Terminated || t.Hook != nil {
		return deprovision
	}
	return provision
}

// isRetry reports whether a queue would deliver again.
func isRetry(err error) bool { return fault.KindOf(err) == fault.Retry }
