package converge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// work is one run under a lease.
type work struct {
	*Converger
	owner  string
	record *ledger.Record // as last written, with the lease
	old    *ledger.Record // as read before the run; nil if there was none
	// mayLag is MayLag of old.
	mayLag bool
	// batch is Request.Batch.
	batch *Batch
	// awaitNames is Request.AwaitNames.
	awaitNames time.Time
	// removedHolders are the instances whose grants this run removed to free a name.
	removedHolders []RemovedHolder
}

// leaseError returns an error while another run holds the lease of a record.
func leaseError(r *ledger.Record, now time.Time) error {
	if r != nil && r.LeaseOwner != "" && r.LeaseExpiresAt >= now.UnixMilli() {
		return fault.New(fault.Retry, fmt.Errorf("instance %s is being worked on until %s: %w",
			r.InstanceID, time.UnixMilli(r.LeaseExpiresAt).UTC().Format(time.RFC3339), ledger.ErrChanged))
	}
	return nil
}

// checkLease returns an error when the run's own lease has run out, or will before a call could end: a sandbox that wakes
// after a freeze must not write into another run. It compares wall-clock time, which goes on while a sandbox is frozen.
func (w *work) checkLease() error {
	if left := w.record.LeaseExpiresAt - w.Now().Round(0).UnixMilli(); left < leaseMargin.Milliseconds() {
		return fault.New(fault.Retry, fmt.Errorf("the lease on instance %s has run out: %w", w.record.InstanceID, ledger.ErrChanged))
	}
	return nil
}

// fail records why a run broke off and returns its lease, so that the next run need not wait for the lease to run out. It
// keeps the lease if the run or a call ran out of time: a call that was given up may still take effect in Vault. It returns
// the reason, joined with the error of the write.
func (c *Converger) fail(ctx context.Context, w ledger.Write, reason error) error {
	w.KeepLease = ctx.Err() != nil || errors.Is(reason, context.DeadlineExceeded) || errors.Is(reason, context.Canceled)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), AnswerTime-time.Second)
	defer cancel()
	w.New.LastError = reason.Error()
	w.New.Attempts++
	_, err := c.Ledger.Put(ctx, w)
	switch {
	case errors.Is(err, ledger.ErrChanged):
		// Another run took over. This run may have seen the other's work, which says nothing of the instance.
		return fault.New(fault.Retry, errors.Join(reason, err))
	case err != nil:
		return fault.New(fault.KindOf(reason), errors.Join(reason, err))
	}
	return reason
}

// refuse records why an instance gets no grant, or keeps its earlier one, and returns the reason.
func (c *Converger) refuse(ctx context.Context, old *ledger.Record, f facts.Instance, reason error) (Outcome, error) {
	return Outcome{Holds: holds(old)}, c.recordRefusal(ctx, old, f, reason)
}

func (c *Converger) recordRefusal(ctx context.Context, old *ledger.Record, f facts.Instance, reason error) error {
	if fault.KindOf(reason) == fault.Retry {
		return reason
	}
	next := ledger.Record{InstanceID: f.ID, Account: f.Account, Region: f.Region, State: ledger.Refused}
	if old != nil {
		if old.LastError == reason.Error() {
			return reason // recorded before
		}
		next = *old
		if old.State == ledger.Deleted {
			next.State = ledger.Refused
		}
	}
	next.LastError = reason.Error()
	next.Attempts++
	_, err := c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: c.NewOwner()})
	if err != nil {
		return fault.New(fault.Retry, errors.Join(reason, err)) // an unrecorded refusal comes back
	}
	return reason
}

// clearError removes the error from a record once its cause has passed, so that the same error is reported again if it
// returns.
func (c *Converger) clearError(ctx context.Context, old *ledger.Record) error {
	if old.LastError == "" {
		return nil
	}
	next := *old
	next.LastError, next.Attempts = "", 0
	_, err := c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: c.NewOwner()})
	return err
}

// holds reports whether a record names objects.
func holds(r *ledger.Record) bool { return r != nil && len(r.Objects) > 0 }
