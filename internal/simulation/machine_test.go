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

// machine is a world with random steps. The log has a few words for each, so that a counter-example can be read.
type machine struct {
	*world
	t     *rapid.T
	queue []event.Event
	steps int
	log   []string
}

const slots = 4 // instances at once

// Steps of all kinds come in any order: instances start, change and end; events are late, doubled or lost; functions meet every
// kind of fault at any call and interrupt each other; people edit Vault and the ledger by hand. No rule is ever broken, and once
// all is quiet and reconcile has run, Vault, the ledger and EC2 agree.
func TestRandomSteps_BreakNoRuleAndConverge(t *testing.T) {
	steps := 0
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			m := &machine{world: newWorld(), t: rt}
			defer func() {
				steps += m.steps
				rt.Log(strings.Join(m.log, "\n"))
			}()
			rt.Repeat(map[string]func(*rapid.T){
				"launch": m.launch, "change": m.change, "change state": m.changeState, "end": m.end, "leave": m.leaveGroup, "deliver": m.deliver, "deliver two": m.deliverTwo,
				"deliver with fault": m.deliverWithFault, "deliver behind": m.deliverBehind, "reconcile": m.reconcileOnce, "reconcile with fault": m.reconcileWithFault, "login": m.login, "spoil": m.spoilOne,
				"wait": m.wait, "": m.check,
			})
			m.quiet()
		})
	})
	t.Logf("%d steps", steps)
}

func (m *machine) logf(format string, args ...any) {
	m.steps++
	m.log = append(m.log, fmt.Sprintf("%8s  ", time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Truncate(time.Second)%(24*time.Hour))+fmt.Sprintf(format, args...))
}

func (m *machine) check(t *rapid.T) {
	if len(m.violations) > 0 {
		t.Fatalf("rules are broken:\n%s", strings.Join(m.violations, "\n"))
	}
}

// known draws one of the present and former instances. It skips the step if there is none.
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
	m.logf("launch %s, role %q, tags %v", f.ID, f.IAMRoleARN, f.Tags)
	m.show(f)
	m.send(m.eventOf(f.ID, facts.Pending))
	if rapid.Bool().Draw(t, "runs at once") {
		m.send(m.setState(f.ID, facts.Running))
	}
}

// change changes facts that profiles use.
func (m *machine) change(t *rapid.T) { m.changed(m.known(t, m.isAlive), m.drawChange(t)) }

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
	m.logf("%s changes: role %q, tags %v, addresses %v", i, f.IAMRoleARN, f.Tags, f.IPv4s)
	m.show(f)
}

// changeState moves an instance to its next state.
func (m *machine) changeState(t *rapid.T) {
	i := m.known(t, m.isAlive)
	next := map[facts.State]facts.State{
		facts.Pending: facts.Running, facts.Running: facts.Stopping, facts.Stopping: facts.Stopped, facts.Stopped: facts.Running,
	}[m.ec2[i].State]
	m.announce(t, m.setState(i, next), "is "+string(next))
}

// end moves an instance one step towards its end; the last step hides it from EC2's answers.
func (m *machine) end(t *rapid.T) {
	i := m.known(t, func(id string) bool { _, ok := m.ec2[id]; return ok })
	switch m.ec2[i].State {
	case facts.Terminated:
		m.logf("%s is not shown any more", i)
		m.hide(i)
	case facts.ShuttingDown:
		m.announce(t, m.setState(i, facts.Terminated), "is terminated")
	default:
		m.announce(t, m.setState(i, facts.ShuttingDown), "is shutting down")
	}
}

// announce queues an event, or loses it.
func (m *machine) announce(t *rapid.T, e event.Event, what string) {
	lost := rapid.IntRange(0, 5).Draw(t, "lost") == 5
	m.logf("%s %s (event lost: %v)", e.ID, what, lost)
	if !lost {
		m.send(e)
	}
}

