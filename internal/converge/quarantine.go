package converge

import (
	"context"
	"errors"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Order is an order to put an instance into quarantine, or to release it.
type Order struct {
	By     string // as the sender names itself
	Reason string
	Source ledger.QuarantineSource
	// LastSeen is when a finding was last seen; zero for a person's order.
	LastSeen time.Time
}

// quarantine marks the instance as in quarantine, and removes its grant. The mark is written before anything else is tried, so that no
// run grants again, whatever becomes of this one. A repeated order keeps the first mark, and goes on with the removal.
func (c *Converger) quarantine(ctx context.Context, req Request, s instance.Sighting) (Outcome, error) {
	if !c.Duties.Remove {
		return Outcome{Action: LeftAlone}, nil
	}
	old, err := c.recordOfOrder(ctx, req)
	if err != nil {
		return Outcome{}, err
	}
	if old.InQuarantine() {
		return c.cutQuarantined(ctx, req, old)
	}
	if may, err := c.mayQuarantine(req, old, s); !may {
		return Outcome{Action: LeftAlone}, err
	}
	marked, err := c.mark(ctx, req, old)
	if err != nil {
		return Outcome{Holds: holds(old)}, err
	}
	done, err := c.cutQuarantined(ctx, req, marked)
	done.Quarantined = marked.Quarantine
	return done, err
}

// recordOfOrder returns the record of the instance of an order; nil if there is none. It refuses an order from another place than the
// recorded one.
func (c *Converger) recordOfOrder(ctx context.Context, req Request) (*ledger.Record, error) {
	old, err := c.Ledger.Get(ctx, req.ID)
	if err != nil || old == nil || (old.Account == req.Account && old.Region == req.Region) {
		return old, err
	}
	return nil, fault.Refusef("instance %s is recorded in account %s, region %s: an order from %s does not count", req.ID, old.Account, old.Region, req.Name())
}

// mayQuarantine reports whether an order puts an instance into quarantine. A person's order about an instance that has ended is refused.
// A finding about such an instance, about one that this deployment does not serve, or from before a release counts for nothing.
func (c *Converger) mayQuarantine(req Request, old *ledger.Record, s instance.Sighting) (bool, error) {
	isRecorded := old != nil && old.State != ledger.Deleted
	hasEnded := s.Found && s.Facts.State == facts.Terminated
	isUnknown := s.Err != nil && !s.LacksRole()
	if req.Quarantine.Source == ledger.ByFinding {
		return c.mayFindingQuarantine(req, old, s)
	}
	switch {
	case hasEnded:
		return false, fault.Refusef("instance %s is terminated: its grant is removed by that, and it cannot come back", req.ID)
	case !isRecorded && !isUnknown && !s.Found:
		return false, fault.Refusef("instance %s: EC2 does not show it in %s, and the ledger records no grant of it: check the ID, the account and the region", req.ID, req.Name())
	}
	return true, nil
}

func (c *Converger) mayFindingQuarantine(req Request, old *ledger.Record, s instance.Sighting) (bool, error) {
	if old != nil && old.Quarantine != nil && !req.Quarantine.LastSeen.After(*old.Quarantine.ReleasedAt) {
		return false, nil // it led to the quarantine that was released, or is older
	}
	switch {
	case s.Found && s.Facts.State == facts.Terminated:
		return false, nil
	case old != nil && old.State != ledger.Deleted:
		return true, nil
	case s.Err != nil:
		return false, s.Err
	case !s.Found && c.Now().Sub(req.At) < Grace:
		return false, fault.Retryf("instance %s has a finding, and EC2 does not show it yet", req.ID)
	case !s.Found:
		return false, nil
	case old != nil:
		return true, nil
	}
	profile, err := c.Profiles.Match(s.Facts)
	return profile != nil || err != nil, nil
}

// mark writes the mark to the record, or to a new record without a grant. It fails while another run holds the lease: the run may be
// about to write objects that the removal would miss.
func (c *Converger) mark(ctx context.Context, req Request, old *ledger.Record) (*ledger.Record, error) {
	next := ledger.Record{InstanceID: req.ID, Account: req.Account, Region: req.Region, State: ledger.Deleted, EventTime: req.At.UTC()}
	if old != nil {
		next = *old
	}
	order := req.Quarantine
	next.Quarantine = &ledger.Quarantine{Since: c.Now().Round(0).UTC(), By: order.By, Reason: order.Reason, Source: order.Source}
	return c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: c.NewOwner()})
}

