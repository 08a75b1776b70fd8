package lifecycle

import (
	"context"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// takeOver frees a name that another instance holds, if EC2 says that the holder is gone: its objects are removed
// first, and with them its claim. It succeeds when the name may be claimed again.
func (w *work) takeOver(ctx context.Context, instanceID string, name ledger.Name) error {
	holder, err := w.Ledger.Holder(ctx, name)
	if err != nil || holder == nil {
		return err
	}
	ref := instance.Ref{ID: holder.InstanceID, Account: holder.Account, Region: holder.Region}
	s := w.Instances.Look(ctx, []instance.Ref{ref})[ref]
	if s.Err != nil {
		return s.Err
	}
	record, err := w.Ledger.Get(ctx, holder.InstanceID)
	if err != nil {
		return err
	}
	// Terminated instances leave EC2's answers within the hour; so do not those that were never seen yet.
	gone := s.Found && s.Facts.State == facts.Terminated ||
		!s.Found && (record == nil || w.Now().Sub(record.UpdatedAt) > young)
	switch {
	case gone && w.Duties.Remove:
	case gone, s.Facts.State == facts.ShuttingDown, beingRemoved(record, s.Facts):
		return fault.Retryf("the name %s below %s is still held by instance %s, which is gone or on its way out: its removal is awaited", name.FQDN, name.BasePath, holder.InstanceID)
	default:
		return fault.Refusef("instance %s may not have the name %s below %s: instance %s holds it and is %s; it is free once that one is gone",
			instanceID, name.FQDN, name.BasePath, holder.InstanceID, state(s))
	}
	if record != nil && record.State != ledger.Deleted {
		_, err = w.remove(ctx, record, *record)
		if err != nil && fault.KindOf(err) == fault.Conflict {
			return nil // something of somebody else's is left of it, but not the name
		}
		return err
	}
	// A claim whose record is gone already: it is all that is left.
	next := ledger.Record{InstanceID: holder.InstanceID, Account: holder.Account, Region: holder.Region, State: ledger.Deleted}
	_, err = w.Ledger.Put(ctx, ledger.Write{Old: record, New: next, Owner: w.NewOwner(), Release: []ledger.Name{name}})
	return err
}

// beingRemoved tells whether what the holder has is being taken away, or was, though it may run for a while: Auto Scaling
// terminates it, or no profile fits it any more.
func beingRemoved(holder *ledger.Record, f facts.Instance) bool {
	return holder != nil && (holder.State == ledger.Deprovisioning || holder.Leaves(f.LaunchTime))
}

func state(s instance.Sighting) facts.State {
	if !s.Found {
		return "not visible yet"
	}
	return s.Facts.State
}
