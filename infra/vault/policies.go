package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// functionPolicies are the policies of the functions, by function: the narrowest that work. They reach the object
// names this program gives (i-… below an output path, ec2-i-… among the policies) and nothing else. Entities cannot
// be narrowed by name in Vault, so only the function that removes may look them up and delete them.
func functionPolicies(profiles *grant.Set, o options) map[string]string {
	provision := policy{}
	deprovision := policy{}
	provision.allow("sys/policies/acl/ec2-i-*", "create", "read", "update", "delete")
	deprovision.allow("sys/policies/acl/ec2-i-*", "read", "delete")
	paths := append(outputPaths(profiles), o.alsoPaths...)
	slices.Sort(paths)
	paths = slices.Compact(paths)
	for _, path := range paths {
		provision.allow(path+"/i-*", "create", "read", "update", "delete")
		deprovision.allow(path+"/i-*", "delete")
	}
	provision.allow("auth/"+o.authMount+"/role/i-*", "create", "read", "update")
	for _, mount := range append([]string{o.authMount}, o.alsoMounts...) {
		// Read tells the role_id, the alias of the logins to cut, where a crash kept it from the ledger.
		deprovision.allow("auth/"+mount+"/role/i-*", "read", "delete")
		deprovision.allow("auth/"+mount+"/identity-accesslist/i-*", "delete")
	}
	deprovision.allow("identity/lookup/entity", "update")
	deprovision.allow("identity/entity/id/*", "delete")
	if o.revoke {
		for _, path := range paths {
			mount, isRoles := strings.CutSuffix(path, "/roles")
			if !isRoles {
				continue
			}
			for _, by := range []string{"issue", "sign"} {
				deprovision.allow("sys/leases/revoke-prefix/"+mount+"/"+by+"/i-*", "update", "sudo")
			}
		}
	}
	return map[string]string{"provision": provision.String(), "deprovision": deprovision.String()}
}

// outputPaths are the paths, base path included, that hold a PKI role or generic object for each instance.
func outputPaths(profiles *grant.Set) []string {
	var paths []string
	for _, p := range profiles.Profiles {
		for _, o := range p.Outputs {
			if o.Type != grant.KindPolicy {
				paths = append(paths, p.BasePath+"/"+o.Path)
			}
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// policy is the text of a policy, block by block.
type policy struct{ blocks []string }

func (p *policy) allow(path string, capabilities ...string) {
	quoted := make([]string, len(capabilities))
	for i, c := range capabilities {
		quoted[i] = fmt.Sprintf("%q", c)
	}
	p.blocks = append(p.blocks, fmt.Sprintf("path %q {\n  capabilities = [%s]\n}\n", path, strings.Join(quoted, ", ")))
}

func (p *policy) String() string {
	return "# Made from the profiles by infra/vault: change those and run it again.\n\n" + strings.Join(p.blocks, "\n")
}
