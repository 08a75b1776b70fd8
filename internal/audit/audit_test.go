package audit_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
)

// bus accepts events, unless it hangs or is down.
type bus struct {
	mu    sync.Mutex
	calls []int
	seen  []audit.Event
	down  bool
	hangs bool
}

func (b *bus) Put(ctx context.Context, events []audit.Event) []error {
	if b.hangs {
		<-ctx.Done()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, len(events))
	if b.down || b.hangs {
		errs := make([]error, len(events))
		for i := range errs {
			errs[i] = errors.New("down")
		}
		return errs
	}
	b.seen = append(b.seen, events...)
	return nil
}

func TestEvents_AreSentOnceInBatchesOfTen(t *testing.T) {
	b := &bus{}
	trail := audit.NewTrail(b)
	for range 23 {
		trail.Add(t.Context(), audit.Event{Type: "t", Detail: audit.Detail{InstanceID: "i-1", Error: strings.Repeat("x", 5000)}})
	}
	if failed, err := trail.Send(t.Context()); failed != 0 || err != nil {
		t.Fatalf("want all sent, got %d failed: %v", failed, err)
	}
	if len(b.calls) != 3 || len(b.seen) != 23 {
		t.Errorf("want 23 events in 3 calls, got %d in calls of %v", len(b.seen), b.calls)
	}
	for _, e := range b.seen {
		if e.Detail.Version != audit.Version || len(e.Detail.Error) > 1024 {
			t.Fatalf("want the version, and the error cut so that ten events fit in a call, got version %d and %d characters", e.Detail.Version, len(e.Detail.Error))
		}
	}
	if failed, err := trail.Send(t.Context()); failed != 0 || err != nil || len(b.calls) != 3 {
		t.Errorf("want nothing left to send, got calls of %v, %d failed, %v", b.calls, failed, err)
	}
}

func TestBus_FaultIsCountedAndBoundedInTime(t *testing.T) {
	for name, b := range map[string]*bus{"down": {down: true}, "hangs": {hangs: true}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond) // a second of it is reserved for the answer
			defer cancel()
			trail := audit.NewTrail(b)
			for range 60 {
				trail.Add(t.Context(), audit.Event{Type: "t"})
			}
			start := time.Now()
			failed, err := trail.Send(ctx)
			if failed != 60 || err == nil {
				t.Errorf("want 60 events counted as lost and the reason, got %d, %v", failed, err)
			}
			if took := time.Since(start); took > 700*time.Millisecond {
				t.Errorf("took %s: the invocation would end without an answer", took)
			}
		})
	}
}

func TestLongRun_SendsAlongAndCountsLosses(t *testing.T) {
	b := &bus{}
	trail := audit.NewTrail(b)
	for range 2400 {
		trail.Add(t.Context(), audit.Event{Type: "t"})
	}
	if sent := len(b.seen); sent != 2000 {
		t.Errorf("want 2000 of 2400 events sent while more are added, got %d: else memory holds a whole fleet's", sent)
	}
	if failed, err := trail.Send(t.Context()); failed != 0 || err != nil || len(b.seen) != 2400 {
		t.Errorf("want all 2400 sent, got %d and %d lost, %v", len(b.seen), failed, err)
	}
	b.down = true
	for range 600 {
		trail.Add(t.Context(), audit.Event{Type: "t"})
	}
	if failed, err := trail.Send(t.Context()); failed != 600 || err == nil {
		t.Errorf("want all 600 lost events counted, got %d, %v", failed, err)
	}
}

func TestEvents_WithoutBusAreDropped(t *testing.T) {
	trail := audit.NewTrail(nil)
	trail.Add(t.Context(), audit.Event{Type: "t"})
	if failed, err := trail.Send(t.Context()); failed != 0 || err != nil {
		t.Errorf("got %d, %v", failed, err)
	}
}
