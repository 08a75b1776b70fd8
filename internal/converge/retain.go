package converge

import (
	"context"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// checkRetained returns an error if an object of a grant that is to outlive the instance is not in a key-value engine: any other
// engine could take it for something that lets a client in. An object that the record retains already was checked before.
func (c *Converger) checkRetained(ctx context.Context, g *grant.Grant, old *ledger.Record) error {
	for _, o := range g.Objects {
		if !o.Retain || (old != nil && old.RetainsNow(o.Path)) {
			continue
		}
		shown, err := c.Vault.Read(ctx, grant.MountInfoPath(grant.FolderOf(o.Path)))
		if err != nil {
			return err
		}
		if engine, ok := grant.IsDataMount(shown); !ok {
			return fault.Refusef("instance %s: %s may not be retained: on_removal: retain is for a key-value engine of version 1, and Vault has an engine of type %q there; leave out on_removal, or choose another path",
				g.InstanceID, o.Path, engine)
		}
	}
	return nil
}

// forgetLost drops the retained objects from a tombstone that Vault has no more. It returns the tombstone as it is then, with
// an error too.
func (c *Converger) forgetLost(ctx context.Context, record *ledger.Record) (*ledger.Record, error) {
	next := *record
	next.Retained = nil
	for _, o := range record.Retained {
		data, err := c.Vault.Read(ctx, o.Path)
		if err != nil {
			return record, err
		}
		if data != nil {
			next.Retained = append(next.Retained, o)
		}
	}
	if len(next.Retained) == len(record.Retained) {
		return record, nil
	}
	closed, err := c.Ledger.Put(ctx, ledger.Write{Old: record, New: next, Owner: c.NewOwner()})
	if err != nil {
		return record, err
	}
	return closed, nil
}