// leaveGroup has an instance's Auto Scaling group terminate it.
func (m *machine) leaveGroup(t *rapid.T) {
	i := m.known(t, func(id string) bool { return m.ec2[id].State == facts.Running && !m.leaving[id] })
	m.announce(t, m.startLeaving(i), "is terminated by its group")
}

// draw takes any event out of the queue. A copy may stay, and is delivered again.
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

// handleBy has a process handle an event, which returns to the queue if it is not done.
func (m *machine) handleBy(p *process, e event.Event, how string) {
	m.logf("deliver: %s is %s (by a hook: %v)%s", e.ID, e.State, e.Hook != nil, how)
	out, err := p.handle(dutiesFor(e), e)
	m.log = append(m.log, fmt.Sprintf("            %s, %v", out.Action, err))
	if p.dead || err != nil && isRetry(err) {
		m.send(e)
	}
	m.sendWoken()
}

// sendWoken puts the events of woken instances into the queue.
func (m *machine) sendWoken() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.woken {
		m.send(e)
		m.log = append(m.log, "            woken: "+e.ID)
	}
	m.woken = nil
}

func (m *machine) deliver(t *rapid.T) { m.handleBy(m.process(nil), m.draw(t), "") }

// deliverTwo has two sandboxes work at the same time.
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

// drawInjection draws a fault, at some call of a kind.
func (m *machine) drawInjection(t *rapid.T) *injection {
	k := &injection{
		kind:   faultKind(rapid.IntRange(0, int(faultKinds)-1).Draw(t, "fault")),
		prefix: rapid.SampledFrom([]string{"", "ledger put", "vault write", "vault read", "vault delete", "vault cut", "ledger get", "ledger add waiting", "ledger waiting", "queue", "ec2 describe"}).Draw(t, "call"),
		at:     step{nth: rapid.IntRange(1, 8).Draw(t, "nth")},
	}
	if k.kind == freezes {
		k.length = rapid.SampledFrom([]time.Duration{20 * time.Second, 45 * time.Second, 3 * time.Minute}).Draw(t, "for")
	}
	if k.kind == freezes || k.kind == interrupted {
		k.then = m.interruption(t)
	}
	return k
}

// interruption returns a step for the middle of a run. It is drawn before the run.
func (m *machine) interruption(t *rapid.T) func() {
	what := rapid.SampledFrom([]string{"an event", "reconcile", "a login", "an end", "a change"}).Draw(t, "by")
	ids := m.instances(nil)
	switch {
	case what == "an event" && len(m.queue) > 0:
		e := rapid.SampledFrom(m.queue).Draw(t, "by event")
		return func() { m.handleBy(m.process(nil), e, ", in the middle of it") }
	case what == "a login" && len(ids) > 0:
		i := rapid.SampledFrom(ids).Draw(t, "of")
		return func() { m.logf("%s begins a login: %v", i, m.beginLogin(i)) }
	case what == "an end" && len(ids) > 0:
		i := rapid.SampledFrom(ids).Draw(t, "of")
		return func() {
			if m.isAlive(i) {
				m.handleBy(m.process(nil), m.setState(i, facts.Terminated), ", in the middle of it")
			}
		}
	case what == "a change" && len(ids) > 0:
		i, what := rapid.SampledFrom(ids).Draw(t, "of"), m.drawChange(t)
		return func() {
			if m.isAlive(i) {
				m.changed(i, what)
			}
		}
	}
	return func() { m.reconciled(m.process(nil), ", in the middle of it") }
}

func (m *machine) deliverWithFault(t *rapid.T) {
	e := m.draw(t)
	k := m.drawInjection(t)
	p := m.process(k)
	if rapid.IntRange(0, 3).Draw(t, "lag") == 0 {
		p.lag = 30 * time.Second
	}
	p.behind = m.drawBehind(t)
	m.handleBy(p, e, fmt.Sprintf("; call %d of %q %s, EC2 lags by %s, Vault by %s", k.at.nth, k.prefix, k.kind, p.lag, p.behind))
	m.settle(p)
}

