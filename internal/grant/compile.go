package grant

import (
	"errors"
	"fmt"
	"path"
	"slices"
)

// compiler parses every template of a profile and gathers all that is wrong with them.
type compiler struct {
	profile *Profile
	folder  string
	read    func(name string) (string, error) // a file beside profile.yaml
	faults  []error
}

func (c *compiler) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Errorf(format, args...))
}

func (c *compiler) compile() error {
	c.profile.fqdn = c.text("fqdn", c.profile.FQDN)
	if f := c.profile.fqdn; f != nil {
		if f.fields["FQDN"] {
			c.fault("fqdn: the FQDN cannot be made from itself")
		}
		if len(f.pki) > 0 {
			c.fault("fqdn: pkiAccess is for policies")
		}
	}
	for i := range c.profile.Outputs {
		o := &c.profile.Outputs[i]
		c.body(o)
		if o.Type == KindPKIRole {
			c.names(o)
		}
	}
	return errors.Join(c.faults...)
}

// text parses one template; nil when it does not parse.
func (c *compiler) text(where, text string) *compiled {
	t, err := compile(where, text)
	if err != nil {
		c.faults = append(c.faults, err)
	}
	return t
}

// body parses the template of an output.
func (c *compiler) body(o *Output) {
	text, err := c.read(o.Template)
	if err != nil {
		c.fault("outputs.%s: reading the template: %w", o.Name, err)
		return
	}
	if o.body = c.text(path.Join(c.folder, o.Template), text); o.body == nil {
		return
	}
	if o.Type == KindPKIRole && o.body.fields["Tag"] {
		c.fault("%s: no tag may stand in a certificate: whoever tags an instance would choose its organization", o.Template)
	}
	for _, target := range o.body.pki {
		c.profile.accessed[target] = true
		if o.Type != KindPolicy {
			c.fault("%s: pkiAccess is for policies", o.Template)
		}
		if !slices.ContainsFunc(c.profile.Outputs, func(t Output) bool { return t.Name == target && t.Type == KindPKIRole }) {
			c.fault("%s: pkiAccess %q names no pki-role output of this profile", o.Template, target)
		}
	}
	if o.Type == KindPKIRole && len(o.body.fields) == 0 {
		// What is wrong with it is told where the profile is rehearsed.
		if given, err := o.body.execute(values{}, nil); err == nil {
			o.free, _ = freePKIFields(given)
		}
	}
}

// names parses what may stand in the certificates of a PKI role.
func (c *compiler) names(o *Output) {
	where := "outputs." + o.Name
	if o.CommonName == "" {
		o.CommonName = "{{ .FQDN }}"
	}
	if o.DNSNames == nil {
		o.DNSNames = []string{"{{ .FQDN }}"}
	}
	o.commonName = c.name(where+".common_name", o.CommonName)
	for _, t := range o.DNSNames {
		o.dnsNames = append(o.dnsNames, c.name(where+".dns_names", t))
	}
	for _, t := range o.SharedDNSNames {
		o.shared = append(o.shared, c.name(where+".shared_dns_names", t))
	}
	if o.IPAddresses != nil {
		o.addresses = []*compiled{} // an empty list in the profile means none, not all
	}
	for _, t := range o.IPAddresses {
		o.addresses = append(o.addresses, c.name(where+".ip_addresses", t))
	}
}

// name parses one value of a certificate. Such values come from AWS, or through the FQDN, which is claimed by one
// instance and bounded; a tag would bring in a name that several can hold.
func (c *compiler) name(where, text string) *compiled {
	t := c.text(where, text)
	if t == nil {
		return nil
	}
	if t.fields["Tag"] {
		c.fault("%s: take names from tags through fqdn, which one instance alone can hold", where)
	}
	if len(t.pki) > 0 {
		c.fault("%s: pkiAccess is for policies", where)
	}
	return t
}
