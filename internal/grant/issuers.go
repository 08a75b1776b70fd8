package grant

import (
	"regexp"
	"slices"
	"strings"
)

// DefaultIssuer is the issuer_ref of a PKI role that uses the mount's default issuer.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#issuer_ref
const DefaultIssuer = "default"

// IssuerRefs returns the issuers, by name or ID, that the PKI roles of a mount use, each with the profiles of the roles, sorted. It
// leaves out an issuer that depends on the instance.
func (s *Set) IssuerRefs(mount string) map[string][]string {
	refs := map[string][]string{}
	for _, p := range s.Profiles {
		for _, o := range p.Outputs {
			ref := p.issuers[o.Name]
			if ref != "" && o.mount(p.BasePath) == mount && !slices.Contains(refs[ref], p.Name) {
				refs[ref] = append(refs[ref], p.Name)
				slices.Sort(refs[ref])
			}
		}
	}
	return refs
}

// issuerField is the field of a PKI role's issuer as it is in a template's text.
var issuerField = regexp.MustCompile(`"issuer_ref"\s*:\s*"([^"]*)"`)

// refer remembers the issuer of an output's PKI role, as rendered for the invented instance, if it is the same for every instance:
// the template has the whole field as text outside branches, or does not name one.
func (p *Profile) refer(o Output, role Object) {
	ref, isText := role.Fields["issuer_ref"].(string)
	isFixed := !strings.Contains(o.body.text, "issuer_ref") || slices.ContainsFunc(o.body.fixedTexts(), func(text string) bool {
		field := issuerField.FindStringSubmatch(text)
		return field != nil && field[1] == ref
	})
	if role.Kind != KindPKIRole || !isText || !isFixed {
		return
	}
	if p.issuers == nil {
		p.issuers = map[string]string{}
	}
	p.issuers[o.Name] = ref
}