// drawBehind draws how far the server that a process reads from is behind.
func (m *machine) drawBehind(t *rapid.T) time.Duration {
	return rapid.SampledFrom([]time.Duration{0, 0, 300 * time.Millisecond, 20 * time.Second}).Draw(t, "Vault is behind by")
}

// deliverBehind delivers an event to a process that reads from a server which is behind.
func (m *machine) deliverBehind(t *rapid.T) {
	p := m.process(nil)
	p.behind = m.drawBehind(t)
	m.handleBy(p, m.draw(t), fmt.Sprintf("; Vault is behind by %s", p.behind))
}

// settle waits, at times, until the lease of a dead process has run out.
func (m *machine) settle(p *process) {
	if p.dead && rapid.Bool().Draw(m.t, "the lease passes") {
		time.Sleep(quietTime)
	}
}

func (m *machine) reconciled(p *process, how string) {
	m.logf("reconcile%s", how)
	a := p.reconcile(reconcile.Input{})
	m.log = append(m.log, fmt.Sprintf("            %+v, %s", a.Summary, a.BlockedReason))
	m.sendWoken()
}

func (m *machine) reconcileOnce(*rapid.T) { m.reconciled(m.process(nil), "") }

func (m *machine) reconcileWithFault(t *rapid.T) {
	k := m.drawInjection(t)
	p := m.process(k)
	p.behind = m.drawBehind(t)
	m.reconciled(p, fmt.Sprintf("; call %d of %q %s, Vault is behind by %s", k.at.nth, k.prefix, k.kind, p.behind))
	m.settle(p)
}

// login begins a login, or ends those in flight. None takes longer than Vault's longest request.
func (m *machine) login(t *rapid.T) {
	if len(m.logins) > 0 {
		m.logf("the logins under way end")
		m.endLogins()
		return
	}
	i := m.known(t, nil)
	m.logf("%s begins a login: %v", i, m.beginLogin(i))
	if rapid.Bool().Draw(t, "and ends it") {
		m.endLogins()
	}
}

func (m *machine) spoilOne(t *rapid.T) {
	i := m.known(t, nil)
	what := rapid.IntRange(0, ways-1).Draw(t, "what")
	m.logf("edit of %s by hand, way %d", i, what)
	m.spoil(i, what)
}

// wait lets time pass. Expired records are deleted after it; DynamoDB may take longer.
func (m *machine) wait(t *rapid.T) {
	d := rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second, 2 * time.Minute, 11 * time.Minute, 2 * time.Hour}).Draw(t, "for")
	m.logf("%s pass", d)
	if d > time.Second {
		m.endLogins()
	}
	time.Sleep(d)
	maps.DeleteFunc(m.Records, func(_ string, r ledger.Record) bool { return r.ExpiresAt > 0 && r.ExpiresAt < time.Now().Unix() })
}

// quiet empties the queue, waits until no instance is young, and runs reconcile, as by its schedule. Where that frees a name
// for which another instance waits, the next run grants it.
func (m *machine) quiet() {
	m.endLogins()
	for _, i := range slices.Sorted(maps.Keys(m.ec2)) {
		if m.ec2[i].State == facts.ShuttingDown {
			m.send(m.setState(i, facts.Terminated))
		}
	}
	m.drain(10)
	time.Sleep(2 * young)
	m.logf("all is quiet: reconcile")
	wholeFleet(m.process(nil))
	for n := 0; n < slots && m.waiting(); n++ {
		wholeFleet(m.process(nil))
	}
	// Events that waited for the removal of an instance whose end had no event, and those of woken instances.
	m.sendWoken()
	if m.drain(10); len(m.queue) > 0 {
		m.t.Fatalf("want the queue to run empty, got %v", m.queue)
	}
	if wrong := m.differences(); len(wrong) > 0 {
		m.t.Fatalf("in the end:\n%s", strings.Join(wrong, "\n"))
	}
}

// drain delivers the queued events, as often as a queue would in some minutes.
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
