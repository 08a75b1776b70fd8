package main

import "strings"

// pattern is a path of a policy, sign by sign. https://developer.hashicorp.com/vault/docs/concepts/policies#policy-syntax
type pattern []rune

// Signs of a pattern that stand for others; no path has them.
const (
	segment rune = -1 // a whole segment, or a part of one: any signs but a slash
	rest    rune = -2 // whatever follows, slashes included
)

// parsePattern reads a path of a policy: + as a segment and * at the end are wildcards. What a template puts in, as in
// secret/{{identity.entity.id}}, may be anything without a slash.
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

// meets reports whether some path fits both patterns.
func (p pattern) meets(q pattern) bool {
	seen := map[[2]int]bool{}
	var from func(i, j int) bool
	from = func(i, j int) bool {
		at := [2]int{i, j}
		if seen[at] {
			return false
		}
		seen[at] = true
		if i < len(p) && p[i] == rest || j < len(q) && q[j] == rest {
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
			return false // one of them ends before the other, which was tried
		case inP:
			return q[j] != '/' && from(i, j+1)
		case inQ:
			return p[i] != '/' && from(i+1, j)
		}
		return p[i] == q[j] && from(i+1, j+1)
	}
	return from(0, 0)
}
