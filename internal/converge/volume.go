package converge

import (
	"context"
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// replacingTime is how long after Auto Scaling was last seen replacing a root volume the login is reset again. It is longer than
// the queue delivers an event. Later, an event alone would reset a login.
const replacingTime = 2 * time.Hour

// resetLogin deletes the accesslist entry of an instance whose root volume Auto Scaling replaces: the nonce of its ec2 login is
// lost with the volume, and Vault refuses a login without it. The grant stays.
//
// The old system runs on for a while and may log in with the old nonce, which makes a new entry. So the record keeps since when
// the volume is replaced, and the first run after that deletes the entry again. By then the new system may have logged in; it
// logs in again, with its own nonce.
//
// Between the deletion and the next login anyone with the instance's identity document can log in as the instance. So the
// entry is deleted only by Auto Scaling's word, now or as recorded.
func (c *Converger) resetLogin(ctx context.Context, req Request) (Outcome, error) {
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
	switch {
	case !isReplacing && !wasReplacing && c.Now().Sub(req.At) < Grace:
		return Outcome{}, fault.Retryf("instance %s gets a new root volume by its event, and Auto Scaling does not show that yet", req.ID)
	case old == nil, old.LoginType == "iam", old.State != ledger.Active && old.State != ledger.Provisioning, !isReplacing && !wasReplacing:
		return Outcome{Action: LeftAlone}, nil // no ec2 login, or no grant
	case old.Account != req.Account || old.Region != req.Region:
		return Outcome{}, fault.Refusef("instance %s is recorded in account %s, region %s: an event from %s does not reset its login", req.ID, old.Account, old.Region, req.Name())
	}
	if err := leaseError(old, c.Now()); err != nil {
		return Outcome{}, err
	}
	w := c.begin(old)
	next := *old
	next.ReplacingSince = &now
	if w.record, err = c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: w.owner, KeepLease: true}); err != nil {
		return Outcome{}, err
	}
	own, _ := ownPaths(req.ID, w.record.Objects)
	logins, _ := split(own)
	for _, o := range logins {
		mount, _, _ := grant.SplitAuthRolePath(o.Path)
		if err := w.delete(ctx, grant.AccessListPath(mount, req.ID)); err != nil {
			return Outcome{Holds: true}, w.fail(ctx, ledger.Write{Old: w.record, New: *w.record, Owner: w.owner}, err)
		}
	}
	next = *w.record
	if !isReplacing {
		next.ReplacingSince = nil
	}
	if _, err := c.Ledger.Put(ctx, ledger.Write{Old: w.record, New: next, Owner: w.owner}); err != nil {
		return Outcome{}, err
	}
	done := Outcome{Action: LoginReset, Profile: old.Profile, FQDN: old.FQDN, Objects: len(logins)}
	if isReplacing {
		return done, fault.New(fault.Retry, fmt.Errorf("instance %s: %w", req.ID, ErrReplacing))
	}
	return done, nil
}
