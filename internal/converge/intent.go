package converge

import (
	"context"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// confirmation is an instance with its role as IAM names it now. changed reports whether that is another role. err is why the instance
// gets no grant.
type confirmation struct {
	facts   facts.Instance
	changed bool
	err     error
}

// confirmRole asks IAM for the role, if the grant is the first one or of another profile: such a grant must not rest on a cached role.
// For such a grant it also checks the PKI mounts. Only a first grant may rest on an unconfirmed role.
func (c *Converger) confirmRole(ctx context.Context, s *situation) (out confirmation) {
	f := s.facts
	out.facts = f
	if holds(s.record) && s.record.Profile == s.profile.Name {
		return out
	}
	if f.RoleObservedAt.Before(f.ObservedAt) {
		if f, out.err = c.Instances.RoleNow(ctx, f); out.err != nil {
			return out
		}
		out.changed = f.IAMRoleARN != s.facts.IAMRoleARN
		f.RoleObservedAt = f.ObservedAt
		out.facts = f
	}
	switch {
	case f.RoleUnconfirmed && holds(s.record):
		out.changed, out.err = false, unconfirmedError(f)
	case !out.changed:
		out.err = c.checkMounts(ctx, f.ID, s.profile)
	}
	return out
}

// intent is a grant about to be made, with the untracked objects to remove beside it.
type intent struct {
	request   Request
	facts     facts.Instance
	grant     *grant.Grant
	found     map[string]map[string]any // the objects of the grant in Vault
	untracked []ledger.Object
	// certificateTTL is how long a certificate of the instance can be good; 0 if that is unknown.
	certificateTTL time.Duration
}

// intend writes the record with the paths of the grant and of all objects that may already exist, and claims the instance's
// names and addresses.
func (w *work) intend(ctx context.Context, i intent, old *ledger.Record) error {
	f, g := i.facts, i.grant
	next := ledger.Record{}
	if old != nil {
		next = *old
	}
	next.InstanceID, next.State, next.Account, next.Region = f.ID, ledger.Provisioning, f.Account, f.Region
	next.Profile, next.ProfileDigest = g.Profile.Name, g.Profile.Digest
	next.BasePath, next.FQDN, next.Addresses = g.Profile.BasePath, g.FQDN, f.Only(g.Profile.Addresses).Addresses()
	next.ExtraPolicies, next.QuietUntil = len(g.Profile.Auth.ExtraPolicies) > 0, nil
	next.LeavingSince = nil
	now := w.Now().Round(0).UTC()
	next.MadeAt = &now
	if isFirst := !holds(old) || old.State == ledger.Deprovisioning; isFirst {
		next.Ready, next.Cut = ledger.NewSpan(i.request.By, i.request.At), nil
	}
	next.EventTime, next.LastError = i.request.At.UTC(), ""
	next.Objects = slices.Concat(next.Objects, i.untracked)
	next.Retain(g)
	next.Objects = w.objectsOf(g, old, next.Objects, i.found)
	next.LoginType = g.Profile.Auth.Type
	next.TokenMaxTTL = max(next.TokenMaxTTL, seconds(g.Profile.Auth.TokenMaxTTL))
	next.CertificateTTL = seconds(i.certificateTTL)
	if isFirst := old == nil || old.MadeAt == nil; isFirst || next.CertificateBackdated > 0 {
		next.CertificateBackdated = max(next.CertificateBackdated, seconds(g.Backdated), 1)
	}
	next.Claims = ledger.NamesOf(g)
	if old != nil {
		// Old names stay claimed while an object or a certificate bears them; activate sets until when.
		next.MakeFormer(old.Held())
	}
	free := w.dropEnded(&next)
	if err := checkClaimCount(f.ID, next.Claims, next.Former); err != nil {
		return err
	}
	record, err := w.claim(ctx, ledger.Write{Old: old, New: next, Owner: w.owner, KeepLease: true, Claims: next.Claims, Release: free})
	w.record = record
	return err
}

// dropEnded drops former names that the new grant claims again, or whose last certificate has ended. It returns those to
// release, at most as many as one transaction takes.
func (w *work) dropEnded(next *ledger.Record) (free []ledger.Name) {
	next.Former = slices.DeleteFunc(slices.Clone(next.Former), func(n ledger.FormerName) bool {
		isClaimed := slices.Contains(next.Claims, n.Name)
		hasEnded := !n.Until.IsZero() && w.Now().After(n.Until) && len(next.Claims)+len(free) < grant.MaxClaims
		if hasEnded && !isClaimed {
			free = append(free, n.Name)
		}
		return hasEnded || isClaimed
	})
	return free
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// putIfOpen writes an intent some time after the run was begun: the deployment may have been torn down meanwhile.
func (w *work) putIfOpen(ctx context.Context, write ledger.Write) (*ledger.Record, error) {
	since, err := w.Ledger.TornDown(ctx)
	if err == nil && since != nil {
		err = fault.Retryf("instance %s: this deployment was torn down at %s: nothing is granted", write.New.InstanceID, since.Format(time.RFC3339))
	}
	if err != nil {
		return nil, err
	}
	return w.Ledger.Put(ctx, write)
}

// objectsOf returns the objects to record for a grant, with the role_id where it is known, followed by those of recorded that the grant
// does not have. found are the objects of the grant in Vault.
func (c *Converger) objectsOf(g *grant.Grant, old *ledger.Record, recorded []ledger.Object, found map[string]map[string]any) []ledger.Object {
	var out []ledger.Object
	for _, o := range g.All() {
		r := ledger.Object{Kind: o.Kind, Path: o.Path, SHA256: o.SHA256(), Left: c.leaves(old, g, o, found[o.Path]), Retain: o.Retain}
		if old != nil {
			r.RoleID = old.RoleID(o.Path)
		}
		out = append(out, r)
	}
	for _, o := range recorded {
		if !g.Has(o.Path) {
			out = append(out, o)
		}
	}
	return out
}
