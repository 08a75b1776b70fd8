package grant

import (
	"cmp"
	"slices"
)

// Overlaps returns the names of each two profiles whose match sections can fit the same instance, sorted. It misses no pair. It
// can return a pair that fits no instance by AWS's own rules, such as two profiles that differ only in the account of the
// role's ARN and of account_ids: it compares each field with the same field only.
func (s *Set) Overlaps() [][2]string {
	var pairs [][2]string
	for i, a := range s.Profiles {
		for _, b := range s.Profiles[i+1:] {
			if a.Match.overlaps(b.Match) {
				pairs = append(pairs, [2]string{min(a.Name, b.Name), max(a.Name, b.Name)})
			}
		}
	}
	slices.SortFunc(pairs, func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1])) })
	return pairs
}

// overlaps reports whether each field has a value that meets both conditions. Any value meets a missing condition.
func (m Match) overlaps(o Match) bool {
	some := func(a, b []string) bool {
		return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(p string) bool {
			return slices.ContainsFunc(b, func(q string) bool { return intersect(p, q) })
		})
	}
	for key, pattern := range m.Tags {
		if other, both := o.Tags[key]; both && !intersect(pattern, other) {
			return false
		}
	}
	return some(m.IAMRoleARN, o.IAMRoleARN) && some(m.IAMInstanceProfileARN, o.IAMInstanceProfileARN) &&
		some(m.AccountIDs, o.AccountIDs) && some(m.Regions, o.Regions) && some(m.VPCIDs, o.VPCIDs)
}

// intersect reports whether some text matches both patterns, in which a * matches any text.
func intersect(a, b string) bool {
	// reach[j] reports whether some text matches both a[:i] and b[:j]. Each row is computed from the one before.
	reach := make([]bool, len(b)+1)
	reach[0] = true
	for j := range len(b) {
		reach[j+1] = reach[j] && b[j] == '*'
	}
	for i := range len(a) {
		before := reach
		reach = make([]bool, len(b)+1)
		reach[0] = before[0] && a[i] == '*'
		for j := range len(b) {
			if a[i] == '*' || b[j] == '*' {
				// A star matches no text, or one more character of the other pattern.
				reach[j+1] = before[j+1] || reach[j]
			} else {
				reach[j+1] = before[j] && a[i] == b[j]
			}
		}
	}
	return reach[len(b)]
}
