package converge

import (
	"context"
	"errors"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// removeGone removes the grant of an instance that has ended, or is ending.
func (c *Converger) removeGone(ctx context.Context, req Request) (Outcome, error) {
	if !c.Duties.Remove {
		return Outcome{Action: LeftAlone}, nil
	}
	if old, ok := req.Batch.takeToRemove(req); ok {
		done, err := c.removeRecorded(ctx, req, old)
		failedFirst := errors.Is(err, ledger.ErrChanged) && done.Action == "" && len(done.Paths) == 0
		if !failedFirst {
			return done, err
		}
		// Another run has written the record since it was read for the batch, and nothing was done by it.
	}
	old, err := c.recordToRemove(ctx, req)
	if err != nil {
		return Outcome{}, err
	}
	return c.removeRecorded(ctx, req, old)
}

// removeRecorded removes the grant of an instance that has ended, or is ending, by its record; nil if there is none.
func (c *Converger) removeRecorded(ctx context.Context, req Request, old *ledger.Record) (Outcome, error) {
	next, err := c.withUntracked(ctx, req, old)
	if err != nil {
		return Outcome{}, err
	}
	if len(next.Objects) == 0 && old == nil {
		return c.writeTombstone(ctx, old, next)
	}
	return c.remove(ctx, removal{batch: req.Batch, by: req.By, at: req.At, old: old, next: next, verifies: req.Verify})
}

// removeLeaving removes the grant of an instance that EC2 shows as alive and Auto Scaling as terminating. Its first write
// sets LeavingSince, unless the record has a time since the instance's last start.
func (c *Converger) removeLeaving(ctx context.Context, req Request, f facts.Instance) (Outcome, error) {
	if !c.Duties.Remove {
		return Outcome{Action: LeftAlone}, nil
	}
	old, err := c.recordToRemove(ctx, req)
	if err != nil {
		return Outcome{}, err
	}
	// The instance may have been stopped and started since the facts were observed.
	next, err := c.recordOfLiving(ctx, req, old, func() error { return staleError(f, c.Now()) })
	if err != nil {
		return Outcome{Holds: holds(old)}, err
	}
	marked := next.Leaves(f.LaunchTime)
	if !marked {
		now := c.Now().Round(0).UTC()
		next.LeavingSince = &now
	}
	needsMark := old == nil || (!marked && old.State == ledger.Deleted)
	if len(next.Objects) == 0 && needsMark {
		return c.writeTombstone(ctx, old, next)
	}
	// Its names are released too: AWS says that it ends. Those of an instance in quarantine are held until its end.
	return c.remove(ctx, removal{batch: req.Batch, by: req.By, at: req.At, old: old, next: next, keepsNames: next.LivesInQuarantine()})
}

// removeTornDown removes the grant of an instance, running or not, whose deployment is torn down.
func (c *Converger) removeTornDown(ctx context.Context, req Request) (Outcome, error) {
	return c.removeFromLiving(ctx, req, false, func() error { return nil })
}

// removeUnmatched removes the earlier grant of a live instance that no profile fits. A function without the Remove duty does
// not read the record.
func (c *Converger) removeUnmatched(ctx context.Context, req Request, f facts.Instance) (Outcome, error) {
	closest := func() string { return c.Profiles.Closest(f) }
	if !c.Duties.Remove {
		return Outcome{Action: Unmatched, Closest: closest}, nil
	}
	done, err := c.removeFromLiving(ctx, req, true, func() error { return staleError(f, c.Now()) })
	if done.Action == Unchanged {
		done.Action, done.Closest = Unmatched, closest
	}
	return done, err
}

// removeFromLiving removes the grant of an instance that may go on running, unless another deployment has adopted the
// instance. keepsNames holds the names until the last certificate with them has ended. recheck is called last; its error
// means that the reason for the removal may have passed.
func (c *Converger) removeFromLiving(ctx context.Context, req Request, keepsNames bool, recheck func() error) (Outcome, error) {
	if !c.Duties.Remove {
		return Outcome{Action: LeftAlone}, nil
	}
	old, err := c.Ledger.Get(ctx, req.ID)
	if err != nil {
		return Outcome{}, err
	}
	next, err := c.recordOfLiving(ctx, req, old, recheck)
	if err != nil {
		return Outcome{Holds: holds(old)}, err
	}
	return c.remove(ctx, removal{batch: req.Batch, by: req.By, at: req.At, old: old, next: next, keepsNames: keepsNames, verifies: req.Verify})
}

// recordToRemove returns the record of an ending instance; nil if there is none. It refuses a request from another place
// than the recorded one while the record has objects or names: only the instance's own place ends it.
func (c *Converger) recordToRemove(ctx context.Context, req Request) (*ledger.Record, error) {
	old, err := c.Ledger.Get(ctx, req.ID)
	if err != nil || old == nil {
		return nil, err
	}
	isOver := old.State == ledger.Deleted && len(old.Names()) == 0
	if !isOver && old.Place() != req.Place {
		return nil, fault.Refusef("instance %s is recorded in account %s, region %s: an event from %s does not end it", req.ID, old.Account, old.Region, req.Name())
	}
	return old, nil
}

// recordOfLiving returns the record of an instance that may go on running, with the untracked objects to remove. It fails
// if another deployment has adopted the instance. recheck is called last.
func (c *Converger) recordOfLiving(ctx context.Context, req Request, old *ledger.Record, recheck func() error) (ledger.Record, error) {
	if err := c.again(ctx, old, func() error { return c.checkNotAdopted(ctx, old) }); err != nil {
		return ledger.Record{}, err
	}
	next, err := c.withUntracked(ctx, req, old)
	if err == nil {
		err = recheck()
	}
	return next, err
}

// writeTombstone writes a tombstone for an instance without a grant. A provision that asked EC2 a moment earlier, while the
// instance still ran, must find the tombstone: no event would ever remove the grant that it makes. It releases the names
// that an older tombstone holds: the instance ends. Those of an instance in quarantine are held until it has ended.
func (c *Converger) writeTombstone(ctx context.Context, old *ledger.Record, next ledger.Record) (Outcome, error) {
	write := ledger.Write{Old: old, New: next, Owner: c.NewOwner()}
	if old != nil && !old.LivesInQuarantine() {
		write.New.Claims, write.New.Former, write.Release = nil, nil, old.Names()
	}
	_, err := c.Ledger.Put(ctx, write)
	return Outcome{Action: Unchanged}, err
}
