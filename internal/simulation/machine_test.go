package simulation_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// machine is a world in which anything may happen next. Its steps are few words each, so that a counter-example can be
// read.
type machine struct {
	*world
	t     *rapid.T
	queue []event.Event
	steps int
	log   []string
}

const slots = 4 // instances that can be there at once

// Anything happens in any order: instances come, go and change, events come late, twice and never, functions meet every
// kind of blow at any call and interrupt each other, somebody spoils what is there. No rule is ever broken, and once all
// is quiet and reconcile has run, Vault, the ledger and EC2 agree.
func TestWhateverHappensNoRuleIsBrokenAndInTheEndAllAgree(t *testing.T) {
	steps := 0
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			m := &machine{world: newWorld(), t: rt}
			defer func() {
				steps += m.steps
				rt.Log(strings.Join(m.log, "\n"))
			}()
			rt.Repeat(map[string]func(*rapid.T){
				"launch": m.launch, "change": m.change, "turn": m.turnOne, "end": m.end, "leave": m.leaveOne, "deliver": m.deliver, "deliver two": m.deliverTwo,
				"struck": m.struckDelivery, "reconcile": m.reconcileOnce, "struck reconcile": m.struckReconcile, "login": m.login, "spoil": m.spoilOne,
				"wait": m.wait, "": m.check,
			})
			m.quiet()
		})
	})
	t.Logf("%d steps", steps)
}

func (m *machine) say(format string, args ...any) {
	m.steps++
	m.log = append(m.log, fmt.Sprintf("%8s  ", time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Truncate(time.Second)%(24*time.Hour))+fmt.Sprintf(format, args...))
}

func (m *machine) check(t *rapid.T) {
	if len(m.broken) > 0 {
		t.Fatalf("rules are broken:\n%s", strings.Join(m.broken, "\n"))
	}
}

// known draws one of the instances there are or were; none skips the step, in which nothing may have happened yet.
func (m *machine) known(t *rapid.T, fits func(id string) bool) string {
	ids := m.instances(fits)
	if len(ids) == 0 {
		t.Skip("no such instance")
	}
	return rapid.SampledFrom(ids).Draw(t, "instance")
}

func (m *machine) instances(fits func(id string) bool) (ids []string) {
	for n := range slots {
		if _, ok := m.history[id(n)]; ok && (fits == nil || fits(id(n))) {
			ids = append(ids, id(n))
		}
	}
	return ids
}

func (m *machine) send(e event.Event) { m.queue = append(m.queue, e) }

func (m *machine) launch(t *rapid.T) {
	n := rapid.IntRange(0, slots-1).Draw(t, "slot")
	if _, ok := m.history[id(n)]; ok {
		t.Skip("taken")
	}
	f := worker(n)
	switch kind := rapid.SampledFrom([]string{"worker", "named a", "named b", "special", "of no concern"}).Draw(t, "kind"); kind {
	case "named a", "named b":
		f = named(n, strings.TrimPrefix(kind, "named "))
	case "special":
		f.Tags = map[string]string{"special": "yes"}
	case "of no concern":
		f.IAMInstanceProfileARN, f.IAMRoleARN = "", ""
	}
	m.say("launch %s, role %q, tags %v", f.ID, f.IAMRoleARN, f.Tags)
	m.become(f)
	m.send(m.told(f.ID, facts.Pending))
	if rapid.Bool().Draw(t, "runs at once") {
		m.send(m.turn(f.ID, facts.Running))
	}
}

// change is of what the profile looks at.
func (m *machine) change(t *rapid.T) { m.changed(m.known(t, m.alive), m.drawChange(t)) }

func (m *machine) drawChange(t *rapid.T) string {
	return rapid.SampledFrom([]string{"name a", "name b", "no name", "special", "role", "no role", "address"}).Draw(t, "what")
}

func (m *machine) changed(i, what string) {
	f := m.ec2[i]
	switch what {
	case "name a", "name b":
		f.Tags = map[string]string{"name": strings.TrimPrefix(what, "name ")}
	case "no name":
		f.Tags = nil
	case "special":
		f.Tags = map[string]string{"special": "yes"}
	case "role":
		f.IAMInstanceProfileARN, f.IAMRoleARN = named(0, "").IAMInstanceProfileARN, named(0, "").IAMRoleARN
	case "no role":
		f.IAMInstanceProfileARN, f.IAMRoleARN = "", ""
	case "address":
		f.IPv4s = append(slices.Clone(f.IPv4s), netip.AddrFrom4([4]byte{10, 2, f.IPv4s[0].As4()[3], byte(len(f.IPv4s))}))
	}
	m.say("%s changes: role %q, tags %v, addresses %v", i, f.IAMRoleARN, f.Tags, f.IPv4s)
	m.become(f)
}

