package grant

import (
	"errors"
	"fmt"
	"path"
)

// compiler parses every template of a profile and collects all faults.
type compiler struct {
	profile *Profile
	read    func(name string) (string, error) // reads a template
	faults  []error
}

func (c *compiler) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Errorf(format, args...))
}

func (c *compiler) compile() error {
	c.profile.fqdn = c.text("fqdn", c.profile.FQDN)
	if f := c.profile.fqdn; f != nil {
		if f.fields["FQDN"] {
			c.fault("fqdn: must not use .FQDN, its own value")
		}
		c.refuseAccess("fqdn", f)
	}
	for i := range c.profile.Outputs {
		o := &c.profile.Outputs[i]
		c.body(o)
		if o.Type.signs() {
			c.names(o)
		}
	}
	return errors.Join(c.faults...)
}

// text parses one template. It returns nil for one that does not parse.
func (c *compiler) text(where, text string) *compiled {
	t, err := compile(where, text)
	if err != nil {
		c.faults = append(c.faults, err)
	}
	return t
}

// body parses the template of an output.
func (c *compiler) body(o *Output) {
	name := path.Join(o.source, o.Template)
	text, err := c.read(name)
	if err != nil {
		c.fault("outputs.%s: reading the template: %w", o.Name, err)
		return
	}
	if o.body = c.text(name, text); o.body == nil {
		return
	}
	if o.Type.signs() && o.body.fields["Tag"] {
		c.fault("%s: no tag may be in a certificate: a tag would choose the instance's organization", o.Template)
	}
	if o.Type != KindPolicy {
		c.refuseAccess(o.Template, o.body)
	}
	for _, a := range o.body.accesses {
		c.profile.accessed[a.output] = true
		if _, ok := c.profile.accessedBy(a); !ok {
			c.fault("%s: %s %q names no %s output of this profile", o.Template, a.function, a.output, accessKinds[a.function])
		}
	}
	if o.Type.signs() && len(o.body.fields) == 0 {
		// The rehearsal reports its faults.
		if given, err := o.body.execute(values{}, nil); err == nil {
			o.free, _ = freeRoleFields(o.Type, given, c.profile.rules)
		}
	}
}

// names parses the names, addresses and URIs of a role's certificates.
func (c *compiler) names(o *Output) {
	where := "outputs." + o.Name
	if o.Type == KindPKIRole {
		if o.CommonName == "" {
			o.CommonName = "{{ .FQDN }}"
		}
		o.commonName = c.name(where+".common_name", o.CommonName)
	}
	if o.DNSNames == nil {
		o.DNSNames = []string{"{{ .FQDN }}"}
	}
	for _, t := range o.DNSNames {
		o.dnsNames = append(o.dnsNames, c.name(where+".dns_names", t))
	}
	for _, t := range o.SharedDNSNames {
		o.shared = append(o.shared, c.name(where+".shared_dns_names", t))
	}
	if o.IPAddresses != nil {
		o.addresses = []*compiled{} // nil would mean all of the instance's
	}
	for _, t := range o.IPAddresses {
		o.addresses = append(o.addresses, c.name(where+".ip_addresses", t))
	}
	for _, t := range o.URISANs {
		o.uris = append(o.uris, c.name(where+".uri_sans", t))
	}
	for _, t := range o.SharedURISANs {
		o.sharedURIs = append(o.sharedURIs, c.name(where+".shared_uri_sans", t))
	}
}

// name parses the template of one value of a certificate. It refuses tags, by which several instances could get one name. The
// FQDN may come from a tag, since one instance alone claims it.
func (c *compiler) name(where, text string) *compiled {
	t := c.text(where, text)
	if t == nil {
		return nil
	}
	if t.fields["Tag"] {
		c.fault("%s: take names from tags through fqdn, which one instance alone can claim", where)
	}
	c.refuseAccess(where, t)
	return t
}

// refuseAccess adds a fault for a template that writes rules of a policy but is none.
func (c *compiler) refuseAccess(where string, t *compiled) {
	for _, a := range t.accesses {
		c.fault("%s: %s is for policies only", where, a.function)
	}
	if t.document {
		c.fault("%s: identityAccess is for policies only", where)
	}
}
