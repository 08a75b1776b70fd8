package grant

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl"
	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/token"
)

// rule is one path block of a policy, parsed by the version of HCL that Vault uses for policies.
type rule struct {
	Path string
	Line int
	// AsGenerated reports whether the rule's text is that of a generated rule, byte for byte. Its other fields are empty then.
	AsGenerated  bool
	Capabilities []string         `hcl:"capabilities"`
	Allowed      map[string][]any `hcl:"allowed_parameters"`
	Denied       map[string][]any `hcl:"denied_parameters"`
	Required     []string         `hcl:"required_parameters"`
	MinWrapping  any              `hcl:"min_wrapping_ttl"`
	MaxWrapping  any              `hcl:"max_wrapping_ttl"`
}

// ruleKeys are the keys of a path block that a template may use.
var ruleKeys = []string{"capabilities", "allowed_parameters", "denied_parameters", "required_parameters",
	"min_wrapping_ttl", "max_wrapping_ttl"}

// parsePolicy returns the path blocks of a policy. It fails for anything else, for an unknown key, and for a path with two
// blocks, which Vault would merge. generated are the texts of rules that this program wrote, by path: a block with such a text is
// not decoded.
func parsePolicy(text string, generated map[string]string) ([]rule, error) {
	text = strings.ReplaceAll(text, "\r\n", "\n") // as the parser does: positions are offsets in this text
	root, err := hcl.Parse(text)
	if err != nil {
		if at := (*parser.PosError)(nil); errors.As(err, &at) {
			return nil, atLine(at.Pos.Line, fmt.Errorf("not HCL: %w", at.Err))
		}
		return nil, fmt.Errorf("not HCL: %w", err)
	}
	list, ok := root.Node.(*ast.ObjectList)
	if !ok {
		return nil, fmt.Errorf("not a list of path blocks")
	}
	var rules []rule
	seen := map[string]bool{}
	for _, item := range list.Items {
		r, err := parseRule(item, text, generated)
		if err != nil {
			return nil, err
		}
		if seen[r.Path] {
			return nil, atLine(r.Line, fmt.Errorf("the path %q appears twice", r.Path))
		}
		seen[r.Path] = true
		rules = append(rules, r)
	}
	return rules, nil
}

func parseRule(item *ast.ObjectItem, text string, generated map[string]string) (rule, error) {
	line := item.Pos().Line
	if len(item.Keys) != 2 || item.Keys[0].Token.Text != "path" || item.Keys[1].Token.Type != token.STRING {
		return rule{}, atLine(line, errors.New(`only blocks of the form path "..." { } are allowed`))
	}
	path, err := strconv.Unquote(item.Keys[1].Token.Text)
	if err != nil {
		return rule{}, atLine(line, fmt.Errorf("the path %s: %w", item.Keys[1].Token.Text, err))
	}
	body, ok := item.Val.(*ast.ObjectType)
	if !ok {
		return rule{}, atLine(line, fmt.Errorf("path %q has no block", path))
	}
	if from, to := item.Pos().Offset, body.Rbrace.Offset+1; from < to && to <= len(text) && text[from:to] == generated[path] {
		return rule{Path: path, Line: line, AsGenerated: true}, nil
	}
	for _, kv := range body.List.Items {
		if key := strings.Trim(kv.Keys[0].Token.Text, `"`); !slices.Contains(ruleKeys, key) {
			return rule{}, atLine(kv.Pos().Line, fmt.Errorf("unknown key %q in path %q", key, path))
		}
	}
	r := rule{}
	if err := hcl.DecodeObject(&r, item.Val); err != nil {
		return rule{}, atLine(line, fmt.Errorf("path %q: %w", path, err))
	}
	r.Path, r.Line = path, line
	return r, nil
}

// lineError is a fault at a line of a rendered template, counted from 1.
type lineError struct {
	line int
	err  error
}

// atLine returns err as a lineError.
func atLine(line int, err error) error { return &lineError{line: line, err: err} }

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }

