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

// rule is one path block of a policy, parsed by the same HCL version Vault parses policies with.
type rule struct {
	Path         string
	Line         int
	Capabilities []string         `hcl:"capabilities"`
	Allowed      map[string][]any `hcl:"allowed_parameters"`
	Denied       map[string][]any `hcl:"denied_parameters"`
	Required     []string         `hcl:"required_parameters"`
	MinWrapping  any              `hcl:"min_wrapping_ttl"`
	MaxWrapping  any              `hcl:"max_wrapping_ttl"`
}

var ruleKeys = []string{"capabilities", "allowed_parameters", "denied_parameters", "required_parameters",
	"min_wrapping_ttl", "max_wrapping_ttl"}

// capabilities a template may give. sudo, root, subscribe and recover reach past the paths they stand on.
var capabilities = []string{"create", "read", "update", "patch", "delete", "list", "deny"}

// parsePolicy reads the path blocks of a policy. Anything but path blocks with known keys is an error, and so is a
// path that stands twice: Vault would merge the two.
func parsePolicy(text string) ([]rule, error) {
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
		r, err := parseRule(item)
		if err != nil {
			return nil, err
		}
		if seen[r.Path] {
			return nil, atLine(r.Line, fmt.Errorf("the path %q stands twice", r.Path))
		}
		seen[r.Path] = true
		rules = append(rules, r)
	}
	return rules, nil
}

func parseRule(item *ast.ObjectItem) (rule, error) {
	line := item.Pos().Line
	if len(item.Keys) != 2 || item.Keys[0].Token.Text != "path" || item.Keys[1].Token.Type != token.STRING {
		return rule{}, atLine(line, errors.New(`only blocks of the form path "..." { } are let in`))
	}
	path, err := strconv.Unquote(item.Keys[1].Token.Text)
	if err != nil {
		return rule{}, atLine(line, fmt.Errorf("the path %s: %w", item.Keys[1].Token.Text, err))
	}
	body, ok := item.Val.(*ast.ObjectType)
	if !ok {
		return rule{}, atLine(line, fmt.Errorf("path %q has no block", path))
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

// lineError is a fault at a line of a rendered policy, counted from 1.
type lineError struct {
	line int
	err  error
}

func atLine(line int, err error) error { return &lineError{line: line, err: err} }

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }

// templateLine takes a line of rendered text back to the template's: what pkiAccess put in stands on one line there.
// Lines behind a range or an if are counted as rendered.
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

// bounds is what the rules of a profile's policies are held against.
type bounds struct {
	basePath string
	pki      map[string]rule // by path: the rules pkiAccess gave
	mounts   []string        // every PKI mount of every profile, base path included
}

// selfCare are the paths outside the base path that a token needs to look after itself.
var selfCare = map[string]string{
	"auth/token/lookup-self": "read",
	"auth/token/renew-self":  "update",
	"auth/token/revoke-self": "update",
	"sys/capabilities-self":  "update",
}

// signAnything are the paths of a PKI mount that no role bounds, wherever the mount is.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#sign-verbatim
var signAnything = []string{"sign-verbatim", "sign-intermediate", "sign-self-issued"}

// publicPKI are the paths of a PKI mount that Vault serves to anybody.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#read-issuer-certificate
var publicPKI = []string{"ca", "ca/pem", "ca_chain", "cert/ca", "cert/ca_chain", "cert/crl", "crl", "crl/pem"}

// check holds every rule against the bounds; the error names line, path and the bound that was crossed.
func (b bounds) check(rules []rule) error {
	for _, r := range rules {
		if err := b.checkRule(r); err != nil {
			return atLine(r.Line, fmt.Errorf("path %q: %w", r.Path, err))
		}
	}
	return nil
}

func (b bounds) checkRule(r rule) error {
	if len(r.Capabilities) == 0 {
		return fmt.Errorf("no capabilities")
	}
	for _, c := range r.Capabilities {
		if !slices.Contains(capabilities, c) {
			return fmt.Errorf("the capability %q is out of bounds", c)
		}
	}
	// The decoded path is what Vault templates, whatever the text looked like.
	if strings.Contains(r.Path, "{{") || strings.Contains(r.Path, "}}") {
		return fmt.Errorf("holds {{ or }}: Vault would render it once more at each request")
	}
	if own, ok := b.pki[r.Path]; ok {
		if !r.same(own) {
			return fmt.Errorf("differs from what pkiAccess gives for it")
		}
		return nil
	}
	if needs, ok := selfCare[r.Path]; ok {
		if !slices.Equal(r.Capabilities, []string{needs}) {
			return fmt.Errorf("only %q is let in here", needs)
		}
		return nil
	}
	if !strings.HasPrefix(r.Path, b.basePath+"/") {
		return fmt.Errorf("lies outside the base path %q (a token may also look after itself: %s)",
			b.basePath, strings.Join(slices.Sorted(maps.Keys(selfCare)), ", "))
	}
	if err := checkSegments(r.Path); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(r.Allowed)) {
		for _, v := range r.Allowed[name] {
			// Vault matches the glob against the raw value before it splits it: 10.0.0.* admits 10.0.0.5,8.8.8.8.
			if s, ok := v.(string); ok && strings.Contains(s, "*") {
				return fmt.Errorf("the allowed value %q of parameter %q holds a wildcard, which lets in lists of anything: name each value", s, name)
			}
		}
	}
	if err := b.checkPKI(r); err != nil {
		return err
	}
	return b.checkNamespaces(r.Path)
}

