package grant

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// constants are the values that are the same for every instance of a profile.
var constants = []string{"BasePath", "Profile", "Deployment", "OutputPath", "TemplateName"}

// varies reports whether a template may render differently for two instances of its profile.
func (c *compiled) varies() bool {
	for name := range c.fields {
		if !slices.Contains(constants, name) {
			return true
		}
	}
	return false
}

// reservations are the names and addresses that the profiles of a set keep for their own instances, by PKI mount and by
// base path. An instance must not come to hold one through a value of its own.
type reservations struct {
	// literals are the texts that stand in the profiles, with the profiles they stand in.
	literals map[Claim][]*Profile
	// forms are those of names that profiles make from values.
	forms map[string][]nameForm
}

func reserve(profiles []*Profile) *reservations {
	r := &reservations{literals: map[Claim][]*Profile{}, forms: map[string][]nameForm{}}
	for _, p := range profiles {
		r.add(p, p.BasePath, p.fqdn)
		for _, o := range p.Outputs {
			if o.Type != KindPKIRole {
				continue
			}
			for _, c := range append(slices.Concat(o.dnsNames, o.shared), o.commonName) {
				r.add(p, o.mount(p.BasePath), c)
			}
			for _, c := range o.addresses {
				if address, err := netip.ParseAddr(c.fixedText(p)); err == nil {
					r.keep(p, o.mount(p.BasePath), address.String())
				}
			}
		}
	}
	return r
}

func (r *reservations) keep(p *Profile, under, text string) {
	claim := Claim{Under: under, Text: text}
	r.literals[claim] = append(r.literals[claim], p)
}

func (r *reservations) add(p *Profile, under string, c *compiled) {
	if c.fields["Deployment"] || c.varies() {
		for _, f := range formsOf(p, c) {
			known := func(o nameForm) bool { return o.profile == p && o.text == f.text }
			if !slices.ContainsFunc(r.forms[under], known) {
				r.forms[under] = append(r.forms[under], f)
			}
		}
		return
	}
	if text := c.fixedText(p); text != "" {
		r.keep(p, under, strings.ToLower(text))
	}
}

// fixedText renders a template that goes by no instance's value; empty for one that does, and for one that does not render,
// which rehearse says.
func (c *compiled) fixedText(p *Profile) string {
	if c.varies() || c.fields["Deployment"] {
		return ""
	}
	text, err := c.execute(values{BasePath: p.BasePath, Profile: p.Name}, nil)
	if err != nil {
		return ""
	}
	return text
}

// check returns an error when a name that c rendered for an instance of p is another profile's, or one that profiles share.
// Only a name that a tag chose is held against the forms of names: all else is AWS's to choose.
func (r *reservations) check(p *Profile, under string, c *compiled, text string) error {
	if !c.varies() || c.fixedFQDN(p) {
		return nil
	}
	if owners := r.literals[Claim{Under: under, Text: text}]; len(owners) > 0 {
		return fmt.Errorf("the name %q stands in profile %s for certificates of %s: no instance takes it through its own name", text, owners[0].Name, under)
	}
	if !c.byTag(p) {
		return nil
	}
	own, weight := expression(p, c)
	for _, o := range r.forms[under] {
		if o.byTag && (o.text == own || o.weight < weight) {
			continue // it may as well be the instance's own
		}
		if o.form.MatchString(text) {
			return fmt.Errorf("the name %q has the form of a name that profile %s gives to its instances in %s: a tag cannot choose it", text, o.profile.Name, under)
		}
	}
	return nil
}

// foreignAddress returns an error when an address of an instance of p stands in another profile for certificates of a
// mount, and not in p: a cluster's service address, say, that an instance was given as its own. own is true for one that
// stands in p itself, whose instances share it.
func (r *reservations) foreignAddress(p *Profile, mount, address string) (own bool, err error) {
	owners := r.literals[Claim{Under: mount, Text: address}]
	if len(owners) == 0 || slices.Contains(owners, p) {
		return len(owners) > 0, nil
	}
	return false, fmt.Errorf("the instance's address %s stands in profile %s for certificates of %s: it is not an instance's own", address, owners[0].Name, mount)
}

// fixedFQDN reports whether all that varies in a template is an FQDN that the profile fixes.
func (c *compiled) fixedFQDN(p *Profile) bool {
	if p.fqdn.varies() || !c.fields["FQDN"] {
		return false
	}
	for name := range c.fields {
		if name != "FQDN" && !slices.Contains(constants, name) {
			return false
		}
	}
	return true
}

// byTag reports whether a tag chooses what a template renders to.
func (c *compiled) byTag(p *Profile) bool {
	return c.fields["Tag"] || c.fields["FQDN"] && p.tagChoosesFQDN()
}
