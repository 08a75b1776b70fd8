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

// scene is something a function does, from a state of the world that is made anew for each try.
type scene struct {
	name  string
	set   func(w *world) // the stage
	act   func(p *process)
	calls int           // at least as many as this
	rest  time.Duration // before the next run, where peace is not enough
}

// happens runs the function that an event of now about the first instance is for.
func happens(state facts.State) func(*process) {
	return func(p *process) { e := p.told(id(0), state); p.peaceful(p.handle(dutiesFor(e), e)) }
}

// peaceful breaks a rule if a process that nothing befalls fails.
func (p *process) peaceful(_ converge.Outcome, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.strike == nil && err != nil && !errors.Is(err, converge.ErrUnfinished) {
		p.breaks("a run in peace fails: %v", err)
	}
}

// hookTells runs the function that the event of a terminate hook is for.
func hookTells(p *process) { p.peaceful(p.handle(deprovision, p.hooked(id(0)))) }

func leaves(n int) func(*world) { return func(w *world) { w.leave(id(n)) } }

// wholeFleet runs reconcile. What it removed is looked after once more where it says so, as its handler does.
func wholeFleet(p *process) {
	a := p.reconcile(reconcile.Input{})
	if len(a.Unfinished) > 0 {
		time.Sleep(peace)
		p.reconcile(reconcile.Input{InstanceIDs: a.Unfinished, Force: true})
	}
}

// granted launches instances and gives them what they should have, and a login.
func granted(fleet ...facts.Instance) func(*world) {
	return func(w *world) {
		for _, f := range fleet {
			w.become(f)
			t := w.turn(f.ID, facts.Running)
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

func ends(n int) func(*world) { return func(w *world) { w.turn(id(n), facts.Terminated) } }

// unnamed has logins as before the Vault setup put the instance ID into the metadata of aliases.
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
		w.become(f)
	}
}

func spoiled(n, what int) func(*world) { return func(w *world) { w.spoil(id(n), what) } }

func scenes() []scene {
	launched := func(w *world) { w.become(worker(0)); w.turn(id(0), facts.Running) }
	return []scene{
		{"provision", launched, happens(facts.Running), 15, 0},
		{"provision of a name by tag", func(w *world) { w.become(named(0, "a")); w.turn(id(0), facts.Running) }, happens(facts.Running), 12, 0},
		{"provision with changed facts", then(granted(named(0, "a")), retagged(0, "b")), happens(facts.Running), 10, 0},
		{"provision by another profile", then(granted(worker(0)), func(w *world) {
			f := named(0, "a")
			f.State, f.PrivateDNSName = facts.Running, w.ec2[id(0)].PrivateDNSName
			w.become(f)
		}), happens(facts.Running), 12, 0},
		{"deprovision", then(granted(worker(0)), ends(0)), happens(facts.Terminated), 12, 0},
		{"deprovision where an alias is the instance ID", then(func(w *world) { w.EC2Alias = "instance_id" }, granted(worker(0)), ends(0)), happens(facts.Terminated), 11, 0},
		{"deprovision where no alias names its instance", then(granted(worker(0)), unnamed, ends(0)), happens(facts.Terminated), 12, 0},
		{"deprovision of one that settles", then(granted(named(0, "a")), ends(0)), func(p *process) {
			happens(facts.Terminated)(p)
			time.Sleep(2 * time.Minute)
			happens(facts.Terminated)(p)
		}, 18, 0},
		{"a name taken over from one that is gone", then(granted(named(0, "a")), ends(0), func(w *world) {
			w.become(named(1, "a"))
			w.turn(id(1), facts.Running)
		}), func(p *process) {
			_, _ = p.handle(both, p.told(id(1), facts.Running))
			time.Sleep(2 * time.Minute)
			_, _ = p.handle(both, p.told(id(0), facts.Terminated))
			_, _ = p.handle(both, p.told(id(1), facts.Running))
		}, 30, 0},
		{"repair of what is missing and what is loosened", then(granted(worker(0), named(1, "a")), spoiled(0, lockLoosened), spoiled(1, objectGone)), wholeFleet, 20, 0},
		{"repair of lost records", then(granted(worker(0), named(1, "a")), spoiled(0, recordLost), spoiled(1, claimLost)), wholeFleet, 20, 0},
		{"removal of what is left over by reconcile", then(granted(worker(0), named(1, "a")), ends(0), ends(1)), wholeFleet, 25, 0},
		{"removal by reconcile of what EC2 does not show any more", then(granted(worker(0), named(1, "a")), ends(0), ends(1), func(w *world) {
			w.forget(id(0))
			w.forget(id(1))
		}), wholeFleet, 25, young + time.Minute},
		{"making what no event told of by reconcile", func(w *world) {
			launched(w)
			w.become(named(1, "a"))
			w.turn(id(1), facts.Running)
		}, wholeFleet, 25, 0},
		{"removal from one that its group terminates", then(granted(worker(0)), leaves(0)), hookTells, 12, 0},
		{"the same, with an event that it runs before each try", then(granted(worker(0)), leaves(0)), func(p *process) {
			e := p.told(id(0), facts.Running)
			e.Verify = true
			p.peaceful(p.handle(both, e))
			hookTells(p)
		}, 20, 0},
		{"the rest of such a removal by reconcile", then(granted(worker(0), named(1, "a")), leaves(0), func(w *world) {
			hookTells(w.process(&strike{blow: fails, prefix: "vault delete", at: step{nth: 2}}))
		}), wholeFleet, 15, 0},
		{"removal from an instance that fits no more", then(granted(worker(0)), func(w *world) {
			f := w.ec2[id(0)]
			f.IAMInstanceProfileARN, f.IAMRoleARN = "", ""
			w.become(f)
		}), wholeFleet, 15, 0},
	}
}

// Whatever befalls whichever call of a run, the next clean run leaves all as it should be, and no rule was broken on the
// way. Each run is made once in peace to learn its calls.
func TestWhateverBefallsAnyCallTheNextRunLeavesAllAsItShouldBe(t *testing.T) {
	for _, s := range scenes() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, s.sweep)
		})
	}
}

// sweep makes the run once in peace, and then once for each blow to each of its calls.
func (s scene) sweep(t *testing.T) {
	w := newWorld()
	s.set(w)
	p := w.process(nil)
	s.act(p)
	time.Sleep(time.Second)
	if wrong := w.settled(); len(wrong) > 0 || len(p.steps) < s.calls {
		t.Fatalf("in peace, after %d calls (want %d): %v\n%v", len(p.steps), s.calls, wrong, p.steps)
	}
	tried := 0
	for _, at := range p.steps {
		for blow := range interrupted {
			tried += s.try(t, strike{blow: blow, at: at, length: 20 * time.Second})
		}
		for _, length := range []time.Duration{45 * time.Second, 5 * time.Minute} {
			tried += s.try(t, strike{blow: freezes, at: at, length: length})
		}
	}
	t.Logf("%d calls, %d blows", len(p.steps), tried)
}

// peace is when the lease of a run that died has passed and every login that was under way has ended.
const peace = 100 * time.Second

// try deals one blow and then runs in peace.
func (s scene) try(t *testing.T, k strike) int {
	w := newWorld()
	s.set(w)
	p := w.process(&k)
	s.act(p)
	time.Sleep(max(peace, s.rest))
	s.act(w.process(nil))
	if wrong := w.settled(); len(wrong) > 0 {
		t.Fatalf("%q (%d) %s, %s:\n%s", k.at.call, k.at.nth, k.blow, k.length, list(wrong, p))
	}
	if !p.hit {
		return 0 // the way there was another one
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
