package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

// loss is a way in which a cluster loses its leader.
type loss struct {
	name   string
	strike func(*testing.T, *vaultserver.Node) error
}

var losses = []loss{
	{"killed", func(_ *testing.T, n *vaultserver.Node) error { return n.Kill() }},
	{"sealed", func(t *testing.T, n *vaultserver.Node) error { return n.Seal(t.Context()) }},
	{"stepped down", func(t *testing.T, n *vaultserver.Node) error { return n.StepDown(t.Context()) }},
}

// isWrite reports whether a call changes Vault, logins aside.
func isWrite(c tap.Call) bool {
	method, path, _ := strings.Cut(c.Action, " ")
	return (method == "PUT" || method == "POST" || method == "DELETE") && !strings.HasSuffix(path, "/login") && !strings.HasSuffix(path, "/lookup/entity")
}

// strikeAt takes the leader away at the nth write of a line's functions: exactly before it, or while the leader handles it. It
// returns a function that waits for the end of the strike and reports whether it came.
func strikeAt(t *testing.T, l *lab.Line, how loss, nth int, during bool) (struck func() bool) {
	t.Helper()
	leader, err := world.Cluster.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var writes atomic.Int64
	done := make(chan struct{})
	l.Taps.Vault.SetFault(func(c tap.Call) *tap.Fault {
		if !isWrite(c) || writes.Add(1) != int64(nth) {
			return nil
		}
		strike := func() {
			defer close(done)
			if err := how.strike(t, leader); err != nil {
				t.Errorf("the leader could not be %s: %v", how.name, err)
			}
		}
		if during {
			go strike()
		} else {
			strike()
		}
		return nil
	})
	return func() bool {
		l.Taps.Vault.SetFault(nil)
		if writes.Load() < int64(nth) {
			return false
		}
		<-done
		return true
	}
}

// foreign are objects of others, beside those of the instances.
func foreign(t *testing.T) (check func()) {
	t.Helper()
	const marker = `path "other/*" { capabilities = ["read"] }`
	paths := map[string]map[string]any{
		"sys/policies/acl/others":            {"policy": marker},
		"alice_cluster/pki/k8s/roles/others": {"allowed_domains": "others.example", "max_ttl": "1h"},
		"auth/aws/role/others":               {"auth_type": "ec2", "bound_account_id": "999999999999", "token_policies": "others"},
	}
	read := func(path string) string {
		secret, err := world.Vault.Logical().ReadWithContext(t.Context(), path)
		if err != nil || secret == nil {
			t.Errorf("want the object of others at %s untouched, got %v, %v", path, secret, err)
			return ""
		}
		return fmt.Sprint(secret.Data)
	}
	before := map[string]string{}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if _, err := world.Vault.Logical().WriteWithContext(t.Context(), path, paths[path]); err != nil {
			t.Fatal(err)
		}
		before[path] = read(path)
	}
	return func() {
		for path, text := range before {
			if now := read(path); now != text {
				t.Errorf("the object of others at %s changed from\n%s to\n%s", path, text, now)
			}
		}
	}
}

// tally counts the losses of a leader by the work that they interrupted.
type tally map[string]int

func (c tally) String() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(c)) {
		out = append(out, fmt.Sprintf("%s %d", name, c[name]))
	}
	return strings.Join(out, ", ")
}

// atWrites runs work again and again and takes the leader away at its first write, then at the write a step later, to its last
// one, in each way by turns. prepare returns the work, which returns the number of deliveries until it was done, and the check
// of its end.
func atWrites(t *testing.T, l *lab.Line, name string, step int, prepare func() (work func() (deliveries int), check func())) {
	t.Helper()
	untouched := foreign(t)
	counts, retried := tally{}, 0
	for turn := 0; ; turn++ {
		how, nth := losses[turn%len(losses)], 1+turn*step
		work, check := prepare()
		struck := strikeAt(t, l, how, nth, turn%2 == 1)
		deliveries := work()
		hit := struck()
		if t.Failed() {
			t.Fatalf("%s, the leader %s at write %d", name, how.name, nth)
		}
		if !hit {
			check()
			break
		}
		restore(t)
		check()
		counts[how.name]++
		if deliveries > 1 {
			retried++
		}
	}
	untouched()
	if len(counts) < len(losses) {
		t.Errorf("%s was interrupted in fewer ways than there are: %s", name, counts)
	}
	t.Logf("%s: leader %s; %d needed another delivery", name, counts, retried)
}

