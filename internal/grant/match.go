package grant

import (
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// UsesTag reports whether a tag can decide if the profile fits, or what it renders: match has it, a template uses it, or a
// template uses a tag whose key is not a literal.
func (p *Profile) UsesTag(key string) bool {
	_, matched := p.Match.Tags[key]
	return matched || slices.ContainsFunc(p.templates(), func(c *compiled) bool {
		return slices.Contains(c.tags, key) || slices.Contains(c.tags, "")
	})
}

// NeedsRole reports whether the instance's IAM role can decide if the profile fits, or what it renders: match has it, a template
// uses it, or the auth role binds the principal. Other profiles bind the instance profile alone, and render the same for each role
// in it.
func (p *Profile) NeedsRole() bool {
	return p.Match.IAMRoleARN != "" || p.Auth.Type == "iam" || p.used["IAMRoleARN"]
}

// NeedsRole reports whether Match and Render need the instance's IAM role: a profile that needs it fits by its other conditions.
// It does not read f.IAMRoleARN. For any other instance IAM need not be asked.
func (s *Set) NeedsRole(f facts.Instance) bool {
	return slices.ContainsFunc(s.Profiles, func(p *Profile) bool {
		others := p.Match
		others.IAMRoleARN = ""
		return p.NeedsRole() && others.fits(f)
	})
}

// Match returns the one profile that fits an instance, or nil if none fits. It fails with kind fault.Refuse if several fit; the
// error names them.
func (s *Set) Match(f facts.Instance) (*Profile, error) {
	var fit []*Profile
	for _, p := range s.Profiles {
		if p.Match.fits(f) {
			fit = append(fit, p)
		}
	}
	switch len(fit) {
	case 0:
		return nil, nil
	case 1:
		return fit[0], nil
	}
	names := make([]string, len(fit))
	for i, p := range fit {
		names[i] = p.Name
	}
	return nil, fault.Refusef("instance %s matches %d profiles (%s): make their match sections exclude each other",
		f.ID, len(fit), strings.Join(names, ", "))
}

// fits reports whether an instance meets all conditions. A value that the instance lacks meets no pattern: an instance without a
// role does not match "any role". A tag can be present with an empty value, which * matches.
func (m Match) fits(f facts.Instance) bool {
	one := func(pattern, value string) bool { return pattern == "" || (value != "" && glob(pattern, value)) }
	some := func(patterns []string, value string) bool {
		return len(patterns) == 0 || (value != "" && slices.ContainsFunc(patterns, func(p string) bool { return glob(p, value) }))
	}
	for key, pattern := range m.Tags {
		if value, ok := f.Tags[key]; !ok || !glob(pattern, value) {
			return false
		}
	}
	return one(m.IAMRoleARN, f.IAMRoleARN) && one(m.IAMInstanceProfileARN, f.IAMInstanceProfileARN) &&
		some(m.AccountIDs, f.Account) && some(m.Regions, f.Region) && some(m.VPCIDs, f.VPCID)
}

// accountPattern is the form of a pattern of account IDs.
var accountPattern = facts.NewForm(`^[0-9]*[*][0-9*]*$`, 12)

// glob reports whether a value matches a pattern, in which a * matches any text, also none.
func glob(pattern, value string) bool {
	first, rest, globbed := strings.Cut(pattern, "*")
	if !globbed {
		return pattern == value
	}
	if !strings.HasPrefix(value, first) {
		return false
	}
	value = value[len(first):]
	for {
		part, more, globbed := strings.Cut(rest, "*")
		if !globbed {
			return strings.HasSuffix(value, part)
		}
		i := strings.Index(value, part) // the first match leaves the most text for the rest of the pattern
		if i < 0 {
			return false
		}
		value, rest = value[i+len(part):], more
	}
}
