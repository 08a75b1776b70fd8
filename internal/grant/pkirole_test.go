package grant_test

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func TestPKIRole_WithoutAccessHasNoSharedNames(t *testing.T) {
	fs := filesWith(replace("worker/profile.yaml", "type: pki-role,", "type: pki-role, shared_dns_names: [api.corp.example],"),
		replace("worker/policy.hcl.tmpl", `{{ pkiAccess "kubelet" }}`, ""))
	role := rendered(t, fs, baseline()).Objects[1].Fields
	if domains, _ := role["allowed_domains"].([]string); slices.Contains(domains, "api.corp.example") || role["allow_ip_sans"] != false {
		t.Errorf("want a role without pkiAccess to have no shared name and no addresses, got %v and addresses %v", domains, role["allow_ip_sans"])
	}
}

// A record must not depend on the server, and a role is compared and written with the fields that the server has.
func TestPKIRole_OptionalLocksFollowTheServer(t *testing.T) {
	f := baseline()
	f.IPv6s = append(f.IPv6s, netip.MustParseAddr("2001:db8::7"))
	role := rendered(t, filesWith(), f).Objects[1]
	plain := role
	plain.Optional = nil
	if role.SHA256() != plain.SHA256() {
		t.Error("the digest depends on the optional fields, so every record would change with the server")
	}
	onVault := map[string]any{}
	maps.Copy(onVault, role.Fields)
	onOpenBao := maps.Clone(onVault)
	onOpenBao["allowed_ip_sans_cidr"], onOpenBao["not_after_bound"] = []any{}, "permit"
	if d := role.Differences(onVault); len(d) > 0 || len(role.FieldsFor(onVault)) != len(role.Fields) {
		t.Errorf("want no optional field sent to Vault, which would refuse the write, got %q", d)
	}
	if d := role.Differences(onOpenBao); !slices.Equal(d, []string{"allowed_ip_sans_cidr", "not_after_bound"}) {
		t.Errorf("want both locks missing on OpenBao, got %q", d)
	}
	sent := role.FieldsFor(onOpenBao)
	networks, _ := sent["allowed_ip_sans_cidr"].([]string)
	if !slices.Equal(networks, []string{"10.1.1.4/32", "2001:db8::7/128"}) || sent["not_after_bound"] != "forbid" || len(role.Fields) != len(sent)-2 {
		t.Errorf("want the instance's own addresses as networks, got %q and %v", networks, sent["not_after_bound"])
	}
	onOpenBao["allowed_ip_sans_cidr"], onOpenBao["not_after_bound"] = []any{"2001:db8::7/128", "10.1.1.4/32"}, "forbid"
	if d := role.Differences(onOpenBao); len(d) > 0 {
		t.Errorf("want no difference from what was written, got %q", d)
	}
	onOpenBao["allowed_ip_sans_cidr"] = []any{"2001:db8::7/128", "10.1.1.4/31"}
	if d := role.Differences(onOpenBao); len(d) != 1 {
		t.Errorf("want a wider network found, got %q", d)
	}
}

func TestPKIRole_TemplateSetsNoLock(t *testing.T) {
	for _, field := range []string{`"allowed_ip_sans_cidr": ["0.0.0.0/0"]`, `"not_after_bound": "permit"`, `"allow_any_name": true`} {
		_, err := grant.Load(filesWith(replace("worker/kubelet.json.tmpl", "{", "{"+field+",")))
		if err == nil || !strings.Contains(err.Error(), "is set by the program") {
			t.Errorf("%s: want the template refused, since the lock is the program's, got %v", field, err)
		}
	}
}