// turnOne takes an instance to its next state.
func (m *machine) turnOne(t *rapid.T) {
	i := m.known(t, m.alive)
	next := map[facts.State]facts.State{
		facts.Pending: facts.Running, facts.Running: facts.Stopping, facts.Stopping: facts.Stopped, facts.Stopped: facts.Running,
	}[m.ec2[i].State]
	m.tell(t, i, next)
}

// end takes an instance a step towards its end, and out of EC2's answers at last.
func (m *machine) end(t *rapid.T) {
	i := m.known(t, func(id string) bool { _, ok := m.ec2[id]; return ok })
	switch m.ec2[i].State {
	case facts.Terminated:
		m.say("%s is not shown any more", i)
		m.forget(i)
	case facts.ShuttingDown:
		m.tell(t, i, facts.Terminated)
	default:
		m.tell(t, i, facts.ShuttingDown)
	}
}

func (m *machine) tell(t *rapid.T, id string, state facts.State) {
	e := m.turn(id, state)
	lost := rapid.IntRange(0, 5).Draw(t, "lost") == 5
	m.say("%s is %s (event lost: %v)", id, state, lost)
	if !lost {
		m.send(e)
	}
}

// leaveOne has an instance's group terminate it.
func (m *machine) leaveOne(t *rapid.T) {
	i := m.known(t, func(id string) bool { return m.ec2[id].State == facts.Running && !m.leaving[id] })
	e := m.leave(i)
	lost := rapid.IntRange(0, 5).Draw(t, "lost") == 5
	m.say("the group of %s terminates it (event lost: %v)", i, lost)
	if !lost {
		m.send(e)
	}
}

// draw takes an event from anywhere in the queue. A copy may stay: it comes twice.
func (m *machine) draw(t *rapid.T) event.Event {
	if len(m.queue) == 0 {
		t.Skip("no event")
	}
	n := rapid.IntRange(0, len(m.queue)-1).Draw(t, "event")
	e := m.queue[n]
	if rapid.IntRange(0, 3).Draw(t, "again") > 0 {
		m.queue = slices.Delete(m.queue, n, n+1)
	}
	return e
}

// handleBy runs a process on an event, which goes back to the queue where it is not done with.
func (m *machine) handleBy(p *process, e event.Event, how string) {
	m.say("deliver: %s is %s (by a hook: %v)%s", e.ID, e.State, e.Hook != nil, how)
	out, err := p.handle(dutiesFor(e), e)
	m.log = append(m.log, fmt.Sprintf("            %s, %v", out.Action, err))
	if p.dead || err != nil && isRetry(err) {
		m.send(e)
	}
}

func (m *machine) deliver(t *rapid.T) { m.handleBy(m.process(nil), m.draw(t), "") }

// deliverTwo has two sandboxes at work at the same time.
func (m *machine) deliverTwo(t *rapid.T) {
	if len(m.queue) < 2 {
		t.Skip("no two events")
	}
	a, b := m.draw(t), m.draw(t)
	done := make(chan error)
	p := m.process(nil)
	go func() {
		_, err := p.handle(dutiesFor(b), b)
		done <- err
	}()
	m.handleBy(m.process(nil), a, fmt.Sprintf(", while another sandbox has: %s is %s", b.ID, b.State))
	if err := <-done; err != nil && isRetry(err) {
		m.send(b)
	}
}

// blowBy draws a blow, to some call of a kind.
func (m *machine) blowBy(t *rapid.T) *strike {
	k := &strike{
		blow:   blow(rapid.IntRange(0, int(blows)-1).Draw(t, "blow")),
		prefix: rapid.SampledFrom([]string{"", "ledger put", "vault write", "vault read", "vault delete", "vault cut", "ledger get", "ec2 look"}).Draw(t, "call"),
		at:     step{nth: rapid.IntRange(1, 8).Draw(t, "nth")},
	}
	if k.blow == freezes {
		k.length = rapid.SampledFrom([]time.Duration{20 * time.Second, 45 * time.Second, 3 * time.Minute}).Draw(t, "for")
	}
	if k.blow == freezes || k.blow == interrupted {
		k.then = m.interruption(t)
	}
	return k
}

