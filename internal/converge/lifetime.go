package converge

import (
	"context"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// certificateTTL returns how long a certificate of an instance can be good, by its record and the grant to make; 0 if that is
// unknown. A record of an earlier version lacks that time: its certificates are bounded by the max_ttl of the PKI roles in
// Vault, or of their mount.
func (c *Converger) certificateTTL(ctx context.Context, old *ledger.Record, g *grant.Grant) (time.Duration, error) {
	longest := g.CertificateTTL
	if old == nil {
		return longest, nil
	}
	if old.CertificateTTL > 0 {
		return max(longest, time.Duration(old.CertificateTTL)*time.Second), nil
	}
	for _, o := range old.Objects {
		mount, _, isRole := grant.SplitPKIRolePath(o.Path)
		if o.Kind != grant.KindPKIRole || !isRole {
			continue
		}
		role, err := c.Vault.Read(ctx, o.Path)
		if err != nil {
			return 0, err
		}
		ttl := grant.SecondsOf(role["max_ttl"])
		if ttl == 0 {
			shown, err := c.Vault.Read(ctx, grant.MountInfoPath(mount))
			if err != nil {
				return 0, err
			}
			if ttl = grant.MountLimit(shown); ttl == 0 {
				return 0, nil
			}
		}
		longest = max(longest, ttl)
	}
	return longest, nil
}

// lastCertificate returns when the last certificate with the names of a record ends if none is issued from now on; zero if
// the record does not have the certificates' lifetime.
func (c *Converger) lastCertificate(r ledger.Record) time.Time {
	if r.CertificateTTL == 0 && len(leasePrefixes(r.Objects)) > 0 {
		return time.Time{}
	}
	return c.Now().Round(0).UTC().Add(time.Duration(r.CertificateTTL) * time.Second)
}