func TestLeaderLost_GrantConverges(t *testing.T) {
	l := line(t, lab.LineOptions{})
	atWrites(t, l, "a grant", 1, func() (func() int, func()) {
		i := launch(t, 1)[0]
		return func() int { return untilDone(t, l.Functions[provision], "running", i) }, func() { wantGranted(t, i) }
	})
}

func TestLeaderLost_RemovalConverges(t *testing.T) {
	l := line(t, lab.LineOptions{})
	atWrites(t, l, "a removal", 1, func() (func() int, func()) {
		i := launch(t, 1)[0]
		untilDone(t, l.Functions[provision], "running", i)
		session := login(t, i)
		terminate(t, i)
		return func() int { return untilDone(t, l.Functions[deprovision], "terminated", i) }, func() { wantGone(t, i, session) }
	})
}

func TestLeaderLost_ReconcileConverges(t *testing.T) {
	l := line(t, lab.LineOptions{})
	atWrites(t, l, "a reconcile", 2, func() (func() int, func()) {
		both := launch(t, 2)
		untilDone(t, l.Functions[provision], "running", both...)
		runs, ends := both[0], both[1]
		session := login(t, ends)
		terminate(t, ends) // no event says so
		for _, path := range []string{"sys/policies/acl/ec2-" + runs.ID + "-node", "alice_cluster/pki/k8s/roles/" + runs.ID + "-kubelet"} {
			if _, err := world.Vault.Logical().DeleteWithContext(t.Context(), path); err != nil {
				t.Fatal(err)
			}
		}
		work := func() int {
			deadline := time.Now().Add(patience)
			for n := 1; ; n++ {
				answer, ok := correct(t, l.Functions[reconcile], both...)
				if ok {
					return n
				}
				if time.Now().After(deadline) {
					t.Fatalf("reconcile still answers %+v after %d runs\nlogs:\n%s", answer, n, lastOf(l.Functions[reconcile].Logs()))
				}
				for _, i := range both {
					labtest.ExpireLease(t, world, i.ID)
				}
				time.Sleep(200 * time.Millisecond)
			}
		}
		return work, func() {
			wantGranted(t, runs)
			wantGone(t, ends, session)
		}
	})
}

func TestLeaderLost_StormConverges(t *testing.T) {
	const (
		starts = 50
		batch  = 10
	)
	l := line(t, lab.LineOptions{Concurrency: 4})
	untouched := foreign(t)
	for _, how := range losses {
		t.Run(how.name, func(t *testing.T) {
			all := launch(t, starts)
			leader, err := world.Cluster.Leader(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			struck := strikeAt(t, l, how, starts, true) // a quarter of the writes are done
			var mu sync.Mutex
			var group sync.WaitGroup
			most, began := 0, time.Now()
			for some := range slices.Chunk(all, batch) {
				group.Go(func() {
					n := untilDone(t, l.Functions[provision], "running", some...)
					mu.Lock()
					defer mu.Unlock()
					most = max(most, n)
				})
			}
			group.Wait()
			if !struck() {
				t.Fatal("the leader was not lost during the storm")
			}
			took := time.Since(began)
			// A killed leader was away for the rest of the storm and returns behind the others.
			reads := lateNode(t, leader, all)
			restore(t)
			wantGranted(t, all...)
			t.Logf("%d starts, leader %s: done after %s with at most %d deliveries of a batch; the former leader was asked %d times while it returned",
				starts, how.name, took.Round(time.Millisecond), most, reads)
		})
	}
	untouched()
}

// lateNode lets a node return and asks it directly for objects that it may lack, until it has answered for all of them. An
// answer without the object would be taken for drift.
func lateNode(t *testing.T, n *vaultserver.Node, all []fleet.Instance) (reads int) {
	t.Helper()
	started := make(chan error, 1)
	go func() { started <- n.Start(t.Context()) }()
	client := productClient(t, n.Address())
	for _, i := range all {
		path := "sys/policies/acl/ec2-" + i.ID + "-node"
		for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			reads++
			data, err := client.Read(t.Context(), path)
			if err == nil && data == nil {
				t.Errorf("the node %s, just back, answered that %s does not exist", n.Name(), path)
			}
			if err == nil {
				break
			}
			wantRetry(t, err)
			if time.Now().After(deadline) {
				t.Fatalf("the node %s does not answer: %v", n.Name(), err)
			}
		}
	}
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return reads
}
