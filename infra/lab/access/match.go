package access

import "strings"

// glob reports whether s matches pattern, in which * is any text and ? any one byte.
func glob(pattern, s string) bool {
	star, resume := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			resume++
			p, i = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// A form is a resource type's ARN. Each ${…} is one or more bytes without a colon.
type token struct {
	literal byte
	one     bool // any byte but a colon
	many    bool // any text without a colon
}

func tokens(form string) []token {
	var out []token
	for form != "" {
		if rest, found := strings.CutPrefix(form, "${"); found {
			_, form, _ = strings.Cut(rest, "}")
			out = append(out, token{one: true}, token{many: true})
			continue
		}
		out = append(out, token{literal: form[0]})
		form = form[1:]
	}
	return out
}

// overlaps reports whether an ARN exists that matches both a statement's resource and a resource type's form.
func overlaps(resource, form string) bool {
	forms := tokens(form)
	seen := map[[2]int]bool{}
	var from func(i, j int) bool
	from = func(i, j int) bool {
		if seen[[2]int{i, j}] {
			return false // it led nowhere before
		}
		seen[[2]int{i, j}] = true
		if i == len(resource) && j == len(forms) {
			return true
		}
		if i < len(resource) && resource[i] == '*' && (from(i+1, j) || (j < len(forms) && from(i, j+1))) {
			return true
		}
		if j < len(forms) && forms[j].many {
			return from(i, j+1) || (i < len(resource) && resource[i] != '*' && resource[i] != ':' && from(i+1, j))
		}
		if i == len(resource) || j == len(forms) || resource[i] == '*' {
			return false
		}
		c, f := resource[i], forms[j]
		same := c == f.literal || (f.one && c != ':') || (c == '?' && (f.one || f.literal != 0))
		return same && from(i+1, j+1)
	}
	return from(0, 0)
}
