package grant

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rules are the settings of a deployment that bound profiles.
type Rules struct {
	// MaxTTL is the longest max_ttl of a role.
	MaxTTL time.Duration
	// RolePrefix begins the names of the functions' own policies, which no instance may have.
	RolePrefix string
}

// DefaultRules returns the rules of a deployment with default settings.
func DefaultRules() Rules {
	return Rules{MaxTTL: 8760 * time.Hour, RolePrefix: "ec2-provisioner"}
}

// ruleError is a fault against a rule that earlier versions did not have. It bars the profile, and the set still loads.
type ruleError struct{ err error }

func (e *ruleError) Error() string { return e.err.Error() }
func (e *ruleError) Unwrap() error { return e.err }

func breaksRule(format string, args ...any) error {
	return &ruleError{err: fmt.Errorf(format, args...)}
}

// bar adds reasons why the profile grants nothing new.
func (p *Profile) bar(faults ...error) {
	p.Barred = errors.Join(append([]error{p.Barred}, faults...)...)
}

// tagChoosesFQDN reports whether a tag chooses the FQDN of an instance.
func (p *Profile) tagChoosesFQDN() bool { return p.fqdn.fields["Tag"] }

// checkRules returns the faults of one profile against the rules.
func (p *Profile) checkRules() []error {
	var faults []error
	want := func(ok bool, format string, args ...any) {
		if !ok {
			faults = append(faults, breaksRule(format, args...))
		}
	}
	for _, name := range p.Auth.ExtraPolicies {
		own := name == p.rules.RolePrefix || strings.HasPrefix(name, p.rules.RolePrefix+"-")
		want(!own, "auth.extra_policies: %q is a policy of the functions, which can write any policy", name)
	}
	want(vaultSegment(p.BasePath) == "", "base_path: %q has the segment %q, which is Vault's own in every namespace", p.BasePath, vaultSegment(p.BasePath))
	for _, o := range p.Outputs {
		want(vaultSegment(o.Path) == "", "outputs.%s: path %q has the segment %q, which is Vault's own in every namespace", o.Name, o.Path, vaultSegment(o.Path))
		for _, c := range slices.Concat(o.shared, o.sharedURIs) { // c.file is the field
			want(!c.fields["FQDN"] && !c.fields["PrivateDNSName"], "%s: is made from the instance's own name, which others do not share", c.file)
			want(!c.branches, "%s: branches: write each name out, so that no tag can take it", c.file)
		}
		for _, c := range o.templates() {
			for _, err := range c.tagSearches {
				faults = append(faults, &ruleError{err: err})
			}
		}
	}
	for _, err := range p.fqdn.tagSearches {
		faults = append(faults, &ruleError{err: err})
	}
	if !p.tagChoosesFQDN() {
		return faults
	}
	want(len(p.FQDNSuffixes) > 0, "fqdn_suffixes: is required where fqdn uses a tag: a tag could choose any name")
	for _, o := range p.Outputs {
		for _, c := range o.templates() {
			for _, err := range c.fqdnUses {
				faults = append(faults, &ruleError{err: err})
			}
		}
		want(!o.Type.signs() || !o.body.fields["FQDN"],
			"%s: no FQDN that a tag chooses may be in a certificate: a tag would choose the instance's organization", o.Template)
		want(!o.SharedCommonName || !o.commonName.fields["FQDN"], "outputs.%s: shared_common_name: a tag chooses the FQDN in it", o.Name)
	}
	return faults
}

// vaultSegment returns the first segment of a path that is Vault's own, or an empty string. Any path may begin with a namespace,
// so such a segment counts at any depth. https://developer.hashicorp.com/vault/docs/enterprise/namespaces
func vaultSegment(path string) string {
	for segment := range strings.SplitSeq(path, "/") {
		if slices.Contains(vaultSegments, segment) {
			return segment
		}
	}
	return ""
}

// vaultSegments are the first segments of paths that are Vault's own.
var vaultSegments = []string{"sys", "auth", "identity", "cubbyhole"}

// checkTogether checks the profiles of a set against each other. It bars both profiles of a pair with one base path inside
// the other, and returns all other faults.
func (s *Set) checkTogether() []error {
	var faults []error
	mounts := s.Mounts()
	for _, mount := range mounts.SSH {
		if slices.Contains(mounts.PKI, mount) {
			faults = append(faults, fmt.Errorf("%s is the mount of a pki-role and of an ssh-role: each engine has a mount of its own", mount))
		}
	}
	byMount := map[string]*Profile{} // a profile that puts an instance's addresses there
	for _, p := range s.Profiles {
		for _, o := range s.Profiles {
			if strings.HasPrefix(p.BasePath, o.BasePath+"/") {
				err := breaksRule("base_path: %q of %s lies in %q of %s: give each cluster a base path outside all others", p.BasePath, p.Name, o.BasePath, o.Name)
				p.bar(err)
				o.bar(err)
			}
		}
		for _, o := range p.Outputs {
			if !o.Type.signs() || !o.takesAddresses() {
				continue
			}
			mount := o.mount(p.BasePath)
			if first := byMount[mount]; first != nil && first.OverlappingAddresses != p.OverlappingAddresses {
				faults = append(faults, fmt.Errorf("profiles %s and %s put addresses into certificates of %s: overlapping_addresses must be the same in both", first.Name, p.Name, mount))
			} else {
				byMount[mount] = p
			}
		}
	}
	return faults
}

// TakesAddresses reports whether certificates of the profile's instances have the instances' own addresses.
func (p *Profile) TakesAddresses() bool {
	return slices.ContainsFunc(p.Outputs, func(o Output) bool { return o.Type.signs() && o.takesAddresses() })
}

// takesAddresses reports whether certificates of a role have the instance's own addresses.
func (o Output) takesAddresses() bool {
	return o.addresses == nil || slices.ContainsFunc(o.addresses, (*compiled).varies)
}
