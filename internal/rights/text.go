package rights

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// Policy is the text of the policy that gives these rights and no others.
func Policy(rights []Right) string {
	blocks := make([]string, len(rights))
	for i, r := range rights {
		quoted := make([]string, len(r.Capabilities))
		for j, c := range r.Capabilities {
			quoted[j] = fmt.Sprintf("%q", c)
		}
		blocks[i] = fmt.Sprintf("path %q {\n  capabilities = [%s]\n%s}\n", r.Path, strings.Join(quoted, ", "), parameters(r.Allowed))
	}
	return "# Made from the profiles by infra/vault: change those and run it again.\n\n" + strings.Join(blocks, "\n")
}

// parameters returns the lines that bound a write's parameters; none for nil.
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

// literals is a list of strings and booleans in HCL, which has Go's form for both.
func literals(list []any) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = fmt.Sprintf("%#v", v)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// Example is a path that the right is about, without wildcards: an instance ID of zeros stands for every instance's.
// What a token may do there, it may do at all of them. The path is never read or written, only asked about.
func (r Right) Example() string {
	before, wild := strings.CutSuffix(r.Path, "*")
	switch {
	case !wild:
		return r.Path
	case strings.HasSuffix(before, grant.NamePrefix(grant.KindGeneric)):
		return before + "00000000000000000"
	default:
		return before + "00000000-0000-0000-0000-000000000000"
	}
}
