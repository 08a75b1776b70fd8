package setup

import (
	"maps"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
)

// functionPolicies returns the texts of the functions' policies, by function.
func functionPolicies(profiles *grant.Set, o Options) map[string]string {
	texts := map[string]string{}
	for function, list := range rights.ByFunction(rights.Scope{
		Profiles: profiles, AuthMount: o.AuthMount, AlsoPaths: o.AlsoPaths, AlsoMounts: o.AlsoMounts, Revoke: o.Revoke || o.RevokeStored, RevokeStored: o.RevokeStored,
	}) {
		texts[function] = rights.Policy(list)
	}
	return texts
}

// bootstrapPolicy returns the text of the policy that a run with these options needs.
func bootstrapPolicy(profiles *grant.Set, o Options) string {
	b := rights.Bootstrap{
		AuthMount: o.AuthMount, LoginMount: o.LoginMount, RolePrefix: o.RolePrefix, Accounts: map[string][]string{},
		Client: o.configuresClient(), Regions: slices.Sorted(maps.Keys(o.Certificates)),
	}
	for account := range o.STSRoles {
		b.Accounts[account] = o.accountMounts(account)
	}
	if o.Deployment != "" {
		b.Marked = profiles.Mounts().All()
	}
	if o.PKI {
		b.PKIMounts, b.SSHMounts = profiles.Mounts().PKI, profiles.Mounts().SSH
	}
	return rights.Policy(rights.ForBootstrap(b))
}
