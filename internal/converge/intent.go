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

// first returns the facts with the role that IAM names now, where a first grant or another profile would rest on a
// remembered one, and holds the PKI mounts of such a grant against their marks. again is true when the role has changed.
func (c *Converger) first(ctx context.Context, old *ledger.Record, profile *grant.Profile, f facts.Instance) (now facts.Instance, again bool, err error) {
	if holds(old) && old.Profile == profile.Name {
		return f, false, nil
	}
	if f.RoleObservedAt.Before(f.ObservedAt) {
		role, err := c.Instances.RoleNow(ctx, f)
		if err != nil {
			return f, false, err
		}
		again = role != f.IAMRoleARN
		f.IAMRoleARN, f.RoleObservedAt = role, f.ObservedAt
	}
	if again {
		return f, true, nil
	}
	return f, false, c.ownsMounts(ctx, f.ID, profile)
}

// intent is what a run is about to make, and what it is about to take away besides.
type intent struct {
	request Request
	facts   facts.Instance
	grant   *grant.Grant
	strays  []ledger.Object
	// certificateTTL is how long a certificate of the instance can be good; 0 when that is not known.
	certificateTTL time.Duration
}

// intend writes the record with every path that is about to exist, beside those that already may, and takes the
// claims on its names and addresses.
func (w *work) intend(ctx context.Context, i intent, old *ledger.Record) error {
	req, f, g := i.request, i.facts, i.grant
	next := ledger.Record{}
	if old != nil {
		next = *old
	}
	next.InstanceID, next.State, next.Account, next.Region = f.ID, ledger.Provisioning, f.Account, f.Region
	next.Profile, next.ProfileDigest = g.Profile.Name, g.Profile.Digest
	next.BasePath, next.FQDN, next.Addresses = g.Profile.BasePath, g.FQDN, f.Addresses()
	next.ExtraPolicies, next.QuietUntil = len(g.Profile.Auth.ExtraPolicies) > 0, nil
	next.LeavingSince = nil
	next.EventTime, next.LastError = req.At.UTC(), ""
	next.Objects = recorded(g, old)
	if old != nil {
		for _, o := range old.Objects {
			if !slices.ContainsFunc(next.Objects, func(n ledger.Object) bool { return n.Path == o.Path }) {
				next.Objects = append(next.Objects, o)
			}
		}
	}
	next.Objects = append(next.Objects, i.strays...)
	next.LoginType = g.Profile.Auth.Type
	next.TokenMaxTTL = max(next.TokenMaxTTL, seconds(g.Profile.Auth.TokenMaxTTL))
	next.CertificateTTL = seconds(i.certificateTTL)
	next.Claims = ledger.NamesOf(g)
	isNew := func(n ledger.Name) bool { return slices.Contains(next.Claims, n) }
	if old != nil {
		// Old names stay claimed while something in Vault, or a certificate, bears them: activate says until when.
		next.MakeFormer(old.Held())
	}
	var free []ledger.Name // former names whose last certificate has ended
	next.Former = slices.DeleteFunc(slices.Clone(next.Former), func(n ledger.FormerName) bool {
		ended := !n.Until.IsZero() && w.Now().After(n.Until) && len(next.Claims)+len(free) < grant.MaxClaims
		if ended && !isNew(n.Name) {
			free = append(free, n.Name)
		}
		return ended || isNew(n.Name)
	})
	if err := mayHold(f.ID, next.Claims, next.Former); err != nil {
		return err
	}
	record, err := w.claim(ctx, ledger.Write{Old: old, New: next, Owner: w.owner, KeepLease: true, Claims: next.Claims, Release: free})
	w.record = record
	return err
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// putIfOpen writes an intent some time after it was begun: the deployment may have been torn down meanwhile.
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

// recorded is the grant as the record keeps it; a role_id that is known stays.
func recorded(g *grant.Grant, old *ledger.Record) []ledger.Object {
	var out []ledger.Object
	for _, o := range g.All() {
		r := ledger.Object{Kind: o.Kind, Path: o.Path, SHA256: o.SHA256()}
		if old != nil {
			r.RoleID = old.RoleID(o.Path)
		}
		out = append(out, r)
	}
	return out
}
