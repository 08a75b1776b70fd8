package install

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// patience bounds the wait for an instance's grant or removal, with messages that come back once.
const patience = 3 * time.Minute

// kind is a kind of instances and the certificate that they ask for.
type kind struct {
	role  string
	issue func(fleet.Instance) (path string, fields map[string]any)
}

// load is a fleet in use: steady instances log in and ask for certificates all the time, and others start and end beside them.
type load struct {
	world  *lab.World
	kind   kind
	steady []fleet.Instance

	stop func()
	done sync.WaitGroup

	mu    sync.Mutex
	asked map[string]int // certificates by instance
	ended []fleet.Instance
}

// start launches steady instances, waits for their grants, and begins the load.
func start(t *testing.T, w *lab.World, k kind, steady int) *load {
	t.Helper()
	all, err := w.Fleet.Launch(t.Context(), fleet.Spec{Role: k.role, Count: steady})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if err := w.Fleet.Announce(t.Context(), i, "running"); err != nil {
			t.Fatal(err)
		}
	}
	l := &load{world: w, kind: k, steady: all, asked: map[string]int{}}
	var sessions []*fleet.Session
	for _, i := range all {
		sessions = append(sessions, l.firstLogin(t, i))
	}
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	t.Cleanup(func() { stop(); l.done.Wait() })
	for n, i := range all {
		l.done.Go(func() { l.use(ctx, t, i, sessions[n]) })
	}
	l.done.Go(func() {
		for ctx.Err() == nil && !t.Failed() {
			l.live(t)
		}
	})
	return l
}

// firstLogin logs an instance in as soon as it has its grant.
func (l *load) firstLogin(t *testing.T, i fleet.Instance) *fleet.Session {
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		session, err := l.world.Fleet.Login(t.Context(), l.world.AuthMount, i, "")
		if err == nil {
			return session
		}
		if time.Now().After(deadline) || t.Context().Err() != nil {
			record, recordErr := l.world.Record(t.Context(), i.ID)
			t.Errorf("%s cannot log in %v after its start: %v; its record is %+v, %v", i.ID, patience, err, record, recordErr)
			return nil
		}
	}
}

// use asks for a certificate five times a second, and logs in again each two seconds. Every refusal fails the test.
func (l *load) use(ctx context.Context, t *testing.T, i fleet.Instance, session *fleet.Session) {
	for n := 1; ctx.Err() == nil && session != nil; n++ {
		if err := l.certificate(t.Context(), i, session); err != nil {
			t.Errorf("%s lost its certificate path at its request %d: %v", i.ID, n, err)
			return
		}
		if n%10 == 0 {
			again, err := l.world.Fleet.Login(t.Context(), l.world.AuthMount, i, session.Nonce)
			if err != nil {
				t.Errorf("%s cannot log in again after %d requests: %v", i.ID, n, err)
				return
			}
			session = again
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (l *load) certificate(ctx context.Context, i fleet.Instance, session *fleet.Session) error {
	path, fields := l.kind.issue(i)
	answer, err := session.Logical().WriteWithContext(ctx, path, fields)
	if err != nil {
		return err
	}
	if text, _ := answer.Data["certificate"].(string); !strings.HasPrefix(text, "-----BEGIN CERTIFICATE-----") {
		return fmt.Errorf("%s answered without a certificate", path)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked[i.ID]++
	return nil
}

// live runs one short life: start, login, certificate, end.
func (l *load) live(t *testing.T) {
	launched, err := l.world.Fleet.Launch(t.Context(), fleet.Spec{Role: l.kind.role})
	if err != nil {
		t.Error(err)
		return
	}
	i := launched[0]
	if err := l.world.Fleet.Announce(t.Context(), i, "running"); err != nil {
		t.Error(err)
		return
	}
	session := l.firstLogin(t, i)
	if session == nil {
		return
	}
	if err := l.certificate(t.Context(), i, session); err != nil {
		t.Errorf("the new instance %s gets no certificate: %v", i.ID, err)
	}
	l.end(t, i)
}

// end terminates an instance and announces it.
func (l *load) end(t *testing.T, i fleet.Instance) {
	if err := l.world.Fleet.Terminate(t.Context(), i); err != nil {
		t.Error(err)
		return
	}
	if err := l.world.Fleet.Announce(t.Context(), i, "terminated"); err != nil {
		t.Error(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = append(l.ended, i)
}

// has waits until a number of further instances have started and ended, and each steady one got a certificate since.
func (l *load) has(t *testing.T, lives int) {
	t.Helper()
	l.mu.Lock()
	from := len(l.ended)
	clear(l.asked)
	l.mu.Unlock()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		l.mu.Lock()
		isDone := len(l.ended) >= from+lives && !slices.ContainsFunc(l.steady, func(i fleet.Instance) bool { return l.asked[i.ID] == 0 })
		l.mu.Unlock()
		if t.Failed() {
			t.FailNow()
		}
		if isDone {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("want %d instances to start and end, and each steady one to ask for certificates; seen %d and %v", lives, len(l.ended)-from, l.asked)
		}
	}
}

// finish ends the load and all instances, and waits until nothing of them is left but their tombstones.
func (l *load) finish(t *testing.T) {
	t.Helper()
	l.stop()
	l.done.Wait()
	for _, i := range l.steady {
		l.end(t, i)
	}
	t.Logf("%d instances started and ended", len(l.ended))
	for _, i := range l.ended {
		for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
			record, err := l.world.Record(t.Context(), i.ID)
			if err != nil {
				t.Fatal(err)
			}
			if record.State == ledger.Deleted {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("want a tombstone of %s %v after its end, seen %+v", i.ID, patience, record)
			}
		}
	}
	if left, err := l.world.Objects(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("want no object of a terminated instance in Vault, seen %v, %v", left, err)
	}
}
