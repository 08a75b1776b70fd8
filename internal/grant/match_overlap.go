package grant

import (
	"cmp"
	"slices"
)

// Overlaps gives the names of every two profiles whose match sections can fit one and the same instance, sorted. It
// never misses a pair. It can name one that AWS's own rules keep apart, such as two that differ only in the account of
// the role's ARN and of account_ids: it compares each field with the same field alone.
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

// overlaps tells whether each field has a value that both conditions let through. What one of them does not ask for, it
// lets through whatever it is.
func (m Match) overlaps(o Match) bool {
	one := func(a, b string) bool { return a == "" || b == "" || intersect(a, b) }
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
	return one(m.IAMRoleARN, o.IAMRoleARN) && one(m.IAMInstanceProfileARN, o.IAMInstanceProfileARN) &&
		some(m.AccountIDs, o.AccountIDs) && some(m.Regions, o.Regions) && some(m.VPCIDs, o.VPCIDs)
}

// intersect tells whether some text matches both patterns, in which a * stands for any text.
func intersect(a, b string) bool {
	// reach[j] tells whether a[:i] and b[:j] can be made to match the same text; each row is made from the one before.
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
				// A star stands for nothing, or takes in one more sign of the other pattern.
				reach[j+1] = before[j+1] || reach[j]
			} else {
				reach[j+1] = before[j] && a[i] == b[j]
			}
		}
	}
	return reach[len(b)]
}
