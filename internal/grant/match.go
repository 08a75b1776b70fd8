package grant

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// Match has the conditions that an instance must meet. Every instance meets an empty condition, and one of several patterns
// suffices. A * matches any text.
type Match struct {
	IAMRoleARN            Patterns          `yaml:"iam_role_arn"`
	IAMInstanceProfileARN Patterns          `yaml:"iam_instance_profile_arn"`
	AccountIDs            []string          `yaml:"account_ids"`
	Regions               []string          `yaml:"regions"`
	VPCIDs                []string          `yaml:"vpc_ids"`
	Tags                  map[string]string `yaml:"tags"`
}

// Patterns are one pattern or a list of them in profile.yaml.
type Patterns []string

// UnmarshalYAML reads one pattern or a list. An empty text is no pattern.
func (p *Patterns) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.SequenceNode {
		var list []string
		if err := node.Decode(&list); err != nil {
			return fmt.Errorf("reading a list of patterns: %w", err)
		}
		if len(list) == 0 {
			return fmt.Errorf("line %d: the list of patterns is empty: remove the condition if any value may fit", node.Line)
		}
		if slices.Contains(list, "") {
			return fmt.Errorf("line %d: a pattern is empty: remove it", node.Line)
		}
		*p = list
		return nil
	}
	var one string
	if err := node.Decode(&one); err != nil {
		return fmt.Errorf("reading a pattern: %w", err)
	}
	*p = nil
	if one != "" {
		*p = Patterns{one}
	}
	return nil
}

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
	return len(p.Match.IAMRoleARN) > 0 || p.Auth.Type == "iam" || p.used["IAMRoleARN"]
}

// NeedsRole reports whether Match and Render need the instance's IAM role: a profile that needs it fits by its other conditions.
// It does not read f.IAMRoleARN. For any other instance IAM need not be asked.
func (s *Set) NeedsRole(f facts.Instance) bool {
	return slices.ContainsFunc(s.Profiles, func(p *Profile) bool {
		others := p.Match
		others.IAMRoleARN = nil
		return p.NeedsRole() && others.fits(f)
	})
}

// TemplateTags returns the keys of the tags that the profile's templates use, sorted, without keys that are no literals.
func (p *Profile) TemplateTags() []string {
	keys := map[string]bool{}
	for _, c := range p.templates() {
		for _, key := range c.tags {
			keys[key] = true
		}
	}
	delete(keys, "")
	return slices.Sorted(maps.Keys(keys))
}

// Uses reports whether a template of the profile uses a value, such as IPv6s.
func (p *Profile) Uses(value string) bool { return p.used[value] }

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

// fits reports whether an instance meets all conditions.
func (m Match) fits(f facts.Instance) bool {
	for c := range m.conditions(f) {
		if !c.isMet() {
			return false
		}
	}
	return true
}

// Condition is one condition of a match section, beside an instance's value.
type Condition struct {
	Field  string   // of the match section
	Key    string   // of a tag; empty for another field
	Wanted []string // patterns, of which one must match
	Seen   string   // the instance's value
	// IsAbsent reports whether the instance has no value. Then no pattern matches: an instance without a role does not match "any
	// role". A tag can be present with an empty value, which * matches.
	IsAbsent bool
}

// conditions returns the conditions of a match section beside an instance's values: the role and the instance profile first, and
// tags sorted by key.
func (m Match) conditions(f facts.Instance) iter.Seq[Condition] {
	return func(yield func(Condition) bool) {
		for _, c := range []Condition{
			{Field: fieldRole, Wanted: m.IAMRoleARN, Seen: f.IAMRoleARN},
			{Field: fieldInstanceProfile, Wanted: m.IAMInstanceProfileARN, Seen: f.IAMInstanceProfileARN},
			{Field: "account_ids", Wanted: m.AccountIDs, Seen: f.Account},
			{Field: "regions", Wanted: m.Regions, Seen: f.Region},
			{Field: "vpc_ids", Wanted: m.VPCIDs, Seen: f.VPCID},
		} {
			c.IsAbsent = c.Seen == ""
			if len(c.Wanted) > 0 && !yield(c) {
				return
			}
		}
		for _, key := range slices.Sorted(maps.Keys(m.Tags)) {
			seen, isPresent := f.Tags[key]
			if !yield(Condition{Field: "tags", Key: key, Wanted: []string{m.Tags[key]}, Seen: seen, IsAbsent: !isPresent}) {
				return
			}
		}
	}
}

// The conditions of which a profile has at least one.
const (
	fieldRole            = "iam_role_arn"
	fieldInstanceProfile = "iam_instance_profile_arn"
)

// isMet reports whether the value matches a pattern.
func (c Condition) isMet() bool {
	return !c.IsAbsent && slices.ContainsFunc(c.Wanted, func(p string) bool { return Glob(p, c.Seen) })
}

// accountPattern is the form of a pattern of account IDs.
var accountPattern = facts.NewForm(`^[0-9]*[*][0-9*]*$`, 12)

// Glob reports whether a value matches a pattern, in which a * matches any text, also none.
func Glob(pattern, value string) bool {
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
