package grant

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// capabilities are those that a template may grant. The others, sudo, root, subscribe and recover, reach beyond their path.
var capabilities = []string{"create", "read", "update", "patch", "delete", "list", "deny"}

// bounds are the limits of the rules of one policy.
type bounds struct {
	basePath  string
	generated map[string]string // the texts of the rules of pkiAccess, sshAccess and identityAccess, by path
	mounts    Mounts            // of all profiles
}

// tokenPaths are the paths outside the base path that a token needs for itself, each with its one capability.
var tokenPaths = map[string]string{
	"auth/token/lookup-self": "read",
	"auth/token/renew-self":  "update",
	"auth/token/revoke-self": "update",
	"sys/capabilities-self":  "update",
}

// signAnything are segments of the paths that sign without the bounds of a PKI role. They are refused below any path, since a PKI
// mount can be anywhere.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#sign-verbatim
var signAnything = []string{"sign-verbatim", "sign-intermediate", "sign-self-issued"}

// publicPKI are the paths of a PKI mount that Vault serves without a token.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#read-issuer-certificate
var publicPKI = []string{"ca", "ca/pem", "ca_chain", "cert/ca", "cert/ca_chain", "cert/crl", "crl", "crl/pem"}

// publicSSH are the paths of an SSH mount that Vault serves without a token.
// https://developer.hashicorp.com/vault/api-docs/secret/ssh#read-public-key-unauthenticated
var publicSSH = []string{"public_key"}

// check returns an error for the first rule outside the bounds. It names the line, the path and the bound.
func (b bounds) check(rules []rule) error {
	for _, r := range rules {
		if err := b.checkRule(r); err != nil {
			return atLine(r.Line, fmt.Errorf("path %q: %w", r.Path, err))
		}
	}
	return nil
}

// checkRule returns an error if a rule is outside the bounds.
func (b bounds) checkRule(r rule) error {
	if len(r.Capabilities) == 0 && !r.AsGenerated {
		return fmt.Errorf("no capabilities")
	}
	for _, c := range r.Capabilities {
		if !slices.Contains(capabilities, c) {
			return fmt.Errorf("the capability %q is not allowed", c)
		}
	}
	// Vault renders the decoded path, in which an escape can have become a brace.
	if strings.Contains(r.Path, "{{") || strings.Contains(r.Path, "}}") {
		return fmt.Errorf("contains {{ or }}: Vault would render it again at each request")
	}
	if generated, ok := b.generated[r.Path]; ok {
		if !r.same(generated) {
			return fmt.Errorf("differs from the rule of pkiAccess, sshAccess or identityAccess for it")
		}
		return nil
	}
	if needs, ok := tokenPaths[r.Path]; ok {
		if !slices.Equal(r.Capabilities, []string{needs}) {
			return fmt.Errorf("only the capability %q is allowed here", needs)
		}
		return checkWrapping(r)
	}
	if !strings.HasPrefix(r.Path, b.basePath+"/") {
		return fmt.Errorf("is outside the base path %q (outside it a policy may have only %s)",
			b.basePath, strings.Join(slices.Sorted(maps.Keys(tokenPaths)), ", "))
	}
	if err := checkSegments(r.Path); err != nil {
		return err
	}
	if err := checkWildcards(r.Allowed); err != nil {
		return err
	}
	if err := b.checkMounts(r); err != nil {
		return err
	}
	if err := b.checkNamespaces(r.Path); err != nil {
		return err
	}
	return checkWrapping(r)
}

// checkWrapping returns an error for wrapping TTLs that Vault refuses, or counts otherwise than they say.
// https://developer.hashicorp.com/vault/docs/concepts/policies#required-response-wrapping-ttls
func checkWrapping(r rule) error {
	least, err := wrappingTTL(r.MinWrapping)
	if err != nil {
		return breaksRule("min_wrapping_ttl: %v %w", r.MinWrapping, err)
	}
	most, err := wrappingTTL(r.MaxWrapping)
	if err != nil {
		return breaksRule("max_wrapping_ttl: %v %w", r.MaxWrapping, err)
	}
	if least > 0 && most > 0 && most < least {
		return breaksRule("max_wrapping_ttl is %s, shorter than min_wrapping_ttl (%s), which Vault refuses", most, least)
	}
	return nil
}

