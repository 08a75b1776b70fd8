package grant_test

import (
	"slices"
	"testing"
)

func TestPKIRole_WithoutAccessHasNoSharedNames(t *testing.T) {
	fs := filesWith(replace("worker/profile.yaml", "type: pki-role,", "type: pki-role, shared_dns_names: [api.corp.example],"),
		replace("worker/policy.hcl.tmpl", `{{ pkiAccess "kubelet" }}`, ""))
	role := rendered(t, fs, baseline()).Objects[1].Fields
	if domains, _ := role["allowed_domains"].([]string); slices.Contains(domains, "api.corp.example") || role["allow_ip_sans"] != false {
		t.Errorf("want a role without pkiAccess to have no shared name and no addresses, got %v and addresses %v", domains, role["allow_ip_sans"])
	}
}
