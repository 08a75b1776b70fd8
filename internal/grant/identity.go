package grant

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// identity has the names, addresses and URIs that one role may put into a certificate, as literal values.
type identity struct {
	commonName string   // empty for an SSH role, whose certificates have none
	dnsNames   []string // sorted, without doubles
	addresses  []string // in canonical form, sorted, without doubles
	uris       []string // sorted, without doubles
	own        []string // the names, addresses and URIs that the instance alone may hold, in the form of Claim.Text
}

// commonNameForm bounds a common name that is not a host name.
var commonNameForm = facts.NewForm(`^[A-Za-z0-9](?:[A-Za-z0-9 ._:@-]*[A-Za-z0-9])?$`, 64)

// identity renders the identity of an output that is a role. Names are exact, and addresses are the instance's own or literals
// of the profile. It fails for a value of another form, and for a name that the profiles reserve for others.
func (r *rendering) identity(output string) (identity, error) {
	if id, done := r.identities[output]; done {
		return id, nil
	}
	i := slices.IndexFunc(r.profile.Outputs, func(o Output) bool { return o.Name == output })
	o := r.profile.Outputs[i]
	id := identity{}
	if o.commonName != nil {
		cn, err := r.commonName(o.commonName)
		if err != nil {
			return identity{}, err
		}
		id.commonName = cn
	}
	mount := o.mount(r.profile.BasePath)
	own := func(c *compiled, text string) error {
		text = strings.ToLower(text)
		if !c.varies() || r.values.neutral {
			return nil
		}
		id.own = append(id.own, text)
		return r.profile.reserved.check(r.profile, mount, c, text)
	}
	share := func(_ *compiled, text string) error {
		id.own = slices.DeleteFunc(id.own, func(own string) bool { return own == strings.ToLower(text) })
		return nil
	}
	err := errors.Join(
		renderAll("dns_names", o.dnsNames, r.dnsName, own, &id.dnsNames),
		renderAll("uri_sans", o.uris, r.uri, own, &id.uris),
	)
	if err != nil {
		return identity{}, err
	}
	if o.commonName != nil && !o.SharedCommonName {
		if err := own(o.commonName, id.commonName); err != nil {
			return identity{}, fmt.Errorf("common_name: %w", err)
		}
	}
	if r.profile.accessed[output] { // without pkiAccess or sshAccess no policy reaches the role, and the role allows as little as possible
		err := errors.Join(
			renderAll("shared_dns_names", o.shared, r.dnsName, share, &id.dnsNames),
			renderAll("shared_uri_sans", o.sharedURIs, r.uri, share, &id.uris),
		)
		if err != nil {
			return identity{}, err
		}
		if err := r.addresses(o, &id); err != nil {
			return identity{}, fmt.Errorf("ip_addresses: %w", err)
		}
	}
	for _, list := range []*[]string{&id.dnsNames, &id.addresses, &id.uris} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	if o.Type == KindSSHRole && len(id.principals()) == 0 && r.profile.accessed[output] {
		return identity{}, errors.New("a host certificate needs a name or an address: name one in dns_names or ip_addresses")
	}
	r.identities[output] = id
	return id, nil
}

// renderAll renders the names of one field of an output and adds them to a list. hold is called with each.
func renderAll(field string, names []*compiled, render func(*compiled) (string, error), hold func(*compiled, string) error, to *[]string) error {
	for _, c := range names {
		text, err := render(c)
		if err == nil {
			err = hold(c, text)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		*to = append(*to, text)
	}
	return nil
}

// commonName renders a common name.
func (r *rendering) commonName(c *compiled) (string, error) {
	cn, err := c.execute(r.values, nil)
	if err != nil {
		return "", err
	}
	if !commonNameForm.Match(cn) && CheckFQDN(cn) != nil {
		return "", fmt.Errorf("common_name: %+q is not of the form %s", cn, commonNameForm)
	}
	if _, err := netip.ParseAddr(cn); err == nil {
		return "", fmt.Errorf("common_name: %q is an address: put it into ip_addresses", cn)
	}
	// RFC 5280 bounds a common name at 64 characters, and Vault does not shorten one.
	if len(cn) > 64 {
		return "", fmt.Errorf("common_name: %q has more than 64 characters", cn)
	}
	return cn, nil
}

// dnsName renders one DNS name in lower case.
func (r *rendering) dnsName(c *compiled) (string, error) {
	name, err := c.execute(r.values, nil)
	if err != nil {
		return "", err
	}
	name = strings.ToLower(name)
	return name, CheckFQDN(name)
}

// addresses renders the addresses of a role. The instance claims its own addresses, but not the addresses that its
// profile fixes.
func (r *rendering) addresses(o Output, id *identity) error {
	own := slices.Concat(r.values.IPv4s, r.values.IPv6s)
	if o.addresses != nil {
		own = nil
	}
	for _, c := range o.addresses {
		text, err := c.execute(r.values, nil)
		if err != nil {
			return err
		}
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return fmt.Errorf("%+q is not an address", text)
		}
		if c.varies() {
			own = append(own, a.String())
		} else {
			id.addresses = append(id.addresses, a.String())
		}
	}
	id.addresses = append(id.addresses, own...)
	for _, address := range own {
		if r.values.neutral {
			break
		}
		isShared, err := r.profile.reserved.checkAddress(r.profile, o.mount(r.profile.BasePath), address)
		switch {
		case err != nil:
			return err
		case isShared:
		case !r.profile.OverlappingAddresses:
			id.own = append(id.own, address)
		case r.values.VPCID == "":
			return errors.New("overlapping_addresses: the instance is in no VPC")
		default:
			id.own = append(id.own, address+"@"+r.values.VPCID)
		}
	}
	return nil
}
