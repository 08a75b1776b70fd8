package main

import (
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
)

// functionPolicies are the texts of the functions' policies, by function.
func functionPolicies(profiles *grant.Set, o options) map[string]string {
	texts := map[string]string{}
	for function, list := range rights.ByFunction(rights.Scope{
		Profiles: profiles, AuthMount: o.authMount, AlsoPaths: o.alsoPaths, AlsoMounts: o.alsoMounts, Revoke: o.revoke,
	}) {
		texts[function] = rights.Policy(list)
	}
	return texts
}
