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

// claim writes an intent with its claims. A claim whose holder EC2 shows as gone is taken over, one after the other: each
// holder is removed first.
func (w *work) claim(ctx context.Context, write ledger.Write) (*ledger.Record, error) {
	record, err := w.Ledger.Put(ctx, write)
	for range write.Claims {
		var held *ledger.ClaimedError
		if !errors.As(err, &held) {
			break
		}
		if err = w.takeOver(ctx, write.New.InstanceID, held.Name); err == nil {
			record, err = w.putIfOpen(ctx, write)
		}
	}
	return record, err
}

// takeOver frees a name that another instance holds, if EC2 says that the holder is gone: its objects are removed
// first, and with them its claims. It succeeds when the name may be claimed again.
func (w *work) takeOver(ctx context.Context, instanceID string, name ledger.Name) error {
	holder, err := w.Ledger.Holder(ctx, name)
	if err != nil || holder == nil {
		return err
	}
	ref := facts.Ref{ID: holder.InstanceID, Place: facts.Place{Account: holder.Account, Region: holder.Region}}
	s := w.Instances.Look(ctx, []facts.Ref{ref})[ref]
	if s.Err != nil {
		return s.Err
	}
	record, err := w.Ledger.Get(ctx, holder.InstanceID)
	if err != nil {
		return err
	}
	// Terminated instances leave EC2's answers within the hour; so do not those that were never seen yet.
	ended := record == nil || record.State == ledger.Deleted && len(record.Former) == 0
	gone := s.Found && s.Facts.State == facts.Terminated ||
		!s.Found && (ended || w.Now().Sub(record.UpdatedAt) > Grace)
	until, former := record.HeldUntil(name)
	switch {
	case gone && w.Duties.Remove:
	case gone, s.Facts.State == facts.ShuttingDown, record.Leaves(s.Facts.LaunchTime):
		return fault.Retryf("the name %s below %s is still held by instance %s, which is gone or on its way out: its removal is awaited", name.Text, name.Under, holder.InstanceID)
	case former && !until.IsZero() && w.Now().After(until):
		return w.giveUp(ctx, record, name)
	default:
		return fault.Refusef("instance %s may not have the name %s below %s: instance %s holds it and is %s; it is free %s",
			instanceID, name.Text, name.Under, holder.InstanceID, state(s), freeWhen(until, former))
	}
	if record != nil && record.State != ledger.Deleted {
		return w.removeHolder(ctx, ref, record)
	}
	return w.giveUp(ctx, record, name, *holder)
}

func freeWhen(until time.Time, former bool) string {
	if !former || until.IsZero() {
		return "once that one is gone"
	}
	return fmt.Sprintf("once that one is gone, or after %s: until then a certificate with it may still be good", until.UTC().Format(time.RFC3339))
}

// removeHolder removes a holder's grant and notes it for those who are to be told. What its own removal leaves to do later
// is not waited for: its names are free.
func (w *work) removeHolder(ctx context.Context, ref facts.Ref, record *ledger.Record) error {
	done, err := w.remove(ctx, removal{old: record, next: *record})
	removed := RemovedHolder{Ref: ref, Outcome: done, Unfinished: errors.Is(err, ErrUnfinished)}
	switch {
	case removed.Unfinished && done.Action != Deprovisioned:
		return fault.Retryf("the removal of instance %s, which held the name, is not over yet", ref.ID)
	case removed.Unfinished, err == nil:
	case fault.KindOf(err) == fault.Conflict:
		removed.Err = err // something is left of it, but not the name
	default:
		return err
	}
	w.removedHolders = append(w.removedHolders, removed)
	return nil
}

// giveUp drops one claim of a holder that has nothing else, or of which it is a former name.
func (w *work) giveUp(ctx context.Context, record *ledger.Record, name ledger.Name, holder ...ledger.Claim) error {
	next := ledger.Record{State: ledger.Deleted}
	if record != nil {
		next = *record
		next.Former = slices.DeleteFunc(slices.Clone(record.Former), func(n ledger.FormerName) bool { return n.Name == name })
	} else {
		next.InstanceID, next.Account, next.Region = holder[0].InstanceID, holder[0].Account, holder[0].Region
	}
	_, err := w.Ledger.Put(ctx, ledger.Write{Old: record, New: next, Owner: w.NewOwner(), Release: []ledger.Name{name}})
	return err
}

func state(s instance.Sighting) facts.State {
	if !s.Found {
		return "not visible yet"
	}
	return s.Facts.State
}

// mayHold returns an error when a grant's claims and the former names of its instance are more than one transaction takes:
// they could not be given up together.
func mayHold(instanceID string, claims []ledger.Name, former []ledger.FormerName) error {
	if n := len(claims) + len(former); n > grant.MaxClaims {
		return fault.Refusef("instance %s would hold %d names and addresses, %d of them from earlier grants whose certificates may still be good, and one transaction of the ledger takes %d: wait until those have ended, or replace the instance",
			instanceID, n, len(former), grant.MaxClaims)
	}
	return nil
}

// ownsMounts returns an error when a PKI mount of a first grant belongs to another deployment: claims are unique within
// one ledger only. Where settings say to adopt, another deployment's mounts are being taken over with its objects.
func (c *Converger) ownsMounts(ctx context.Context, instanceID string, p *grant.Profile) error {
	if c.Adopt {
		return nil
	}
	for _, mount := range p.PKIMounts() {
		owner, err := c.Mounts.Owner(ctx, mount)
		if err != nil {
			return err
		}
		if owner != "" && owner != c.Realm.Deployment {
			return fault.Refusef("instance %s: the PKI mount %s is marked as deployment %s's, and this one is %s: names are unique within one deployment, so a PKI mount belongs to one; use another base_path",
				instanceID, mount, owner, c.Realm.Deployment)
		}
	}
	return nil
}
