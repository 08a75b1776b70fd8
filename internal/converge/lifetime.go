package converge

import (
	"context"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// certificateTTL returns how long a certificate of an instance can be good, by its record and the grant that is about to be
// made; 0 when that cannot be told. A record from before it was noted does not say it: what was issued then is bounded by
// the PKI roles that stand, or by their mount where they have no max_ttl.
func (c *Converger) certificateTTL(ctx context.Context, old *ledger.Record, g *grant.Grant) (time.Duration, error) {
	longest := g.CertificateTTL
	if old == nil {
		return longest, nil
	}
	if old.CertificateTTL > 0 {
		return max(longest, time.Duration(old.CertificateTTL)*time.Second), nil
	}
	for _, o := range old.Objects {
		i := strings.LastIndex(o.Path, "/roles/")
		if o.Kind != grant.KindPKIRole || i < 0 {
			continue
		}
		role, err := c.Vault.Read(ctx, o.Path)
		if err != nil {
			return 0, err
		}
		ttl := grant.SecondsOf(role["max_ttl"])
		if ttl == 0 {
			// https://developer.hashicorp.com/vault/api-docs/system/internal-ui-mounts
			shown, err := c.Vault.Read(ctx, "sys/internal/ui/mounts/"+o.Path[:i])
			if err != nil {
				return 0, err
			}
			config, _ := shown["config"].(map[string]any)
			if ttl = grant.SecondsOf(config["max_lease_ttl"]); ttl == 0 {
				return 0, nil
			}
		}
		longest = max(longest, ttl)
	}
	return longest, nil
}
