package integration

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// redeliver delivers a message as its queue would, until the function is done with it. It expires no lease, since the
// holders are running.
func redeliver(t *testing.T, f *sandbox.Function, body []byte) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		again, _ := labtest.Deliver(t, f, body)
		if len(again) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s still comes back after a minute: a lease was not released, or no run succeeds\nlogs:\n%s", body, lastOf(f.Logs()))
			return
		}
	}
}

// writesFor counts a line's writes and deletions in Vault for an instance.
func writesFor(l *lab.Line, id string) int {
	n := 0
	for _, c := range l.Taps.Vault.Calls() {
		if strings.Contains(c.Path, id) && (strings.HasPrefix(c.Action, "PUT ") || strings.HasPrefix(c.Action, "DELETE ")) {
			n++
		}
	}
	return n
}

func TestRepeatedEvent_GrantsOnceInTwentySandboxes(t *testing.T) {
	t.Parallel()
	const sandboxes = 20
	l := line(t, lab.LineOptions{Functions: []string{provision}, Concurrency: sandboxes})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	body := fleet.Event(i, "running", time.Now())
	// Each sandbox waits at its intent until all have read that there is no record.
	var waiting sync.WaitGroup
	waiting.Add(sandboxes)
	var arrived atomic.Int64
	l.SetFault(func(c tap.Call) *tap.Fault {
		if c.Action == "TransactWriteItems" && arrived.Add(1) <= sandboxes {
			waiting.Done()
			waiting.Wait()
		}
		return nil
	})
	var returned atomic.Int64
	var group sync.WaitGroup
	for range sandboxes {
		group.Go(func() {
			if again, _ := labtest.Deliver(t, l.Functions[provision], body); len(again) > 0 {
				returned.Add(1)
			}
		})
	}
	group.Wait()
	l.SetFault(nil)
	if n := returned.Load(); n != sandboxes-1 {
		t.Errorf("want one of %d to make the grant and the others' messages back, got %d back", sandboxes, n)
	}
	if n := writesFor(l, i.ID); n != writesOfGrant(t) {
		t.Errorf("want the 4 objects written once among all sandboxes, got %d writes", n)
	}
	wantGranted(t, i)
	redeliver(t, l.Functions[provision], body)
	if n := writesFor(l, i.ID); n != writesOfGrant(t) {
		t.Errorf("want the message's next delivery to write nothing, got %d writes in all", n)
	}
}

// The instance ends while its grant is made: it is terminated at each call of the run in turn, and its event is handled
// concurrently.
func TestTermination_WinsOverProvision(t *testing.T) {
	t.Parallel()
	const atOnce = 3
	lines := make([]*lab.Line, atOnce)
	for n := range lines {
		lines[n] = line(t, lab.LineOptions{Name: fmt.Sprint("race", n), Functions: []string{provision, deprovision}, Concurrency: 2})
		warm := launch(t, fleet.Spec{Role: "alice-worker"})
		redeliver(t, lines[n].Functions[provision], fleet.Event(warm, "running", time.Now()))
	}
	calls := make([]int, 15) // DescribeInstances, GetInstanceProfile, three of the ledger's, nine of Vault's, PutEvents
	for n := range calls {
		calls[n] = n + 1
	}
	sideBySide(t, atOnce, calls, func(n int) string { return fmt.Sprintf("at call %d", n) }, func(t *testing.T, worker, at int) {
		l := lines[worker]
		i := launch(t, fleet.Spec{Role: "alice-worker"})
		started, ended := fleet.Event(i, "running", time.Now()), make(chan struct{})
		var n atomic.Int64
		l.SetFault(func(tap.Call) *tap.Fault {
			if n.Add(1) != int64(at) {
				return nil
			}
			if err := world.Fleet.Terminate(t.Context(), i); err != nil {
				t.Error(err)
			}
			go func() {
				defer close(ended)
				redeliver(t, l.Functions[deprovision], fleet.Event(i, "terminated", time.Now()))
			}()
			return &tap.Fault{Delay: 150 * time.Millisecond}
		})
		redeliver(t, l.Functions[provision], started)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatalf("the provision made only %d calls, so no termination came between them", n.Load())
		}
		l.SetFault(nil)
		// A provision event that is redelivered after the removal must not make objects.
		redeliver(t, l.Functions[provision], started)
		wantGone(t, i)
		noLogin(t, i, "")
	})
}

func TestReconcile_BesideOthersEndsAsEC2Says(t *testing.T) {
	t.Parallel()
	l := line(t, lab.LineOptions{Functions: []string{provision, deprovision, reconcile}, Concurrency: 3})
	var all []fleet.Instance
	for range 6 {
		i := launch(t, fleet.Spec{Role: "alice-worker"})
		redeliver(t, l.Functions[provision], fleet.Event(i, "running", time.Now()))
		all = append(all, i)
	}
	stay, leave := all[:3], all[3:]
	ids := make([]string, 0, len(all))
	for n, i := range all {
		ids = append(ids, i.ID)
		p := pathsOf(i.ID)
		vaultDelete(t, []string{p.policy, p.kubelet, p.role}[n%3])
	}
	for _, i := range stay {
		assignAddress(t, i)
	}
	terminate(t, leave...)
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() { runReconcile(t, l.Functions[reconcile], rec.Input{Mode: rec.Correct, InstanceIDs: ids}) })
	}
	for _, i := range all {
		group.Go(func() { redeliver(t, l.Functions[provision], fleet.Event(i, "running", time.Now().Add(-time.Second))) })
	}
	for _, i := range leave {
		for range 2 {
			group.Go(func() { redeliver(t, l.Functions[deprovision], fleet.Event(i, "terminated", time.Now())) })
		}
	}
	group.Wait()
	a := runReconcile(t, l.Functions[reconcile], rec.Input{Mode: rec.Correct, InstanceIDs: ids})
	if a.Blocked || a.Summary.Failed > 0 || a.Summary.Conflicting > 0 {
		t.Errorf("want one run after the race to correct what it left, got %+v", a)
	}
	for _, i := range stay {
		bothAddresses(t, i)
	}
	for _, i := range leave {
		wantGone(t, i)
		noLogin(t, i, "")
	}
}

