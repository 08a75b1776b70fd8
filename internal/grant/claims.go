package grant

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// MaxClaims is the largest number of names, addresses and URIs of one instance. A DynamoDB transaction takes 100 items, one of them
// the record. https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
const MaxClaims = 99

// Claim is a name, an address or a URI that one live instance alone may hold: in certificates of a mount, or as its FQDN below a
// base path.
type Claim struct {
	// Under is the PKI or SSH mount, or the base path.
	Under string
	// Text is the name or the URI in lower case, or the address. Where networks overlap, the address has its VPC: 10.0.0.1@vpc-….
	Text string
}

// claims returns the names that a grant claims, sorted, without doubles: the FQDN below the base path, and for each mount
// the names, addresses and URIs of its certificates that the profile does not share. It fails for more than MaxClaims names.
func (r *rendering) claims() ([]Claim, error) {
	claims := map[Claim]bool{{Under: r.profile.BasePath, Text: r.values.FQDN}: true}
	for _, o := range r.profile.Outputs {
		if !o.Type.signs() {
			continue
		}
		id, err := r.identity(o.Name)
		if err != nil {
			return nil, err
		}
		for _, text := range id.own {
			claims[Claim{Under: o.mount(r.profile.BasePath), Text: text}] = true
		}
	}
	out := slices.SortedFunc(maps.Keys(claims), func(a, b Claim) int {
		return cmp.Or(cmp.Compare(a.Under, b.Under), cmp.Compare(a.Text, b.Text))
	})
	if len(out) > MaxClaims {
		return nil, fmt.Errorf("the instance would hold %d names and addresses (each counts once for each mount), and one transaction of the ledger takes at most %d: choose fewer in dns_names and ip_addresses",
			len(out), MaxClaims)
	}
	return out, nil
}
