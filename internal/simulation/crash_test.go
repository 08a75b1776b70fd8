package simulation_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// scene is one run of a function. Each try starts in a new world.
type scene struct {
	name  string
	set   func(w *world) // prepares the world
	act   func(p *process)
	calls int           // at least
	rest  time.Duration // before the next run, if more than quietTime
}

// onEvent runs the function that gets an event of now about the first instance.
func onEvent(state facts.State) func(*process) {
	return func(p *process) { e := p.eventOf(id(0), state); p.undisturbed(p.handle(dutiesFor(e), e)) }
}

// undisturbed reports a violation if a process without an injected fault fails.
func (p *process) undisturbed(_ converge.Outcome, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.injection == nil && err != nil && !errors.Is(err, converge.ErrUnfinished) {
		p.violate("a run without a fault fails: %v", err)
	}
}

// onHook runs the function that gets the event of a terminate hook.
func onHook(p *process) { p.undisturbed(p.handle(deprovision, p.hookEvent(id(0)))) }

func leaves(n int) func(*world) { return func(w *world) { w.startLeaving(id(n)) } }

// wholeFleet runs reconcile, and once again for the removals that it names as unfinished, as its handler does.
func wholeFleet(p *process) {
	a := p.reconcile(reconcile.Input{})
	if len(a.Unfinished) > 0 {
		time.Sleep(quietTime)
		p.reconcile(reconcile.Input{InstanceIDs: a.Unfinished, Force: true})
	}
}

// granted launches instances, makes their grants and logs them in.
func granted(fleet ...facts.Instance) func(*world) {
	return func(w *world) {
		for _, f := range fleet {
			w.show(f)
			t := w.setState(f.ID, facts.Running)
			if _, err := w.process(nil).handle(provision, t); err != nil {
				panic(err)
			}
			w.beginLogin(f.ID)
		}
		w.endLogins()
		time.Sleep(time.Hour)
	}
}

func then(set func(*world), more ...func(*world)) func(*world) {
	return func(w *world) {
		set(w)
		for _, m := range more {
			m(w)
		}
	}
}

func ends(n int) func(*world) { return func(w *world) { w.setState(id(n), facts.Terminated) } }

// unnamed removes the instance ID from the metadata of aliases: the logins are from before the Vault setup put it there.
func unnamed(w *world) {
	for a, e := range w.Entities {
		e.InstanceID = ""
		w.Entities[a] = e
	}
}

func retagged(n int, name string) func(*world) {
	return func(w *world) {
		f := w.ec2[id(n)]
		f.Tags = map[string]string{"name": name}
		w.show(f)
	}
}

func spoiled(n, what int) func(*world) { return func(w *world) { w.spoil(id(n), what) } }