// inTemplate returns the error of a rendered text with the template's file, and with the line of the template where the error has
// one; nil for nil. Joined errors have one each.
func inTemplate(file, text string, blocks []string, err error) error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, inTemplate(file, text, blocks, e))
		}
		return errors.Join(all...)
	}
	if at := (*lineError)(nil); errors.As(err, &at) {
		return fmt.Errorf("%s:%d: %w", file, templateLine(text, blocks, at.line), at.err)
	}
	return fmt.Errorf("%s, rendered: %w", file, err)
}

// templateLine returns the line of a template for a line of its rendered text. Each block of a generated rule is one line of the
// template. Lines after a range or an if are counted as rendered.
func templateLine(text string, blocks []string, line int) int {
	at, taken := 0, 0
	for _, b := range blocks {
		i := strings.Index(text[at:], b)
		if i < 0 {
			break
		}
		first := strings.Count(text[:at+i], "\n") + 1
		last := first + strings.Count(b, "\n")
		if line < first {
			break
		}
		taken += min(line, last) - first
		at += i + len(b)
	}
	return line - taken
}

// writeRule returns a rule as text of a policy. Its values need no escaping beyond quotes, which the identity ensures.
func writeRule(r rule) string {
	var out strings.Builder
	fmt.Fprintf(&out, "path %q {\n  capabilities = [%q]\n", r.Path, r.Capabilities[0])
	writeParameters(&out, "allowed_parameters", r.Allowed)
	writeParameters(&out, "denied_parameters", r.Denied)
	if len(r.Required) > 0 {
		fmt.Fprintf(&out, "  required_parameters = [\"%s\"]\n", strings.Join(r.Required, `", "`))
	}
	return out.String() + "}"
}

// writeParameters writes one list of parameters of a rule, unless it is empty.
func writeParameters(out *strings.Builder, key string, parameters map[string][]any) {
	if len(parameters) == 0 {
		return
	}
	fmt.Fprintf(out, "  %s = {\n", key)
	for _, k := range slices.Sorted(maps.Keys(parameters)) {
		fmt.Fprintf(out, "    %q = %s\n", k, writeValue(parameters[k]))
	}
	out.WriteString("  }\n")
}

// writeValue returns a value of a parameter as text of a policy: a string, a bool, or a list of values.
func writeValue(v any) string {
	list, isList := v.([]any)
	if !isList {
		return fmt.Sprintf("%#v", v)
	}
	elements := make([]string, len(list))
	for i, e := range list {
		elements[i] = writeValue(e)
	}
	return "[" + strings.Join(elements, ", ") + "]"
}

// same reports whether a parsed rule equals a generated one, by its text.
func (r rule) same(generated string) bool {
	return r.AsGenerated || len(r.Capabilities) == 1 && writeRule(r) == generated && r.MinWrapping == nil && r.MaxWrapping == nil
}

// samePolicy reports whether two texts have the same marker, the same document and the same rules. Layout, other comments and order
// do not matter to Vault. A text that parsePolicy refuses never has the same rules.
func samePolicy(want, got any) bool {
	w, _ := want.(string)
	g, _ := got.(string)
	wantMarker, _ := ParseMarker(w)
	gotMarker, ok := ParseMarker(g)
	if !ok || wantMarker != gotMarker || documentOf(w) != documentOf(g) {
		return false
	}
	if strings.TrimSpace(w) == strings.TrimSpace(g) {
		return true
	}
	wantRules, err := canonical(w)
	if err != nil {
		return false
	}
	gotRules, err := canonical(g)
	return err == nil && slices.Equal(wantRules, gotRules)
}

// canonical returns the rules of a policy in canonical form, one line each, sorted.
func canonical(text string) ([]string, error) {
	rules, err := parsePolicy(text, nil)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(rules))
	for i, r := range rules {
		r.Line = 0
		slices.Sort(r.Capabilities)
		slices.Sort(r.Required)
		line, err := json.Marshal(r) // map keys are sorted
		if err != nil {
			return nil, fmt.Errorf("path %q: %w", r.Path, err)
		}
		out[i] = string(line)
	}
	slices.Sort(out)
	return out, nil
}