// interruption is one thing that happens in the middle of a run, drawn before the run.
func (m *machine) interruption(t *rapid.T) func() {
	what := rapid.SampledFrom([]string{"an event", "reconcile", "a login", "an end", "a change"}).Draw(t, "by")
	ids := m.instances(nil)
	switch {
	case what == "an event" && len(m.queue) > 0:
		e := rapid.SampledFrom(m.queue).Draw(t, "by event")
		return func() { m.handleBy(m.process(nil), e, ", in the middle of it") }
	case what == "a login" && len(ids) > 0:
		i := rapid.SampledFrom(ids).Draw(t, "of")
		return func() { m.say("%s begins a login: %v", i, m.beginLogin(i)) }
	case what == "an end" && len(ids) > 0:
		i := rapid.SampledFrom(ids).Draw(t, "of")
		return func() {
			if m.alive(i) {
				m.handleBy(m.process(nil), m.turn(i, facts.Terminated), ", in the middle of it")
			}
		}
	case what == "a change" && len(ids) > 0:
		i, what := rapid.SampledFrom(ids).Draw(t, "of"), m.drawChange(t)
		return func() {
			if m.alive(i) {
				m.changed(i, what)
			}
		}
	}
	return func() { m.reconciled(m.process(nil), ", in the middle of it") }
}

func (m *machine) struckDelivery(t *rapid.T) {
	e := m.draw(t)
	k := m.blowBy(t)
	p := m.process(k)
	if rapid.IntRange(0, 3).Draw(t, "lag") == 0 {
		p.lag = 30 * time.Second
	}
	m.handleBy(p, e, fmt.Sprintf("; call %d of %q %s, EC2 lags by %s", k.at.nth, k.prefix, k.blow, p.lag))
	m.settle(p)
}

// settle waits, now and then, until the lease of a process that died has passed.
func (m *machine) settle(p *process) {
	if p.dead && rapid.Bool().Draw(m.t, "the lease passes") {
		time.Sleep(peace)
	}
}

func (m *machine) reconciled(p *process, how string) {
	m.say("reconcile%s", how)
	a := p.reconcile(reconcile.Input{})
	m.log = append(m.log, fmt.Sprintf("            %+v, %s", a.Summary, a.BlockedReason))
}

func (m *machine) reconcileOnce(*rapid.T) { m.reconciled(m.process(nil), "") }

func (m *machine) struckReconcile(t *rapid.T) {
	k := m.blowBy(t)
	p := m.process(k)
	m.reconciled(p, fmt.Sprintf("; call %d of %q %s", k.at.nth, k.prefix, k.blow))
	m.settle(p)
}

// login begins one, or ends those under way; none takes longer than Vault lets a request.
func (m *machine) login(t *rapid.T) {
	if len(m.logins) > 0 {
		m.say("the logins under way end")
		m.endLogins()
		return
	}
	i := m.known(t, nil)
	m.say("%s begins a login: %v", i, m.beginLogin(i))
	if rapid.Bool().Draw(t, "and ends it") {
		m.endLogins()
	}
}

func (m *machine) spoilOne(t *rapid.T) {
	i := m.known(t, nil)
	what := rapid.IntRange(0, ways-1).Draw(t, "what")
	m.say("somebody spoils %s, way %d", i, what)
	m.spoil(i, what)
}

// wait lets time pass; after it, the table has dropped what has expired. DynamoDB may take longer for that.
func (m *machine) wait(t *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second, 2 * time.Minute, 11 * time.Minute, 2 * time.Hour}).Draw(t, "for")
	m.say("%s pass", d)
	if d > time.Second {
		m.endLogins()
	}
	time.Sleep(d)
	maps.DeleteFunc(m.Records, func(_ string, r ledger.Record) bool { return r.ExpiresAt > 0 && r.ExpiresAt < time.Now().Unix() })
}

// quiet lets the queue run empty, waits out what is young, and has reconcile run once, as its schedule does. Where that
// took a name from a live instance that another waits for, the other is a matter of the next run.
func (m *machine) quiet() {
	m.endLogins()
	for _, i := range slices.Sorted(maps.Keys(m.ec2)) {
		if m.ec2[i].State == facts.ShuttingDown {
			m.send(m.turn(i, facts.Terminated))
		}
	}
	m.drain(10)
	time.Sleep(2 * young)
	m.say("all is quiet: reconcile")
	wholeFleet(m.process(nil))
	for n := 0; n < slots && m.waiting(); n++ {
		wholeFleet(m.process(nil))
	}
	// What waited for the removal of one whose end no event told of.
	if m.drain(1); len(m.queue) > 0 {
		m.t.Fatalf("events come back for ever: %v", m.queue)
	}
	if wrong := m.settled(); len(wrong) > 0 {
		m.t.Fatalf("in the end:\n%s", strings.Join(wrong, "\n"))
	}
}

// drain delivers what is queued, as often as a queue would in some minutes.
func (m *machine) drain(rounds int) {
	for round := 0; round < rounds && len(m.queue) > 0; round++ {
		time.Sleep(2 * time.Minute)
		queue := m.queue
		m.queue = nil
		for _, e := range queue {
			m.handleBy(m.process(nil), e, "")
		}
	}
}