// wrappingTTL returns a duration in one of the forms that Vault reads in a policy: whole seconds, "300", "5m" or "2d"; 0 for nil and
// "". It fails for a negative one, which Vault takes for no bound, and for one that overflows in Vault.
// https://github.com/hashicorp/go-secure-stdlib/blob/parseutil/v0.2.0/parseutil/parseutil.go
func wrappingTTL(v any) (time.Duration, error) {
	var seconds float64
	switch v := v.(type) {
	case nil:
	case int:
		seconds = float64(v)
	case float64:
		seconds = v
	case string:
		digits, isDays := strings.CutSuffix(v, "d")
		n, err := strconv.ParseInt(digits, 10, 64)
		d, errDuration := time.ParseDuration(v)
		switch {
		case v == "":
		case err == nil && isDays:
			seconds = float64(n) * 24 * 60 * 60
		case err == nil:
			seconds = float64(n)
		case errDuration == nil && d >= 0:
			return d, nil
		case errDuration == nil:
			seconds = -1
		default:
			return 0, errNoDuration
		}
	default:
		return 0, errNoDuration
	}
	switch {
	case seconds < 0:
		return 0, errors.New("is less than 0, which Vault takes for no bound: leave it out")
	case seconds > float64(math.MaxInt64/int64(time.Second)):
		return 0, errors.New("is longer than Vault counts: shorten it")
	}
	return time.Duration(seconds) * time.Second, nil
}

var errNoDuration = errors.New(`is no duration: write one such as "5m"`)

// checkWildcards returns an error for an allowed value with a wildcard, also inside a list.
func checkWildcards(allowed map[string][]any) error {
	for _, name := range slices.Sorted(maps.Keys(allowed)) {
		for _, v := range allowed[name] {
			s, found := wildcard(v)
			if !found {
				continue
			}
			if _, isText := v.(string); isText {
				// Vault matches the glob with the raw value, before it splits a list: 10.0.0.* allows 10.0.0.5,8.8.8.8.
				return fmt.Errorf("the allowed value %q of parameter %q has a wildcard, which matches lists with other values: name each value", s, name)
			}
			return breaksRule("the allowed value %q in a list of parameter %q has a wildcard, which Vault compares as text: name each value", s, name)
		}
	}
	return nil
}

// wildcard returns the first string with a wildcard in a value, or in a list at any depth.
func wildcard(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, strings.Contains(v, "*")
	case []any:
		for _, e := range v {
			if s, found := wildcard(e); found {
				return s, true
			}
		}
	}
	return "", false
}

// checkNamespaces returns an error for a path that reaches Vault's own paths in a namespace at or below the base path.
func (b bounds) checkNamespaces(path string) error {
	if own := vaultSegment(path); own != "" {
		return breaksRule("the segment %q is Vault's own in every namespace", own)
	}
	for _, own := range vaultSegments {
		if reaches(path, b.basePath+"/"+own) {
			return breaksRule("reaches %s/%s, which is Vault's own where %s is a namespace: name the engines below it", b.basePath, own, b.basePath)
		}
	}
	return nil
}

// checkSegments returns an error for a path with a segment that is not allowed in any policy of a profile.
func checkSegments(path string) error {
	for _, s := range strings.Split(path, "/") {
		switch {
		case s == "" && !strings.HasSuffix(path, "/"), s == ".", s == "..":
			return fmt.Errorf("has an empty or a dot segment")
		case slices.Contains(signAnything, s):
			return fmt.Errorf("%s signs any request: no PKI role bounds it", s)
		case strings.Contains(s, "+*"):
			return fmt.Errorf("+* is not a wildcard of Vault")
		}
	}
	return nil
}

// checkMounts returns an error for a rule that reaches a mount of roles, except to deny it or to read its public paths. Only pkiAccess
// and sshAccess grant access to such a mount.
func (b bounds) checkMounts(r rule) error {
	for _, m := range b.mounts.All() {
		function, public := pkiAccess, publicPKI
		if b.mounts.kindOfRoles(m) == KindSSHRole {
			function, public = sshAccess, publicSSH
		}
		rest, below := strings.CutPrefix(r.Path, m+"/")
		readsPublic := below && slices.Contains(public, rest) && slices.Equal(r.Capabilities, []string{"read"})
		denies := slices.Equal(r.Capabilities, []string{"deny"})
		if !readsPublic && !denies && reaches(r.Path, m) {
			return fmt.Errorf(`reaches the %s: only %s "<output>" may grant access to it`, b.mounts.Describe(m), function)
		}
	}
	return nil
}

// reaches reports whether a path of a policy can match a path at or below mount. A + matches one segment, and a * at the end any
// rest. https://developer.hashicorp.com/vault/docs/concepts/policies#policy-syntax
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
