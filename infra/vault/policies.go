package main

import (
	"maps"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
)

// functionPolicies returns the texts of the functions' policies, by function.
func functionPolicies(profiles *grant.Set, o options) map[string]string {
	texts := map[string]string{}
	for function, list := range rights.ByFunction(rights.Scope{
		Profiles: profiles, AuthMount: o.authMount, AlsoPaths: o.alsoPaths, AlsoMounts: o.alsoMounts, Revoke: o.revoke,
	}) {
		texts[function] = rights.Policy(list)
	}
	return texts
}

// bootstrapPolicy returns the text of the policy that a run with these options needs.
func bootstrapPolicy(profiles *grant.Set, o options) string {
	b := rights.Bootstrap{
		AuthMount: o.authMount, LoginMount: o.loginMount, RolePrefix: o.rolePrefix, Accounts: map[string][]string{},
		Client: o.configuresClient(), Regions: slices.Sorted(maps.Keys(o.certificates)),
	}
	for account := range o.stsRoles {
		b.Accounts[account] = o.accountMounts(account)
	}
	if o.deployment != "" {
		b.Marked = profiles.PKIMounts()
	}
	if o.pki {
		b.PKIMounts = profiles.PKIMounts()
	}
	return rights.Policy(rights.ForBootstrap(b))
}
