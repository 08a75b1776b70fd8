package simulation_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// life is the states of an instance that is stopped and started once.
var life = []facts.State{facts.Pending, facts.Running, facts.Stopping, facts.Stopped, facts.Running, facts.ShuttingDown, facts.Terminated}

// orders returns all ways to pick five of the seven events, one after the other.
func orders() [][]int {
	var out [][]int
	var pick func(chosen []int)
	pick = func(chosen []int) {
		if len(chosen) == 5 {
			out = append(out, slices.Clone(chosen))
			return
		}
		for n := range life {
			if !slices.Contains(chosen, n) {
				pick(append(chosen, n))
			}
		}
	}
	pick(nil)
	return out
}

// Any five of the events of an instance's life come in any order, each up to three times and some never, and the instance ends in
// any state. Once all is quiet and reconcile has run, Vault holds the grant that EC2 asks for.
func TestEventOrder_DoesNotChangeTheEnd(t *testing.T) {
	all := orders()
	if len(all) != 2520 {
		t.Fatalf("want 7!/2! orders, got %d", len(all))
	}
	if testing.Short() {
		all = all[:250]
	}
	var lives, deliveries atomic.Int64
	t.Run("each", func(t *testing.T) {
		for part := range slices.Chunk(all, (len(all)+3)/4) {
			t.Run(fmt.Sprint(part[0]), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					for _, order := range part {
						for _, last := range []int{1, 3, 6} { // running, stopped, terminated
							n := live(t, order, last)
							deliveries.Add(int64(n))
							lives.Add(1)
						}
					}
				})
			})
		}
	})
	t.Logf("%d lives, %d deliveries", lives.Load(), deliveries.Load())
}

// live moves one instance to its last state, and delivers events on the way.
func live(t *testing.T, order []int, last int) (deliveries int) {
	dice := rand.New(rand.NewPCG(uint64(last), uint64(order[0]*10000+order[1]*1000+order[2]*100+order[3]*10+order[4])))
	w := newWorld()
	f := worker(0)
	if dice.IntN(2) == 0 {
		f = named(0, "a")
	}
	w.show(f)
	times := make([]time.Time, len(life))
	for n := range times {
		times[n] = time.Now().Add(time.Duration(n) * 40 * time.Second)
	}
	var queue []int
	for _, n := range order {
		for range dice.IntN(4) { // none: it is lost
			queue = append(queue, n)
		}
	}
	at := 0
	var log []string
	deliver := func(n int) bool {
		deliveries++
		e := event.Event{Ref: facts.Ref{ID: id(0), Place: facts.Place{Account: here.Account, Region: here.Region}}, State: life[n], Time: times[n].Truncate(time.Second)}
		out, err := w.process(nil).handle(dutiesFor(e), e)
		log = append(log, fmt.Sprintf("%s: %s while it is %s: %s, %v", time.Now().Format(time.TimeOnly), life[n], w.ec2[id(0)].State, out.Action, err))
		return err == nil
	}
	for i, n := range queue {
		for at < last && at <= last*(i+1)/len(queue) {
			at++
			w.setState(id(0), life[at])
		}
		deliver(n) // and again below, whatever its result
		time.Sleep(time.Duration(dice.IntN(30)) * time.Second)
		if w.beginLogin(id(0)) && dice.IntN(2) == 0 {
			w.endLogins()
		}
	}
	for at < last {
		at++
		w.setState(id(0), life[at])
	}
	w.endLogins()
	for round := 0; round < 8 && len(queue) > 0; round++ {
		time.Sleep(2 * time.Minute) // a queue's visibility timeout
		queue = slices.DeleteFunc(queue, deliver)
	}
	time.Sleep(2 * young)
	wholeFleet(w.process(nil))
	if wrong := w.differences(); len(wrong) > 0 || len(queue) > 0 {
		t.Fatalf("events %v, last state %s; still queued: %v\n%s\n%s", order, life[last], queue, strings.Join(wrong, "\n"), strings.Join(log, "\n"))
	}
	return deliveries
}