// checkNamespaces keeps a rule from Vault's own paths in a namespace at or below the base path.
func (b bounds) checkNamespaces(path string) error {
	if own := vaultsOwn(path); own != "" {
		return breaksRule("the segment %q is Vault's own in every namespace", own)
	}
	for _, own := range ownSegments {
		if reaches(path, b.basePath+"/"+own) {
			return breaksRule("reaches %s/%s, which is Vault's own where %s is a namespace: name the engines below it", b.basePath, own, b.basePath)
		}
	}
	return nil
}

func checkSegments(path string) error {
	for _, s := range strings.Split(path, "/") {
		switch {
		case s == "" && !strings.HasSuffix(path, "/"), s == ".", s == "..":
			return fmt.Errorf("has an empty or a dot segment")
		case slices.Contains(signAnything, s):
			return fmt.Errorf("%s signs whatever it is given, past every role", s)
		case strings.Contains(s, "+*"):
			return fmt.Errorf("+* is no wildcard to Vault")
		}
	}
	return nil
}

// checkPKI lets nothing but pkiAccess reach a PKI mount, reading what Vault serves to anybody apart.
func (b bounds) checkPKI(r rule) error {
	for _, m := range b.mounts {
		rest, below := strings.CutPrefix(r.Path, m+"/")
		public := below && slices.Contains(publicPKI, rest) && slices.Equal(r.Capabilities, []string{"read"})
		if !public && reaches(r.Path, m) && !slices.Equal(r.Capabilities, []string{"deny"}) {
			return fmt.Errorf(`reaches the PKI mount %q: access to it is given by pkiAccess "<output>" only`, m)
		}
	}
	return nil
}

// reaches tells whether a policy path can match anything at or below mount: + stands for one segment and a * at
// the end for any rest. https://developer.hashicorp.com/vault/docs/concepts/policies#policy-syntax
func reaches(path, mount string) bool {
	glob := strings.HasSuffix(path, "*")
	segments := strings.Split(strings.TrimSuffix(path, "*"), "/")
	for i, m := range strings.Split(mount, "/") {
		if i >= len(segments) {
			return false
		}
		s := segments[i]
		if glob && i == len(segments)-1 {
			return strings.HasPrefix(m, s)
		}
		if s != "+" && s != m {
			return false
		}
	}
	return true
}

// same tells whether a parsed rule says exactly what a generated one does.
func (r rule) same(generated rule) bool {
	return len(r.Capabilities) == 1 && writeRule(r) == writeRule(generated) &&
		len(r.Denied) == 0 && len(r.Required) == 0 && r.MinWrapping == nil && r.MaxWrapping == nil
}

// samePolicy tells whether two texts bear the same marker and say the same: layout, comments and order are nothing to
// Vault. A text with anything in it that this program does not write is another one.
func samePolicy(want, got any) bool {
	w, _ := want.(string)
	g, _ := got.(string)
	wantMarker, _ := ParseMarker(w)
	gotMarker, ok := ParseMarker(g)
	if !ok || wantMarker != gotMarker {
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

// canonical is what the rules of a policy say, one line each, sorted.
func canonical(text string) ([]string, error) {
	rules, err := parsePolicy(text)
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
