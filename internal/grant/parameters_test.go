package grant_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestClientStyle_CompleteAllowsEmptyFields(t *testing.T) {
	text := policyOf(rendered(t, filesWith(replace("worker/profile.yaml", "base_path:", "client_style: complete\nbase_path:")), baseline()))
	for _, line := range []string{`"uri_sans" = ["", []]`, `"not_after" = [""]`, `"serial_number" = [""]`, `"ip_sans" = ["10.1.1.4", ["10.1.1.4"], "", []]`,
		`"alt_names" = ["ip-10-1-1-4.ec2.internal", ""]`, `"exclude_cn_from_sans" = [true, false, "true", "false"]`} {
		if strings.Count(text, line) != 2 {
			t.Errorf("want %s for issue and sign, got\n%s", line, text)
		}
	}
}

func TestSharedName_IsForEveryInstance(t *testing.T) {
	fs := filesWith(replace("worker/profile.yaml", "template: kubelet.json.tmpl", "shared_dns_names: [api.corp.example], template: kubelet.json.tmpl"))
	for _, last := range []string{"4", "5"} {
		f := baseline()
		f.PrivateDNSName = "ip-10-1-1-" + last + ".ec2.internal"
		g := rendered(t, fs, f)
		want := `"alt_names" = ["api.corp.example", "` + f.PrivateDNSName + `", "api.corp.example,` + f.PrivateDNSName + `"]`
		if text := policyOf(g); strings.Count(text, want) != 2 {
			t.Errorf("want %s, got\n%s", want, text)
		}
		if domains := g.Objects[1].Fields["allowed_domains"].([]string); !slices.Contains(domains, "api.corp.example") {
			t.Errorf("want the shared name among the allowed domains, got %v", domains)
		}
	}
}

func TestRender_AddressesAreCanonical(t *testing.T) {
	f := baseline()
	f.IPv6s = []netip.Addr{netip.MustParseAddr("2001:0db8:0:0:0:0:0:0005")}
	want := `"ip_sans" = ["10.1.1.4", "2001:db8::5", "10.1.1.4,2001:db8::5", ["10.1.1.4"], ["2001:db8::5"], ["10.1.1.4", "2001:db8::5"]]`
	if text := policyOf(rendered(t, files(), f)); strings.Count(text, want) != 2 {
		t.Errorf("want %s for issue and sign, since Vault compares addresses as text, got\n%s", want, text)
	}
}

// An instance with many addresses has a policy in proportion to them. docs/capacity.md has these sizes.
func TestPolicy_GrowsInProportionToAddresses(t *testing.T) {
	sizes := map[int]int{}
	for _, n := range []int{1, 10, 96} { // with its name (twice) and its common name the instance holds 99, the most that it can
		f := baseline()
		f.IPv4s = nil
		for i := range n {
			f.IPv4s = append(f.IPv4s, netipFrom(10, 100, 100, byte(100+i)))
		}
		sizes[n] = len(policyOf(rendered(t, files(), f)))
	}
	t.Logf("bytes of a policy with one PKI role, by addresses: %v", sizes)
	if per := (sizes[96] - sizes[10]) / 86; per > 150 {
		t.Errorf("want at most 150 bytes for each address of 14 characters (four forms, by issue and sign), got %d: %v", per, sizes)
	}
}

func TestPKIRole_WithoutAddressesOmitsIPSANs(t *testing.T) {
	g := rendered(t, filesWith(replace("worker/profile.yaml", `template: kubelet.json.tmpl`, `ip_addresses: [], template: kubelet.json.tmpl`)), baseline())
	if text := policyOf(g); strings.Contains(text, "ip_sans") {
		t.Errorf("want no ip_sans, since an empty list would allow any address, got\n%s", text)
	}
	if g.Objects[1].Fields["allow_ip_sans"] != false {
		t.Error("want a PKI role that allows no addresses")
	}
}
