package grant

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// shape is what must not depend on a value from EC2: the paths with the literal text between separators and globs
// taken out, the capabilities, and the keys and list lengths of the parameters. Of a rule from pkiAccess only its path
// counts, which names the output; it was held against its exact text.
func shape(rules []rule, pki map[string]rule) []string {
	var out []string
	for _, r := range rules {
		if _, generated := pki[r.Path]; generated {
			out = append(out, "pkiAccess "+r.Path)
			continue
		}
		out = append(out, fmt.Sprint(pathShape(r.Path), r.Capabilities, parameterShape(r.Allowed), parameterShape(r.Denied),
			r.Required, r.MinWrapping, r.MaxWrapping))
	}
	return out
}

func pathShape(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		switch {
		case s == "+", s == "*", s == "":
		case strings.ContainsAny(s, "*+"):
			segments[i] = globShape(s)
		default:
			segments[i] = "x"
		}
	}
	return strings.Join(segments, "/")
}

// globShape keeps the globs of a segment and one x for each run of text between them.
func globShape(segment string) string {
	var out strings.Builder
	text := false
	for _, r := range segment {
		if glob := r == '*' || r == '+'; glob || !text {
			if glob {
				out.WriteRune(r)
			} else {
				out.WriteByte('x')
			}
			text = !glob
		}
	}
	return out.String()
}

func parameterShape(m map[string][]any) string {
	var out strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&out, "%q:", k)
		for _, v := range m[k] {
			s, isString := v.(string)
			if isString {
				fmt.Fprintf(&out, "string%d,", strings.Count(s, "*"))
				continue
			}
			fmt.Fprintf(&out, "%T%v,", v, v)
		}
	}
	return out.String()
}

// jsonShape lists the keys, list lengths and types of a JSON value.
func jsonShape(at string, v any) []string {
	switch v := v.(type) {
	case map[string]any:
		out := []string{at + "{}"}
		for k, e := range v {
			out = append(out, jsonShape(at+"."+k, e)...)
		}
		slices.Sort(out)
		return out
	case []any:
		out := []string{fmt.Sprintf("%s[%d]", at, len(v))}
		for i, e := range v {
			out = append(out, jsonShape(fmt.Sprintf("%s[%d]", at, i), e)...)
		}
		return out
	case string:
		return []string{fmt.Sprintf("%s string %d %d", at, strings.Count(v, "*"), strings.Count(v, ","))}
	}
	return []string{fmt.Sprintf("%s %T %v", at, v, v)}
}
