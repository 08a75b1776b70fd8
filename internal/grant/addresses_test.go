package grant_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// Pods of the VPC CNI have secondary addresses of the node's interfaces. A profile chooses which of all these are the node's.
func TestAddresses_CertificatesAndTokensHaveTheChosenOnes(t *testing.T) {
	f := baseline()
	for _, a := range []string{"10.1.1.5", "10.1.2.9", "10.1.2.10"} {
		f.IPv4s = append(f.IPv4s, netip.MustParseAddr(a))
	}
	f.IPv6s = []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
	f.Secondary = []netip.Addr{f.IPv4s[1], f.IPv4s[3], f.IPv6s[1]}
	for choice, want := range map[string][]string{
		"":           f.Addresses(),
		"all":        f.Addresses(),
		"interfaces": {"10.1.1.4", "10.1.2.9", "2001:db8::1"},
		"primary":    {"10.1.1.4", "2001:db8::1"},
	} {
		g := rendered(t, filesWith(documented, replace("worker/profile.yaml", "base_path", fmt.Sprintf("addresses: %q\nbase_path", choice))), f)
		if got := g.AuthRole.Fields["token_bound_cidrs"]; !slices.Equal(got.([]string), want) {
			t.Errorf("addresses %q: tokens are bound to %v, want %v", choice, got, want)
		}
		sorted := slices.Sorted(slices.Values(want))
		if together := `"` + strings.Join(sorted, ",") + `"`; !strings.Contains(policyOf(g), together) {
			t.Errorf("addresses %q: a certificate must be able to have %s:\n%s", choice, together, policyOf(g))
		}
		for _, a := range f.Addresses() {
			if granted := strings.Contains(policyOf(g), `"`+a+`"`); granted != slices.Contains(want, a) {
				t.Errorf("addresses %q: a certificate may have %s: %v, want %v", choice, a, granted, !granted)
			}
		}
		var claimed []string
		for _, c := range g.Claims {
			if _, err := netip.ParseAddr(c.Text); err == nil {
				claimed = append(claimed, c.Text)
			}
		}
		if !slices.Equal(claimed, sorted) {
			t.Errorf("addresses %q: the instance claims %v, want %v: a pod's address may be another node's tomorrow", choice, claimed, sorted)
		}
	}
	wantFault(t, filesWith(replace("worker/profile.yaml", "base_path", "addresses: some\nbase_path")), "addresses", "primary")
}
