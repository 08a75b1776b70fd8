package rights

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Policy returns the text of a policy with these rights and no others.
func Policy(rights []Right) string {
	blocks := make([]string, len(rights))
	for i, r := range rights {
		quoted := make([]string, len(r.Capabilities))
		for j, c := range r.Capabilities {
			quoted[j] = fmt.Sprintf("%q", c)
		}
		blocks[i] = fmt.Sprintf("path %q {\n  capabilities = [%s]\n%s}\n", r.Path, strings.Join(quoted, ", "), parameters(r.Allowed))
	}
	return "# Made from the profiles by vault-ec2 setup: change those and run it again.\n\n" + strings.Join(blocks, "\n")
}

// parameters returns the lines that bound the parameters of a write. Nil has no lines and bounds nothing.
func parameters(allowed map[string][]any) string {
	if allowed == nil {
		return ""
	}
	var out strings.Builder
	out.WriteString("  allowed_parameters = {\n")
	for _, name := range slices.Sorted(maps.Keys(allowed)) {
		fmt.Fprintf(&out, "    %q = %s\n", name, literals(allowed[name]))
	}
	out.WriteString("  }\n")
	return out.String()
}

// literals returns a list of strings and booleans in HCL, which writes both as Go does.
func literals(list []any) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = fmt.Sprintf("%#v", v)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
