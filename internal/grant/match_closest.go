package grant

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// Comparison is a profile beside an instance that it does not fit.
type Comparison struct {
	Profile *Profile
	// Unmet are the conditions that the instance does not meet, the role and the instance profile first; never empty. A role for which
	// IAM was not asked is not among them.
	Unmet []Condition

	distance int // the characters in which the instance's role and instance profile differ from the patterns
}

// Misses returns every profile that does not fit an instance, the closest first.
//
// Role and instance profile say what an instance is, so they count first: a profile whose conditions on both are met is closer than
// one whose are not, and of two that are not, the one whose patterns differ in fewer characters. Then the number of other unmet
// conditions counts, and then the name. In place of a role for which IAM was not asked, the name of the instance profile counts, which
// is often the same.
func (s *Set) Misses(f facts.Instance) []Comparison {
	isUnknown := f.IsRoleUnknown()
	if isUnknown {
		f.IAMRoleARN = strings.Replace(f.IAMInstanceProfileARN, ":instance-profile/", ":role/", 1)
	}
	var all []Comparison
	for _, p := range s.Profiles {
		c := Comparison{Profile: p}
		for condition := range p.Match.conditions(f) {
			if condition.isMet() {
				continue
			}
			c.distance += condition.distance()
			if !isUnknown || condition.Field != fieldRole {
				c.Unmet = append(c.Unmet, condition)
			}
		}
		if len(c.Unmet) > 0 {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b Comparison) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(len(a.Unmet), len(b.Unmet)), cmp.Compare(a.Profile.Name, b.Profile.Name))
	})
	return all
}

// distance returns the number of characters in which a role or instance profile differs from the closest pattern; 0 for another
// field.
func (c Condition) distance() int {
	if c.Field != fieldRole && c.Field != fieldInstanceProfile {
		return 0
	}
	least := math.MaxInt32
	for _, pattern := range c.Wanted {
		least = min(least, distance(pattern, c.Seen))
	}
	return least
}

// distance returns the least number of characters to insert, delete or replace in a value so that it matches a pattern.
func distance(pattern, value string) int {
	// row[j] is the distance of value[:j] from pattern[:i]. Each row is computed from the one before.
	row := make([]int, len(value)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(pattern) {
		before := row
		row = make([]int, len(value)+1)
		row[0] = before[0] + 1
		if pattern[i] == '*' {
			row[0] = before[0]
		}
		for j := range len(value) {
			switch pattern[i] {
			case '*': // it matches no text, or one more character of the value
				row[j+1] = min(before[j+1], row[j])
			case value[j]:
				row[j+1] = before[j]
			default:
				row[j+1] = 1 + min(before[j], before[j+1], row[j])
			}
		}
	}
	return row[len(value)]
}

// String returns the sentence for an unmet condition: the field, the value that was seen, and the wanted pattern.
func (c Condition) String() string {
	field, seen := "match."+c.Field, fmt.Sprintf("the instance has %q", c.Seen)
	if c.Key != "" {
		field += fmt.Sprintf(" %q", c.Key)
	}
	if c.IsAbsent {
		seen = "the instance has none"
	}
	return fmt.Sprintf("%s: %s, wanted is %s", field, seen, quoted(c.Wanted))
}

// quoted returns a list of patterns as text, in quotes.
func quoted(patterns []string) string {
	all := make([]string, len(patterns))
	for i, p := range patterns {
		all[i] = fmt.Sprintf("%q", p)
	}
	return strings.Join(all, " or ")
}

// String returns a profile's name and its unmet conditions, in one line.
func (c Comparison) String() string {
	unmet := make([]string, len(c.Unmet))
	for i, u := range c.Unmet {
		unmet[i] = u.String()
	}
	return c.Profile.Name + ": " + strings.Join(unmet, "; ")
}

// Closest returns the profile that comes closest to an instance which no profile fits, with its unmet conditions, in one line;
// empty if there is no profile.
func (s *Set) Closest(f facts.Instance) string {
	misses := s.Misses(f)
	if len(misses) == 0 {
		return ""
	}
	return misses[0].String()
}
