package converge

import (
	"context"
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const (
	// replacingTime is how long after Auto Scaling was last seen replacing a root volume the login is reset. It is longer than the
	// queue delivers an event. Later, an event alone would reset a login.
	replacingTime = 2 * time.Hour
	// volumeSkew is how far the clocks of Vault and EC2 may differ. An accesslist entry is the old system's if it was made so long
	// before the new volume was attached, by Vault's clock and by EC2's. The new system first boots, and so logs in later. An entry
	// within the margin stays: a login that must be reset by hand is better than one that anyone may make.
	volumeSkew = time.Minute
)

// resetLogin deletes the accesslist entry of an instance whose root volume Auto Scaling replaced: the nonce of its ec2 login is lost
// with the volume, and Vault refuses a login without it. The grant stays.
//
// Only an entry from before the new volume was attached is deleted. The old system may log in until it ends, and its entry is
// older; the new system's entry is younger and stays, however often this runs. While EC2 shows the old volume, nothing is
// deleted: the record keeps that the volume is being replaced, and a later run deletes the entry.
//
// Between the deletion and the next login anyone with the instance's identity document can log in as the instance. So the
// entry is deleted only by Auto Scaling's word, now or as recorded.
func (c *Converger) resetLogin(ctx context.Context, req Request, f facts.Instance) (Outcome, error) {
	if !c.Duties.Remove {
		return Outcome{Action: LeftAlone}, nil
	}
	old, err := c.Ledger.Get(ctx, req.ID)
	if err != nil {
		return Outcome{}, err
	}
	now := c.Now().Round(0).UTC()
	isReplacing := req.Volume == VolumeReplacing
	wasReplacing := old != nil && old.ReplacingSince != nil && now.Sub(*old.ReplacingSince) < replacingTime
	isAttached := f.RootAttachedAt.After(req.At.Add(-volumeSkew)) // since the event that begins the replacement
	switch {
	case !isReplacing && !wasReplacing && now.Sub(req.At) < Grace:
		return Outcome{}, fault.Retryf("instance %s gets a new root volume by its event, and Auto Scaling does not show that yet", req.ID)
	case old.InQuarantine():
		return Outcome{Action: InQuarantine}, nil
	case old == nil, old.LoginType == "iam", old.State != ledger.Active && old.State != ledger.Provisioning, !isReplacing && !wasReplacing:
		return Outcome{Action: LeftAlone}, nil // no ec2 login, or no grant
	case old.Place() != req.Place:
		return Outcome{}, fault.Refusef("instance %s is recorded in account %s, region %s: an event from %s does not reset its login", req.ID, old.Account, old.Region, req.Name())
	case !isReplacing && !isAttached && now.Sub(*old.ReplacingSince) < Grace:
		return Outcome{}, fault.Retryf("instance %s has a new root volume by Auto Scaling, and EC2 does not show it yet", req.ID)
	}
	if err := leaseError(old, now); err != nil {
		return Outcome{}, err
	}
	w := c.begin(req.Batch, old)
	next := *old
	next.ReplacingSince = &now
	if w.record, err = c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: w.owner, KeepLease: true}); err != nil {
		return Outcome{}, err
	}
	deleted, err := w.deleteOldEntries(ctx, f.RootAttachedAt)
	if err != nil {
		return Outcome{Holds: true}, w.fail(ctx, ledger.Write{Old: w.record, New: *w.record, Owner: w.owner}, err)
	}
	next = *w.record
	if !isReplacing {
		next.ReplacingSince = nil
	}
	if _, err := c.Ledger.Put(ctx, ledger.Write{Old: w.record, New: next, Owner: w.owner}); err != nil {
		return Outcome{}, err
	}
	done := Outcome{Action: LeftAlone, Profile: old.Profile, FQDN: old.FQDN, Objects: deleted}
	if deleted > 0 {
		done.Action = LoginReset
	}
	if isReplacing {
		return done, fault.New(fault.Retry, fmt.Errorf("instance %s: %w", req.ID, ErrReplacing))
	}
	return done, nil
}

// deleteOldEntries deletes the accesslist entries of the instance from before a time, on each mount of its auth roles, and returns
// their number.
func (w *work) deleteOldEntries(ctx context.Context, attached time.Time) (deleted int, err error) {
	own, _ := ownPaths(w.record.InstanceID, w.record.Objects)
	logins, _ := split(own)
	for _, o := range logins {
		mount, _, _ := grant.SplitAuthRolePath(o.Path)
		path := grant.AccessListPath(mount, w.record.InstanceID)
		entry, err := w.Vault.Read(ctx, path)
		if err != nil {
			return deleted, err
		}
		if entry == nil {
			continue
		}
		// https://developer.hashicorp.com/vault/api-docs/auth/aws#read-identity-access-list-information
		text, _ := entry["creation_time"].(string)
		made, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return deleted, fault.Refusef("instance %s: %s has no readable creation_time, so that it is unknown whether its new system made it: if no login of the new system succeeds, delete the entry by hand", w.record.InstanceID, path)
		}
		if !made.Before(attached.Add(-volumeSkew)) {
			continue
		}
		if err := w.delete(ctx, path); err != nil {
			return deleted, err
		}
		deleted++
	}
	return deleted, nil
}