// bothAddresses fails unless the grant is that of the later run, which saw the second address.
func bothAddresses(t *testing.T, i fleet.Instance) {
	t.Helper()
	wantGranted(t, i)
	if role := vaultRead(t, pathsOf(i.ID).role); len(role["token_bound_cidrs"].([]any)) != 2 {
		t.Errorf("want the later run's grant with both addresses, got %v", role["token_bound_cidrs"])
	}
}

// A process is frozen for longer than its lease allows it to begin a call, and another run takes over meanwhile. The test
// expires the lease in the ledger at once, but the process uses its own clock, so it really sleeps.
func TestFrozenSandbox_WritesNothingAfterItsLease(t *testing.T) {
	t.Parallel()
	const asleep = 53 * time.Second // a call may begin with 25 s left of the 75 s lease; a run has 45 s
	sleeper := line(t, lab.LineOptions{Name: "sleeper", Functions: []string{provision}})
	other := line(t, lab.LineOptions{Name: "other", Functions: []string{provision}})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	begun, frozen := time.Now(), make(chan error, 1)
	var once sync.Once
	sleeper.SetFault(func(c tap.Call) *tap.Fault {
		if strings.HasPrefix(c.Action, "PUT sys/policies/acl/ec2-"+i.ID) {
			once.Do(func() { frozen <- sleeper.Functions[provision].Freeze() })
		}
		return nil
	})
	woken := make(chan []int, 1)
	go func() {
		again, _ := labtest.Deliver(t, sleeper.Functions[provision], fleet.Event(i, "running", time.Now()))
		woken <- again
	}()
	if err := <-frozen; err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // its sent requests reach Vault
	if !labtest.ExpireLease(t, world, i.ID) {
		t.Fatal("the sleeper holds no lease, so the test proves nothing")
	}
	assignAddress(t, i)
	redeliver(t, other.Functions[provision], fleet.Event(i, "running", time.Now()))
	before, writes := recordOf(t, i), writesFor(sleeper, i.ID)
	time.Sleep(time.Until(begun.Add(asleep)))
	if err := sleeper.Functions[provision].Thaw(); err != nil {
		t.Fatal(err)
	}
	if again := <-woken; !slices.Equal(again, []int{0}) {
		t.Errorf("want the sleeper's message back, since it cannot know the result of its run, got %v", again)
	}
	if n := writesFor(sleeper, i.ID); n != writes {
		t.Errorf("the sleeper wrote %d objects after it woke, into the grant of another run", n-writes)
	}
	if after := recordOf(t, i); after.Version != before.Version {
		t.Errorf("the sleeper wrote the record: version %d, then %d", before.Version, after.Version)
	}
	bothAddresses(t, i)
}

// A run stops at a call, loses its lease there and continues.
func TestLostLease_RunIsRetriedNotRefused(t *testing.T) {
	t.Parallel()
	for name, stops := range map[string]struct {
		at func(c tap.Call, id string) bool
		n  int64 // at the n-th call
	}{
		// All objects are in Vault. Only the ledger's write of active is missing.
		"before its record is active": {func(c tap.Call, id string) bool { return c.Action == "PutItem" && strings.Contains(string(c.Body), id) }, 1},
		// It reads what the other run wrote, which must not refuse the instance.
		"as it reads back its auth role": {func(c tap.Call, id string) bool { return c.Action == "GET auth/aws/role/"+id }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slow := line(t, lab.LineOptions{Name: "slow", Functions: []string{provision}})
			other := line(t, lab.LineOptions{Name: "other", Functions: []string{provision}})
			i := launch(t, fleet.Spec{Role: "alice-worker"})
			held, release := make(chan struct{}), make(chan struct{})
			var calls atomic.Int64
			slow.SetFault(func(c tap.Call) *tap.Fault {
				if !stops.at(c, i.ID) {
					return nil
				}
				n := calls.Add(1)
				if n == stops.n {
					close(held)
				}
				if n >= stops.n {
					<-release
				}
				return nil
			})
			ended := make(chan []int, 1)
			go func() {
				again, _ := labtest.Deliver(t, slow.Functions[provision], fleet.Event(i, "running", time.Now()))
				ended <- again
			}()
			<-held
			labtest.ExpireLease(t, world, i.ID)
			assignAddress(t, i)
			redeliver(t, other.Functions[provision], fleet.Event(i, "running", time.Now()))
			before := recordOf(t, i)
			close(release)
			if again := <-ended; !slices.Equal(again, []int{0}) {
				t.Errorf("want the message of the run that lost its lease back, got %v\nlogs:\n%s", again, lastOf(slow.Functions[provision].Logs()))
			}
			if after := recordOf(t, i); after.Version != before.Version {
				t.Errorf("a run without a lease wrote the record: version %d, then %d", before.Version, after.Version)
			}
			bothAddresses(t, i)
		})
	}
}
