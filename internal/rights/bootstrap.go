package rights

import (
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// Bootstrap is what infra/vault is to write.
type Bootstrap struct {
	AuthMount, LoginMount string
	// RolePrefix begins the names of the functions' policies and roles.
	RolePrefix string
	// Accounts are those whose instances Vault checks by a role there.
	Accounts []string
	// Client is whether Vault's way to ask AWS is written.
	Client bool
	// PKIMounts are the mounts to make; empty for none.
	PKIMounts []string
	// Marked are the mounts to mark as a deployment's; empty for none.
	Marked []string
}

// ForBootstrap gives the rights of the person, or the pipeline, that runs infra/vault, sorted by path: those that are
// needed to write everything for the first time, to change it later and to look for what else reaches it, and no others. Enabling an auth mount needs sudo:
// https://developer.hashicorp.com/vault/api-docs/system/auth#enable-auth-method. The issuers of a PKI mount may be listed
// by anybody.
func ForBootstrap(b Bootstrap) []Right {
	out := set{}
	out.allow("sys/auth", "read")
	for _, mount := range slices.Compact([]string{b.AuthMount, b.LoginMount}) {
		out.allow("sys/auth/"+mount, "update", "sudo")
		if b.Client {
			out.allow(grant.AuthConfigPath(mount, "client"), "create", "read", "update")
		}
	}
	out.allow(grant.AuthConfigPath(b.AuthMount, "identity"), "read", "update")
	for _, account := range b.Accounts {
		out.allow(grant.AuthConfigPath(b.AuthMount, "sts/"+account), "create", "read", "update")
	}
	for _, function := range Functions() {
		name := b.RolePrefix + "-" + function
		out.allow(grant.PolicyPath(name), "read", "update")
		out.allow(grant.AuthRolePath(b.LoginMount, name), "create", "read", "update")
	}
	out.allow("sys/mounts", "read")
	for _, mount := range b.Marked {
		out.allow("sys/mounts/"+mount+"/tune", "update")
	}
	for _, mount := range b.PKIMounts {
		out.allow("sys/mounts/"+mount, "update")
		out.allow(mount+"/root/generate/internal", "update")
	}
	// For the notices about other policies that reach the instances' objects, and about names that no instance has.
	out.allow(grant.PolicyFolder, "list")
	out.allow(grant.PolicyPath("*"), "read")
	out.allow(grant.AuthRoleFolder(b.AuthMount), "list")
	return out.sorted()
}
