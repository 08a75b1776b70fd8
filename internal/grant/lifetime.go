package grant

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// MountLimit returns the max_lease_ttl of a mount, as Vault answers MountInfoPath; 0 if the answer lacks it. Where the mount has none
// of its own, it is the server's from Vault 1.17 on, and 0 before.
// https://developer.hashicorp.com/vault/api-docs/system/internal-ui-mounts
func MountLimit(shown map[string]any) time.Duration {
	config, _ := shown["config"].(map[string]any)
	return SecondsOf(config["max_lease_ttl"])
}

// Cap is a mount's max_lease_ttl that is shorter than profiles ask for.
type Cap struct {
	Limit    time.Duration
	Longest  time.Duration // that a profile asks for
	Profiles []string      // that ask for more than Limit, sorted
}

// add adds a profile that asks for a lifetime.
func (c *Cap) add(profile string, asked time.Duration) {
	if asked <= c.Limit {
		return
	}
	c.Longest = max(c.Longest, asked)
	if !slices.Contains(c.Profiles, profile) {
		c.Profiles = append(c.Profiles, profile)
		slices.Sort(c.Profiles)
	}
}

// CapTokens returns the profiles whose tokens end before their token_max_ttl on an auth mount with this max_lease_ttl. ok is false
// if there are none, or if limit is 0, which means unknown.
//
// Vault stores the auth role as it is, warns, and shortens each token. Nothing else changes: an instance whose token ends logs in
// again. https://developer.hashicorp.com/vault/docs/concepts/tokens#the-general-case
func (s *Set) CapTokens(limit time.Duration) (c *Cap, ok bool) {
	c = &Cap{Limit: limit}
	for _, p := range s.Profiles {
		c.add(p.Name, p.Auth.TokenMaxTTL)
	}
	return c, limit > 0 && len(c.Profiles) > 0
}

// CapLeases returns the profiles whose leased certificates on a PKI mount with this max_lease_ttl are revoked before they end. ok is
// false if there are none, or if limit is 0, which means unknown.
//
// A PKI role's max_ttl overrides the mount's for the certificate, but not for its lease (generate_lease), at whose end Vault revokes
// the certificate. https://developer.hashicorp.com/vault/api-docs/secret/pki#generate_lease
func (s *Set) CapLeases(mount string, limit time.Duration) (c *Cap, ok bool) {
	c = &Cap{Limit: limit}
	for _, p := range s.Profiles {
		for _, o := range p.Outputs {
			if o.Type == KindPKIRole && o.mount(p.BasePath) == mount {
				c.add(p.Name, p.leased[o.Name])
			}
		}
	}
	return c, limit > 0 && len(c.Profiles) > 0
}

// HasLeases reports whether a profile has leased certificates of a PKI mount.
func (s *Set) HasLeases(mount string) bool {
	_, ok := s.CapLeases(mount, 1)
	return ok
}

// Unstored returns the profiles with certificates of a PKI mount that the mount does not store, sorted: nothing can revoke those.
func (s *Set) Unstored(mount string) []string {
	var names []string
	for _, p := range s.Profiles {
		for _, o := range p.Outputs {
			if o.Type == KindPKIRole && o.mount(p.BasePath) == mount && p.unstored[o.Name] {
				names = append(names, p.Name)
			}
		}
	}
	return sortedOnce(names)
}

// store remembers that the certificates of an output are not stored.
func (p *Profile) store(output string, role Object) {
	if role.Kind == KindPKIRole && role.Fields["no_store"] == true {
		if p.unstored == nil {
			p.unstored = map[string]bool{}
		}
		p.unstored[output] = true
	}
}

// lease remembers the longest lifetime of a leased certificate of an output.
func (p *Profile) lease(output string, role Object) {
	if role.Kind != KindPKIRole || role.Fields["generate_lease"] != true {
		return
	}
	if p.leased == nil {
		p.leased = map[string]time.Duration{}
	}
	p.leased[output] = max(p.leased[output], SecondsOf(role.Fields["max_ttl"]))
}

// OnTokens returns the sentence for a cap of tokens on an auth mount, with the remedy.
func (c *Cap) OnTokens(mount string) string {
	return fmt.Sprintf("%s ends tokens after %s, its max_lease_ttl, and token_max_ttl is longer (up to %s) in %s: their instances log in again earlier. "+
		"To change that: vault auth tune -max-lease-ttl=%s %s/, or a lower token_max_ttl",
		AuthMountPath(mount), Short(c.Limit), Short(c.Longest), strings.Join(c.Profiles, ", "), Short(c.Longest), mount)
}

// OnLeases returns the sentence for a cap of leased certificates on a PKI mount.
func (c *Cap) OnLeases(mount string) string {
	return fmt.Sprintf("%s ends leases after %s, its max_lease_ttl, and max_ttl of PKI roles with generate_lease is longer (up to %s) in %s: Vault revokes their certificates while they are in use",
		mount, Short(c.Limit), Short(c.Longest), strings.Join(c.Profiles, ", "))
}

// LeaseRemedy returns the remedy for a cap of leased certificates on a PKI mount.
func (c *Cap) LeaseRemedy(mount string) string {
	return fmt.Sprintf("vault secrets tune -max-lease-ttl=%s %s/, or lower max_ttl in the roles' templates", Short(c.Longest), mount)
}

// Short returns a duration in whole seconds in Vault's form: 24h, 1h30m, 90s.
func Short(d time.Duration) string {
	text := d.Round(time.Second).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if short, ok := strings.CutSuffix(text, zero); ok {
			text = short + zero[:1]
		}
	}
	return text
}
