package grant

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// shape returns the structure of a policy, which must not depend on a value from EC2: its paths without the text between
// separators and globs, its capabilities, and the keys and list lengths of its parameters. Of a generated rule it has only the path,
// which names the output: the guard compares such a rule with its exact text.
func shape(rules []rule, generated map[string]string) []string {
	out := []string{} // nil would mean that no value changes it
	for _, r := range rules {
		if _, ours := generated[r.Path]; ours {
			out = append(out, "generated "+r.Path)
			continue
		}
		out = append(out, fmt.Sprint(pathShape(r.Path), r.Capabilities, parameterShape(r.Allowed), parameterShape(r.Denied),
			r.Required, r.MinWrapping, r.MaxWrapping))
	}
	return out
}

// pathShape returns a path with an x for each segment, and for each run of text between globs.
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

// globShape returns a segment with its globs, and one x for each run of text between them.
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

// parameterShape returns the keys of parameters with the shapes of their values.
func parameterShape(m map[string][]any) string {
	var out strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&out, "%q:%s,", k, valueShape(m[k]))
	}
	return out.String()
}

// valueShape returns the number of globs of a string, the shapes of a list's elements, and any other value itself.
func valueShape(v any) string {
	switch v := v.(type) {
	case string:
		return fmt.Sprintf("string%d", strings.Count(v, "*"))
	case []any:
		elements := make([]string, len(v))
		for i, e := range v {
			elements[i] = valueShape(e)
		}
		return "[" + strings.Join(elements, ",") + "]"
	}
	return fmt.Sprintf("%T%v", v, v)
}

// jsonShape returns the structure of a JSON value: its keys, list lengths and types, and the separators in its strings.
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
