package converge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// claim writes an intent with its claims and returns the record as written. If EC2 shows the holder of a name as gone, claim
// first frees the name by removing the holder's grant, one name after the other.
func (w *work) claim(ctx context.Context, write ledger.Write) (*ledger.Record, error) {
	record, err := w.Ledger.Put(ctx, write)
	for range write.Claims {
		var held *ledger.ClaimedError
		if !errors.As(err, &held) {
			break
		}
		if err = w.freeName(ctx, write.New, held.Name); err == nil {
			record, err = w.putIfOpen(ctx, write)
		}
	}
	return record, err
}

// freeName frees a name that another instance holds, if EC2 says that the holder is gone: it removes the holder's grant,
// and with it the claims. It returns nil when the name may be claimed again. For a name that is not free, the instance of the
// record is remembered as waiting.
func (w *work) freeName(ctx context.Context, claimant ledger.Record, name ledger.Name) error {
	holder, err := w.Ledger.Holder(ctx, name)
	if err != nil || holder == nil {
		return err
	}
	ref := facts.Ref{ID: holder.InstanceID, Place: facts.Place{Account: holder.Account, Region: holder.Region}}
	s := w.Instances.Describe(ctx, []facts.Ref{ref})[ref]
	if s.Err != nil && !s.LacksRole() {
		return s.Err
	}
	record, err := w.Ledger.Get(ctx, holder.InstanceID)
	if err != nil {
		return err
	}
	// EC2 stops showing an instance within an hour of its end, and may not show a new instance yet.
	isClosed := record == nil || (record.State == ledger.Deleted && len(record.Former) == 0)
	isTerminated := s.Found && s.Facts.State == facts.Terminated
	isGone := isTerminated || (!s.Found && (isClosed || w.Now().Sub(record.UpdatedAt) > Grace))
	until, isFormer := record.HeldUntil(name)
	switch {
	case isGone && w.Duties.Remove:
	case isGone, s.Facts.State == facts.ShuttingDown, record.Leaves(s.Facts.LaunchTime):
		return w.unlessFree(ctx, claimant, name, holder.InstanceID, fault.Retryf("the name %s below %s is still held by instance %s, which is gone or ending: its removal is awaited", name.Text, name.Under, holder.InstanceID))
	case isFormer && !until.IsZero() && w.Now().After(until):
		return w.releaseName(ctx, record, name)
	default:
		held := fault.Refusef("instance %s may not have the name %s below %s: instance %s holds it and is %s; it is free %s",
			claimant.InstanceID, name.Text, name.Under, holder.InstanceID, stateOf(s, record), freeWhen(until, isFormer))
		if w.Now().Before(w.awaitNames) {
			held = fault.New(fault.Retry, fmt.Errorf("%w; a launch hook waits for it until %s", held, w.awaitNames.UTC().Format(time.RFC3339)))
		}
		return w.unlessFree(ctx, claimant, name, holder.InstanceID, held)
	}
	if record != nil && record.State != ledger.Deleted {
		return w.removeHolder(ctx, ref, record)
	}
	if record == nil {
		record = &ledger.Record{InstanceID: ref.ID, Account: ref.Account, Region: ref.Region, State: ledger.Deleted}
		_, err := w.Ledger.Put(ctx, ledger.Write{New: *record, Owner: w.NewOwner(), Release: []ledger.Name{name}})
		return err
	}
	return w.releaseName(ctx, record, name)
}

// freeWhen returns the words for when a held name becomes free.
func freeWhen(until time.Time, isFormer bool) string {
	if !isFormer || until.IsZero() {
		return "once that instance is gone"
	}
	return fmt.Sprintf("once that instance is gone, or after %s: until then a certificate with it may still be good", until.UTC().Format(time.RFC3339))
}

// stateOf returns the state of a holder as messages name it, by its sighting and record.
func stateOf(s instance.Sighting, r *ledger.Record) string {
	state := "not visible yet"
	if s.Found {
		state = string(s.Facts.State)
	}
	if r.InQuarantine() {
		state += ", in quarantine"
	}
	return state
}

// removeHolder removes a holder's grant and adds it to the removed holders. It does not wait for the part of the removal
// that a later run finishes: the names are free.
func (w *work) removeHolder(ctx context.Context, ref facts.Ref, record *ledger.Record) error {
	done, err := w.remove(ctx, removal{batch: w.batch, old: record, next: *record})
	removed := RemovedHolder{Ref: ref, Outcome: done, Unfinished: errors.Is(err, ErrUnfinished)}
	switch {
	case removed.Unfinished && done.Action != Deprovisioned:
		return fault.Retryf("the removal of instance %s, which held the name, is not over yet", ref.ID)
	case removed.Unfinished, err == nil:
	case fault.KindOf(err) == fault.Conflict:
		removed.Err = err // objects of the holder are left, but not the name
	default:
		return err
	}
	w.removedHolders = append(w.removedHolders, removed)
	return nil
}

// releaseName releases a name of a holder: a former name, or any name of a tombstone.
func (c *Converger) releaseName(ctx context.Context, record *ledger.Record, name ledger.Name) error {
	next := *record
	next.Former = slices.DeleteFunc(slices.Clone(record.Former), func(n ledger.FormerName) bool { return n.Name == name })
	_, err := c.Ledger.Put(ctx, ledger.Write{Old: record, New: next, Owner: c.NewOwner(), Release: []ledger.Name{name}})
	return err
}

// checkClaimCount returns an error if the claims of a grant and the instance's former names are more than one transaction of
// the ledger takes: a removal could not release them together.
func checkClaimCount(instanceID string, claims []ledger.Name, former []ledger.FormerName) error {
	if n := len(claims) + len(former); n > grant.MaxClaims {
		return fault.Refusef("instance %s would hold %d names and addresses, %d of them from earlier grants whose certificates may still be good, and one transaction of the ledger takes %d: wait until those have ended, or replace the instance",
			instanceID, n, len(former), grant.MaxClaims)
	}
	return nil
}

// checkMounts returns an error if a PKI or SSH mount of a first grant belongs to another deployment: claims are unique within one
// ledger only. Where settings say to adopt, another deployment's mounts are taken over with its objects.
func (c *Converger) checkMounts(ctx context.Context, instanceID string, p *grant.Profile) error {
	if c.Adopt {
		return nil
	}
	mounts := p.Mounts()
	for _, mount := range mounts.All() {
		owner, err := c.Mounts.Owner(ctx, mount)
		if err != nil {
			return err
		}
		if owner != "" && owner != c.Realm.Deployment {
			return fault.Refusef("instance %s: the %s is marked as deployment %s's, and this one is %s: names are unique within one deployment, so a mount belongs to one; use another base_path",
				instanceID, mounts.Describe(mount), owner, c.Realm.Deployment)
		}
	}
	return nil
}
