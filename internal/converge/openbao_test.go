package converge_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// OpenBao answers fields of a PKI role that Vault does not have. They lock the role's addresses and the end of its certificates.
func TestGrant_LocksRolesFurtherOnOpenBao(t *testing.T) {
	openBao := map[string]any{"allowed_ip_sans_cidr": []string{}, "not_after_bound": "permit"}
	for name, row := range map[string]struct {
		defaults map[string]any
		writes   int // of the role, for its first grant
		networks []string
		bound    any
	}{
		"Vault":                             {nil, 1, nil, nil},
		"OpenBao":                           {openBao, 2, []string{"10.1.1.4/32"}, "forbid"},
		"an OpenBao without one of the two": {map[string]any{"not_after_bound": "permit"}, 2, nil, "forbid"},
	} {
		t.Run(name, func(t *testing.T) {
			w, c := launched(t, mayMake)
			w.RoleDefaults = row.defaults
			check := func(when string, writes int) {
				t.Helper()
				got := w.Objects[pkiA]
				if networks, _ := got["allowed_ip_sans_cidr"].([]string); !slices.Equal(networks, row.networks) || got["not_after_bound"] != row.bound {
					t.Errorf("%s: want networks %q and not_after_bound %v, got %v and %v", when, row.networks, row.bound, got["allowed_ip_sans_cidr"], got["not_after_bound"])
				}
				if n := w.count("vault write " + pkiA); n != writes {
					t.Errorf("%s: want %d writes of the role, got %d", when, writes, n)
				}
			}
			w.must(c, idA, facts.Running, converge.Provisioned)
			check("the first grant", row.writes)
			w.calls = nil
			if row.defaults == nil {
				return
			}
			maps.Copy(w.Objects[pkiA], row.defaults) // as by a version that did not know the fields
			req := w.event(idA, facts.Running)
			req.Verify = true
			w.mustAt(c, req, converge.Provisioned)
			check("a role without the locks", 1)
		})
	}
}