// cutQuarantined removes the grant of an instance in quarantine, and holds its names.
func (c *Converger) cutQuarantined(ctx context.Context, req Request, old *ledger.Record) (Outcome, error) {
	next, err := c.recordOfLiving(ctx, req, old, func() error { return nil })
	if err != nil {
		return Outcome{Holds: holds(old)}, err
	}
	r := removal{batch: req.Batch, old: old, next: next, keepsNames: true}
	if old.State != ledger.Deleted { // what appears after the removal is removed by a repair
		r.by, r.at = ledger.ByQuarantine, old.Quarantine.Since
	}
	done, err := c.remove(ctx, r)
	if err == nil && done.Action == Unchanged {
		done.Action = InQuarantine
	}
	return done, err
}

// cutSeenAlive is cutQuarantined for an instance that EC2 shows as alive. A record that says that it ended says so no more.
func (c *Converger) cutSeenAlive(ctx context.Context, req Request, old *ledger.Record) (Outcome, error) {
	if !old.LivesInQuarantine() {
		next := *old
		next.SetQuarantineEnd(nil)
		var err error
		if old, err = c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: c.NewOwner()}); err != nil {
			return Outcome{}, err
		}
	}
	return c.cutQuarantined(ctx, req, old)
}

// hasMoreToCut reports whether the removal of an instance in quarantine is not done, or its record says that it ended.
func hasMoreToCut(req Request, r *ledger.Record) bool {
	return r.State != ledger.Deleted || len(r.Objects) > 0 || !r.LivesInQuarantine() || len(r.Revoking) > 0 || len(req.Untracked) > 0
}

// release ends the quarantine of an instance, once its removal is done: a token that was not cut would get its power back by the next
// grant. It makes no grant; a later run makes it as for a new start.
func (c *Converger) release(ctx context.Context, req Request) (Outcome, error) {
	if !c.Duties.Remove {
		return Outcome{Action: LeftAlone}, nil
	}
	old, err := c.recordOfOrder(ctx, req)
	switch {
	case err != nil:
		return Outcome{}, err
	case !old.InQuarantine():
		return Outcome{}, fault.Refusef("instance %s is not in quarantine", req.ID)
	}
	done, err := c.cutQuarantined(ctx, req, old)
	if err != nil {
		return done, err
	}
	if done.Action != InQuarantine { // removed now: the record has changed
		if old, err = c.Ledger.Get(ctx, req.ID); err != nil {
			return done, err
		}
	}
	if old.State != ledger.Deleted || len(old.Objects) > 0 {
		return done, fault.Retryf("instance %s is not released: its removal is not done", req.ID)
	}
	now := c.Now().Round(0).UTC()
	next, q := *old, *old.Quarantine
	q.ReleasedAt, q.ReleasedBy, q.ReleaseReason = &now, req.Release.By, req.Release.Reason
	next.Quarantine = &q
	if next.CertificateTTL > 0 { // otherwise the names stay held until the instance ends, or a grant shows how long
		next.DateFormer(c.lastCertificate(next))
	}
	if _, err := c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: c.NewOwner()}); err != nil {
		return done, err
	}
	done.Released = &q
	return done, nil
}

// convergeQuarantined takes an order, and then does what the request asks for beside it: an event of the instance's end may come
// together with a finding.
func (c *Converger) convergeQuarantined(ctx context.Context, req Request, s instance.Sighting) (Outcome, error) {
	done, err := c.quarantine(ctx, req, s)
	isEnding := req.Leaving || req.Told.IsEnding() || (s.Found && s.Facts.State == facts.Terminated)
	if !isEnding || (err != nil && !errors.Is(err, ErrUnfinished)) {
		return done, err
	}
	req.Quarantine = nil
	rest, restErr := c.convergeBySighting(ctx, req, s)
	if done.Quarantined == nil && done.Action != Deprovisioned {
		return rest, restErr
	}
	if err == nil {
		err = restErr
	}
	return done, err
}
