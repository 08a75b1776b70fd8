package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
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

const (
	killSeed    = 20240611
	killLives   = 25
	killWorkers = 5
)

// killer kills a line's functions at random moments: up to 2 ms after the start of a call that the seed selects, so before
// the call takes effect, after it, or between two calls.
type killer struct {
	*lab.Line
	random *rand.Rand     // of the current life
	calls  map[string]int // number of calls of a run, by kind
	kills  map[string]int // number of runs killed, by kind
}

// during runs do and kills the process in it. It reports whether the kill came before the end of do.
func (k *killer) during(t *testing.T, kind string, f *sandbox.Function, do func() sandbox.Result) bool {
	t.Helper()
	at, wait := 1+k.random.IntN(k.calls[kind]), time.Duration(k.random.IntN(2000))*time.Microsecond
	var n atomic.Int64
	killed := make(chan error, 1)
	k.SetFault(func(tap.Call) *tap.Fault {
		if n.Add(1) == int64(at) {
			go func() {
				time.Sleep(wait)
				killed <- f.Kill()
			}()
		}
		return nil
	})
	result := do()
	k.SetFault(nil)
	if n.Load() >= int64(at) {
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
	}
	if result.ErrorType != "Runtime.ExitError" {
		return false // the run ended first; the process was killed idle or not at all
	}
	k.kills[kind]++
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := k.Quiet(ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // Vault may still handle a request of the killed process
	return true
}

// stage runs one stage of an instance's life and kills its function in it at least once, unless the run ends first.
func (k *killer) stage(t *testing.T, i fleet.Instance, kind, function string, payload []byte, check func()) {
	t.Helper()
	f := k.Functions[function]
	for kills := 1 + k.random.IntN(4)/3; kills > 0; { // one in four is also killed in its second delivery
		var result sandbox.Result
		if k.during(t, kind, f, func() sandbox.Result {
			var err error
			if result, err = f.Invoke(t.Context(), payload); err != nil {
				t.Fatal(err)
			}
			return result
		}) {
			kills--
		} else if done(t, function, result) {
			break // the run ended before the kill
		}
		check()
		labtest.ExpireLease(t, world, i.ID)
	}
	k.Reset()
	for n := 0; ; n++ {
		result, err := f.Invoke(t.Context(), payload)
		if err != nil {
			t.Fatal(err)
		}
		if done(t, function, result) {
			return
		}
		if n == 20 {
			t.Fatalf("%s, %s: still not done 20 deliveries after the last kill: %s\nlogs:\n%s", i.ID, kind, result.Payload, lastOf(f.Logs()))
		}
		labtest.ExpireLease(t, world, i.ID)
	}
}

// done reports whether an invocation did all of its work.
func done(t *testing.T, function string, result sandbox.Result) bool {
	t.Helper()
	if result.Err() != nil {
		return false
	}
	var answer struct {
		BatchItemFailures []any
		Summary           rec.Summary
		Blocked           bool
	}
	if err := json.Unmarshal(result.Payload, &answer); err != nil {
		t.Fatalf("the answer of %s, %s: %v", function, result.Payload, err)
	}
	return len(answer.BatchItemFailures) == 0 && answer.Summary.Failed == 0 && !answer.Blocked
}

// correcting returns the payload of a reconcile in mode correct for one instance.
func correcting(i fleet.Instance) []byte {
	payload, _ := json.Marshal(rec.Input{Mode: rec.Correct, InstanceIDs: []string{i.ID}}) // cannot fail
	return payload
}

// life runs one instance through every stage of its life, with kills in each.
func (k *killer) life(t *testing.T, n int) {
	k.random = rand.New(rand.NewPCG(killSeed, uint64(n)))
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	whole := func() { nothingHalfMade(t, i) }
	running := func() []byte { return labtest.Batch(fleet.Event(i, "running", time.Now())) }

	k.stage(t, i, "provision", provision, running(), whole)
	wantGranted(t, i)
	session := login(t, i)

	assignAddress(t, i)
	k.stage(t, i, "re-provision", provision, running(), whole)
	bothAddresses(t, i)

	p := pathsOf(i.ID)
	spoiled := []string{p.policy, p.kubelet, p.role}[n%3]
	vaultDelete(t, spoiled)
	k.stage(t, i, "repair", reconcile, correcting(i), func() {})
	wantGranted(t, i)

	terminate(t, i)
	removal := func() {
		nothingHalfMade(t, i)
		noLogin(t, i, session.Nonce)
	}
	if n%2 == 0 {
		k.stage(t, i, "deprovision", deprovision, labtest.Batch(fleet.Event(i, "terminated", time.Now())), removal)
	} else {
		k.stage(t, i, "removal by reconcile", reconcile, correcting(i), removal)
	}
	wantGone(t, i, session)
}

// count runs each kind of stage once without kills and counts its calls.
func (k *killer) count(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	run := func(function string, payload []byte) int {
		k.Reset()
		if result, err := k.Functions[function].Invoke(t.Context(), payload); err != nil || !done(t, function, result) {
			t.Fatalf("%s: %s, %v", function, result.Payload, err)
		}
		return len(k.Taps.AWS.Calls()) + len(k.Taps.Dynamo.Calls()) + len(k.Taps.Vault.Calls())
	}
	event := func(state string) []byte { return labtest.Batch(fleet.Event(i, state, time.Now())) }
	k.calls["provision"] = run(provision, event("running"))
	assignAddress(t, i)
	k.calls["re-provision"] = run(provision, event("running"))
	vaultDelete(t, pathsOf(i.ID).kubelet)
	k.calls["repair"] = run(reconcile, correcting(i))
	terminate(t, i)
	k.calls["deprovision"] = run(deprovision, event("terminated"))
	i = launch(t, fleet.Spec{Role: "alice-worker"})
	run(provision, event("running"))
	terminate(t, i)
	k.calls["removal by reconcile"] = run(reconcile, correcting(i))
}

func TestFunction_SurvivesKillAtAnyMoment(t *testing.T) {
	t.Parallel()
	begun := time.Now()
	killers := make([]*killer, killWorkers)
	for n := range killers {
		killers[n] = &killer{
			Line:  line(t, lab.LineOptions{Name: fmt.Sprint("kill", n), Functions: []string{provision, deprovision, reconcile}}),
			calls: map[string]int{}, kills: map[string]int{},
		}
		if n == 0 {
			killers[0].count(t)
		}
		killers[n].calls = killers[0].calls
	}
	lives := make([]int, killLives)
	for n := range lives {
		lives[n] = n
	}
	sideBySide(t, killWorkers, lives, func(n int) string { return fmt.Sprintf("life %d", n) }, func(t *testing.T, worker, n int) {
		killers[worker].life(t, n)
	})
	all := 0
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(killers[0].calls)) {
		n := 0
		for _, k := range killers {
			n += k.kills[kind]
		}
		all += n
		kinds = append(kinds, fmt.Sprintf("%s %d (of %d calls)", kind, n, killers[0].calls[kind]))
	}
	t.Logf("seed %d: %d runs killed in %d lives and %s: %s", killSeed, all, killLives, time.Since(begun).Round(time.Second), strings.Join(kinds, ", "))
	if all < 100 {
		t.Errorf("want at least 100 killed runs, got %d", all)
	}
}
