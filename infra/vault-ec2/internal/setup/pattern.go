package setup

import "strings"

// pattern is a path of a policy as characters and wildcards.
// https://developer.hashicorp.com/vault/docs/concepts/policies#policy-syntax
type pattern []rune

// The wildcards of a pattern; no path has these values.
const (
	segment rune = -1 // a segment or a part of one: any characters but a slash
	rest    rune = -2 // any characters up to the end, slashes included
)

// parsePattern parses a path of a policy: + as a segment and * at the end are wildcards. A template such as
// {{identity.entity.id}} counts as a wildcard for any text without a slash.
func parsePattern(path string) pattern {
	path = strings.TrimPrefix(path, "/")
	path, open := strings.CutSuffix(path, "*")
	var out pattern
	for i, part := range strings.Split(path, "/") {
		if i > 0 {
			out = append(out, '/')
		}
		if part == "+" {
			out = append(out, segment)
			continue
		}
		for {
			before, after, templated := strings.Cut(part, "{{")
			out = append(out, []rune(before)...)
			if !templated {
				break
			}
			out = append(out, segment)
			_, part, _ = strings.Cut(after, "}}")
		}
	}
	if open {
		out = append(out, rest)
	}
	return out
}

// meets reports whether at least one path matches both patterns.
func (p pattern) meets(q pattern) bool {
	seen := map[[2]int]bool{}
	var from func(i, j int) bool
	from = func(i, j int) bool {
		at := [2]int{i, j}
		if seen[at] {
			return false
		}
		seen[at] = true
		if (i < len(p) && p[i] == rest) || (j < len(q) && q[j] == rest) {
			return true
		}
		if i == len(p) && j == len(q) {
			return true
		}
		inP, inQ := i < len(p) && p[i] == segment, j < len(q) && q[j] == segment
		switch {
		case inP && from(i+1, j), inQ && from(i, j+1): // the segment ends here
			return true
		case i == len(p), j == len(q):
			return false
		case inP && inQ:
			return false // one of the two ends first, and both ends were tried above
		case inP:
			return q[j] != '/' && from(i, j+1)
		case inQ:
			return p[i] != '/' && from(i+1, j)
		}
		return p[i] == q[j] && from(i+1, j+1)
	}
	return from(0, 0)
}
