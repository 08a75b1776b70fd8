package simulation_test

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Two or three instances want one name, and its holder ends: by its event, by its group's hook, or first the one and then the
// other. A step of the one interrupts the run of the other at any call. Once the events that there are have been delivered, one of
// those that waited has the name: no other event came, and no comparison ran.
func TestWaitingInstance_GetsTheNameUnasked(t *testing.T) {
	waited := 0
	rapid.Check(t, func(rt *rapid.T) {
		rapid.SyncTest(rt, func(rt *rapid.T) {
			m := &machine{world: newWorld(), t: rt}
			defer func() { rt.Log(strings.Join(m.log, "\n")) }()
			heirs := rapid.IntRange(1, 2).Draw(rt, "instances that wait")
			running := make([]event.Event, heirs+1)
			for n := range running {
				m.show(named(n, "a"))
				running[n] = m.setState(id(n), facts.Running)
			}
			m.handleBy(m.process(nil), running[0], ", the holder")
			if m.Records[id(0)].State != ledger.Active {
				rt.Fatalf("the first instance has no grant: %+v", m.Records[id(0)])
			}
			if rapid.Bool().Draw(rt, "a token lives") {
				m.beginLogin(id(0))
				m.endLogins()
			}
			ends := func() {
				if rapid.Bool().Draw(rt, "by its group") {
					m.handleBy(m.process(nil), m.startLeaving(id(0)), ", by its group")
				}
				m.send(m.setState(id(0), facts.ShuttingDown))
				m.handleBy(m.process(nil), m.setState(id(0), facts.Terminated), ", the end")
			}
			wants := func() {
				for _, e := range running[1:] {
					m.handleBy(m.process(nil), e, ", an heir")
				}
			}
			first, second := wants, ends
			if rapid.Bool().Draw(rt, "the end comes first") {
				first, second = ends, wants
			}
			isInterrupted := rapid.Bool().Draw(rt, "one interrupts the other")
			if !isInterrupted {
				first()
				waited += len(m.Waiters)
				second()
			} else {
				m.interruptAnHeir(rt, running[1], ends)
				for _, e := range running[2:] {
					m.handleBy(m.process(nil), e, ", an heir")
				}
			}
			m.drain(10)
			m.check(rt)
			granted := ""
			for n := 1; n <= heirs; n++ {
				if m.Records[id(n)].State == ledger.Active {
					granted += id(n) + " "
				}
			}
			if len(strings.Fields(granted)) != 1 || len(m.under(id(0))) > 0 || len(m.queue) > 0 {
				rt.Fatalf("want one heir granted, got %q; of the holder is left %v, in the queue %v", granted, m.under(id(0)), m.queue)
			}
		})
	})
	if waited == 0 {
		t.Error("no instance ever waited: the test shows nothing")
	}
}

// interruptAnHeir handles the event of an heir, and ends the holder in the middle of it, or after it.
func (m *machine) interruptAnHeir(rt *rapid.T, e event.Event, ends func()) {
	isOver := false
	end := func() {
		if !isOver {
			isOver = true
			ends()
		}
	}
	k := &injection{kind: interrupted, prefix: rapid.SampledFrom([]string{"", "ledger"}).Draw(rt, "call"), at: step{nth: rapid.IntRange(1, 12).Draw(rt, "nth")}, then: end}
	m.handleBy(m.process(k), e, fmt.Sprintf(", an heir; the holder ends at call %d of %q", k.at.nth, k.prefix))
	end()
}
