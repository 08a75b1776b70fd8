package grant

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// capabilities a template may give. sudo, root, subscribe and recover reach past the paths they stand on.
var capabilities = []string{"create", "read", "update", "patch", "delete", "list", "deny"}

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
