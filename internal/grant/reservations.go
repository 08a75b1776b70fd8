package grant

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// constants are the names of the values that are the same for every instance of a profile.
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

// reservations are the names and addresses that the profiles of a set keep for their own instances, by PKI mount and by base
// path. No value of an instance may make it hold a name that is reserved for others.
type reservations struct {
	// literals are the names and addresses that are fixed in profiles, each with the profiles that fix it.
	literals map[Claim][]*Profile
	// forms are the forms of names that profiles make from values, by PKI mount or base path.
	forms map[string][]nameForm
}

// reservationsOf returns the reservations of the profiles of a set.
func reservationsOf(profiles []*Profile) *reservations {
	r := &reservations{literals: map[Claim][]*Profile{}, forms: map[string][]nameForm{}}
	for _, p := range profiles {
		r.add(p, p.BasePath, p.fqdn)
		for _, o := range p.Outputs {
			if !o.Type.signs() {
				continue
			}
			for _, c := range slices.Concat(o.dnsNames, o.shared, o.uris, o.sharedURIs) {
				r.add(p, o.mount(p.BasePath), c)
			}
			if o.commonName != nil {
				r.add(p, o.mount(p.BasePath), o.commonName)
			}
			for _, c := range o.addresses {
				if address, err := netip.ParseAddr(c.fixedText(p)); err == nil {
					r.addLiteral(p, o.mount(p.BasePath), address.String())
				}
			}
		}
	}
	return r
}

// addLiteral reserves a fixed name or address.
func (r *reservations) addLiteral(p *Profile, under, text string) {
	claim := Claim{Under: under, Text: text}
	r.literals[claim] = append(r.literals[claim], p)
}

// add reserves the name that a template renders: the name itself if it is fixed, otherwise its forms.
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
		r.addLiteral(p, under, strings.ToLower(text))
	}
}

// fixedText returns the text of a template that renders the same for every instance. It returns an empty string for any other
// template, and for one that does not render, which rehearse reports.
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

// check returns an error if the name that c rendered for an instance of p is a fixed name of a profile, or if a tag chose it and
// it has the form of another profile's names. Names without a tag are made from AWS's values, which no tag can choose.
func (r *reservations) check(p *Profile, under string, c *compiled, text string) error {
	if !c.varies() || c.fixedFQDN(p) {
		return nil
	}
	if owners := r.literals[Claim{Under: under, Text: text}]; len(owners) > 0 {
		return fmt.Errorf("the name %q below %s is fixed in profile %s: no instance may take it by a value of its own", text, under, owners[0].Name)
	}
	if !c.byTag(p) {
		return nil
	}
	own, weight := expression(p, c)
	for _, o := range r.forms[under] {
		if o.byTag && (o.text == own || o.weight < weight) {
			continue // the instance's own form takes precedence
		}
		if o.form.MatchString(text) {
			return fmt.Errorf("the name %q has the form of the names of profile %s in %s: a tag cannot choose it", text, o.profile.Name, under)
		}
	}
	return nil
}

// checkAddress returns an error if, for certificates of a mount, an address of an instance of p is fixed in another profile
// and not in p: for example a cluster's service address that the instance was given as its own. isShared reports whether the
// address is fixed in p itself, whose instances share it.
func (r *reservations) checkAddress(p *Profile, mount, address string) (isShared bool, err error) {
	owners := r.literals[Claim{Under: mount, Text: address}]
	if len(owners) == 0 || slices.Contains(owners, p) {
		return len(owners) > 0, nil
	}
	return false, fmt.Errorf("the instance's address %s is fixed in profile %s for certificates of %s: no instance may have it as its own", address, owners[0].Name, mount)
}

// fixedFQDN reports whether a template varies only by the FQDN, and the profile fixes the FQDN.
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

// byTag reports whether a tag chooses the text that a template renders.
func (c *compiled) byTag(p *Profile) bool {
	return c.fields["Tag"] || (c.fields["FQDN"] && p.tagChoosesFQDN())
}
