package converge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Waiting remembers which instances wait for the names of a holder.
type Waiting interface {
	AddWaiting(ctx context.Context, holder string, r facts.Ref) error
	Waiting(ctx context.Context, holder string) ([]facts.Ref, error)
}

// Queue sends live instances to the provision queue.
type Queue interface {
	// Send returns one error for each event, nil for those that were sent.
	Send(ctx context.Context, live []event.Event) []error
}

// wakeTime bounds the work after a release: the removal is done, and its run must not end late.
const wakeTime = 3 * time.Second

// Waker is a Ledger. After each write that releases names it sends the instances that wait for the holder's names to the
// provision queue. A failure is only logged: the names are free, and reconcile finds the waiting instances.
type Waker struct {
	Ledger
	Waiters Waiting
	Queue   Queue
	Log     *slog.Logger
	Now     func() time.Time
}

// Put makes a write, as the Ledger does, and wakes the instances that wait.
func (k Waker) Put(ctx context.Context, w ledger.Write) (*ledger.Record, error) {
	r, err := k.Ledger.Put(ctx, w)
	if err == nil && len(w.Release) > 0 {
		k.wake(ctx, w.New.InstanceID)
	}
	return r, err
}

func (k Waker) wake(ctx context.Context, holder string) {
	ctx, cancel := context.WithTimeout(ctx, wakeTime)
	defer cancel()
	list, err := k.Waiters.Waiting(ctx, holder)
	var events []event.Event
	for _, r := range list {
		if r.ID != holder {
			events = append(events, event.NameFree(r, k.Now()))
		}
	}
	if err == nil && len(events) > 0 {
		err = errors.Join(k.Queue.Send(ctx, events)...)
	}
	if err != nil {
		k.Log.WarnContext(ctx, "the instances that wait for names of instance "+holder+" were not all woken: the next comparison grants them", "error", err)
	}
}

// unlessFree remembers that a claimant waits for a name of a holder, and returns held; nil if the holder released the name before
// that: no release would wake the claimant any more.
func (w *work) unlessFree(ctx context.Context, claimant ledger.Record, name ledger.Name, holder string, held error) error {
	if w.Waiters == nil {
		return held
	}
	ref := facts.Ref{ID: claimant.InstanceID, Place: claimant.Place()}
	if err := w.Waiters.AddWaiting(ctx, holder, ref); err != nil {
		return fault.New(fault.KindOf(err), fmt.Errorf("%w; the ledger could not note that it waits: %w", held, err))
	}
	switch now, err := w.Ledger.Holder(ctx, name); {
	case err != nil || now == nil:
		return err
	case now.InstanceID != holder:
		return fault.Retryf("the name %s passed from instance %s to %s meanwhile", name, holder, now.InstanceID)
	}
	return held
}