func scenes() []scene {
	launched := func(w *world) { w.show(worker(0)); w.setState(id(0), facts.Running) }
	return []scene{
		{"provision", launched, onEvent(facts.Running), 15, 0},
		{"provision of a name by tag", func(w *world) { w.show(named(0, "a")); w.setState(id(0), facts.Running) }, onEvent(facts.Running), 12, 0},
		{"provision with changed facts", then(granted(named(0, "a")), retagged(0, "b")), onEvent(facts.Running), 10, 0},
		{"provision by another profile", then(granted(worker(0)), func(w *world) {
			f := named(0, "a")
			f.State, f.PrivateDNSName = facts.Running, w.ec2[id(0)].PrivateDNSName
			w.show(f)
		}), onEvent(facts.Running), 12, 0},
		{"deprovision", then(granted(worker(0)), ends(0)), onEvent(facts.Terminated), 12, 0},
		{"deprovision where an alias is the instance ID", then(func(w *world) { w.EC2Alias = "instance_id" }, granted(worker(0)), ends(0)), onEvent(facts.Terminated), 11, 0},
		{"deprovision where no alias names its instance", then(granted(worker(0)), unnamed, ends(0)), onEvent(facts.Terminated), 12, 0},
		{"deprovision with a second cut", then(granted(named(0, "a")), ends(0)), func(p *process) {
			onEvent(facts.Terminated)(p)
			time.Sleep(2 * time.Minute)
			onEvent(facts.Terminated)(p)
		}, 18, 0},
		{"a name of an ended instance", then(granted(named(0, "a")), ends(0), func(w *world) {
			w.show(named(1, "a"))
			w.setState(id(1), facts.Running)
		}), func(p *process) {
			_, _ = p.handle(both, p.eventOf(id(1), facts.Running))
			time.Sleep(2 * time.Minute)
			_, _ = p.handle(both, p.eventOf(id(0), facts.Terminated))
			_, _ = p.handle(both, p.eventOf(id(1), facts.Running))
		}, 30, 0},
		{"repair of missing and loosened objects", then(granted(worker(0), named(1, "a")), spoiled(0, lockLoosened), spoiled(1, objectGone)), wholeFleet, 20, 0},
		{"repair of lost records", then(granted(worker(0), named(1, "a")), spoiled(0, recordLost), spoiled(1, claimLost)), wholeFleet, 20, 0},
		{"removal by reconcile", then(granted(worker(0), named(1, "a")), ends(0), ends(1)), wholeFleet, 25, 0},
		{"removal by reconcile of absent instances", then(granted(worker(0), named(1, "a")), ends(0), ends(1), func(w *world) {
			w.hide(id(0))
			w.hide(id(1))
		}), wholeFleet, 25, young + time.Minute},
		{"grants by reconcile after lost events", func(w *world) {
			launched(w)
			w.show(named(1, "a"))
			w.setState(id(1), facts.Running)
		}, wholeFleet, 25, 0},
		{"removal of a leaving instance", then(granted(worker(0)), leaves(0)), onHook, 12, 0},
		{"removal of a leaving instance, after an event of the running one", then(granted(worker(0)), leaves(0)), func(p *process) {
			e := p.eventOf(id(0), facts.Running)
			e.Verify = true
			p.undisturbed(p.handle(both, e))
			onHook(p)
		}, 20, 0},
		{"the rest of such a removal, by reconcile", then(granted(worker(0), named(1, "a")), leaves(0), func(w *world) {
			onHook(w.process(&injection{kind: fails, prefix: "vault delete", at: step{nth: 2}}))
		}), wholeFleet, 15, 0},
		{"removal of an unmatched instance", then(granted(worker(0)), func(w *world) {
			f := w.ec2[id(0)]
			f.IAMInstanceProfileARN, f.IAMRoleARN = "", ""
			w.show(f)
		}), wholeFleet, 15, 0},
	}
}

// After a fault at any call of a run, the next run without a fault leaves everything as it should be, and no rule is broken on
// the way. Each run is made once without a fault to learn its calls.
func TestCrash_AtAnyCallIsMendedByTheNextRun(t *testing.T) {
	for _, s := range scenes() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, s.sweep)
		})
	}
}

// sweep makes the run once without a fault, and then once with each kind of fault at each of its calls.
func (s scene) sweep(t *testing.T) {
	w := newWorld()
	s.set(w)
	p := w.process(nil)
	s.act(p)
	time.Sleep(time.Second)
	if wrong := w.differences(); len(wrong) > 0 || len(p.steps) < s.calls {
		t.Fatalf("without a fault, after %d calls (want %d): %v\n%v", len(p.steps), s.calls, wrong, p.steps)
	}
	tried := 0
	for _, at := range p.steps {
		for kind := range interrupted {
			tried += s.try(t, injection{kind: kind, at: at, length: 20 * time.Second})
		}
		for _, length := range []time.Duration{45 * time.Second, 5 * time.Minute} {
			tried += s.try(t, injection{kind: freezes, at: at, length: length})
		}
	}
	t.Logf("%d calls, %d faults", len(p.steps), tried)
}

// quietTime is the time in which the lease of a dead run runs out and every login in flight ends.
const quietTime = converge.LoginTime + 5*time.Second

// try makes the run with one fault, and then without.
func (s scene) try(t *testing.T, k injection) int {
	w := newWorld()
	s.set(w)
	p := w.process(&k)
	s.act(p)
	time.Sleep(max(quietTime, s.rest))
	s.act(w.process(nil))
	if wrong := w.differences(); len(wrong) > 0 {
		t.Fatalf("%q (%d) %s, %s:\n%s", k.at.call, k.at.nth, k.kind, k.length, list(wrong, p))
	}
	if !p.hit {
		return 0 // the run took another way
	}
	return 1
}

func list(wrong []string, p *process) string {
	out := ""
	for _, x := range wrong {
		out += "  " + x + "\n"
	}
	for _, x := range p.steps {
		out += fmt.Sprintf("    %s (%d)\n", x.call, x.nth)
	}
	return out
}
