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
	s := w.Instances.Look(ctx, []instance.Ref{{ID: holder.InstanceID, Account: holder.Account, Region: holder.Region}})[holder.InstanceID]
	if s.Err != nil {
		return s.Err
	}
	gone := s.Found && s.Facts.State == facts.Terminated
	if !s.Found {
		// Terminated instances leave EC2's answers within the hour; so do not those that were never seen yet.
		record, err := w.Ledger.Get(ctx, holder.InstanceID)
		if err != nil {
			return err
		}
		gone = record == nil || w.Now().Sub(record.UpdatedAt) > young
	}
	switch {
	case !gone:
		return fault.Refusef("instance %s may not have the name %s below %s: instance %s holds it and is %s; it is free once that one is gone",
			instanceID, name.FQDN, name.BasePath, holder.InstanceID, state(s))
	case !w.Duties.Remove:
		return fault.Retryf("the name %s below %s is still held by instance %s, which is gone: its removal is awaited", name.FQDN, name.BasePath, holder.InstanceID)
	}
	_, err = w.remove(ctx, holder.InstanceID)
	return err
}

func state(s instance.Sighting) facts.State {
	if !s.Found {
		return "not visible yet"
	}
	return s.Facts.State
}
