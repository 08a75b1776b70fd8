package rights

import (
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// Bootstrap has the options of vault-ec2 setup that decide what it writes.
type Bootstrap struct {
	AuthMount  string // where instances log in
	LoginMount string // where the functions log in
	// RolePrefix begins the names of the functions' policies and roles.
	RolePrefix string
	// Accounts are the auth mounts with a role that Vault assumes in an account, by account.
	Accounts map[string][]string
	// Regions are the regions with a certificate for the identity documents of their instances.
	Regions []string
	// Client reports whether config/client is written: how Vault calls AWS.
	Client bool
	// PKIMounts and SSHMounts are the mounts to make.
	PKIMounts []string
	SSHMounts []string
	// Marked are the mounts to mark as a deployment's.
	Marked []string
}

// ForBootstrap returns the rights of the person or the pipeline that runs vault-ec2 setup, sorted by path. They suffice for the
// first run, for later changes, and for the search for other policies that reach the instances' objects. Enabling an auth
// mount needs sudo:
// https://developer.hashicorp.com/vault/api-docs/system/auth#enable-auth-method
// Listing the issuers of a PKI mount needs no right.
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
	for account, mounts := range b.Accounts {
		for _, mount := range mounts {
			out.allow(grant.AuthConfigPath(mount, "sts/"+account), "create", "read", "update")
		}
	}
	for _, region := range b.Regions {
		out.allow(grant.AuthConfigPath(b.AuthMount, "certificate/"+region), "create", "read")
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
	for _, mount := range b.SSHMounts {
		out.allow("sys/mounts/"+mount, "update")
		out.allow(mount+"/config/ca", "read", "update")
	}
	// The notices about other policies that reach the instances' objects, and about names of no instance, need the rest.
	out.allow(grant.PolicyFolder, "list")
	out.allow(grant.PolicyPath("*"), "read")
	out.allow(grant.AuthRoleFolder(b.AuthMount), "list")
	return out.sorted()
}
