package grant

import (
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// PolicyFolder is the folder of all policies.
const PolicyFolder = "sys/policies/acl"

// Segments between a mount and a name. The Split functions and the path functions share them.
const (
	authPrefix        = "auth/"
	roleSegment       = "/role"
	accessListSegment = "/identity-accesslist"
	pkiRolesSegment   = "/roles"
)

// PolicyPath returns the path of a policy by its name or a pattern of names,
// https://developer.hashicorp.com/vault/api-docs/system/policies#create-update-acl-policy
func PolicyPath(name string) string { return PolicyFolder + "/" + name }

// OldPolicyPath returns the older path of a policy, which Vault still serves,
// https://developer.hashicorp.com/vault/api-docs/system/policy
func OldPolicyPath(name string) string { return "sys/policy/" + name }

// SplitPolicyPath returns the name of the policy at a path. ok is false for any other path.
func SplitPolicyPath(path string) (name string, ok bool) {
	return strings.CutPrefix(path, PolicyFolder+"/")
}

// AuthMountPath returns the path of an auth mount.
func AuthMountPath(mount string) string { return authPrefix + mount }

// AuthConfigPath returns the path of a setting of an auth mount, such as client, identity or sts.
func AuthConfigPath(mount, setting string) string { return authPrefix + mount + "/config/" + setting }

// AuthRoleFolder returns the folder of the roles of an auth mount.
func AuthRoleFolder(mount string) string { return authPrefix + mount + roleSegment }

// AuthRolePath returns the path of an auth role. The role of an instance has the instance's ID as its name.
func AuthRolePath(mount, name string) string { return AuthRoleFolder(mount) + "/" + name }

// SplitAuthRolePath returns the mount and the name of the auth role at a path. ok is false for any other path.
func SplitAuthRolePath(path string) (mount, name string, ok bool) {
	return splitAuthPath(path, roleSegment)
}

// AccessListFolder returns the folder of the access list of an AWS auth mount: an entry for each instance that logged in
// with its identity document, https://developer.hashicorp.com/vault/api-docs/auth/aws#read-identity-access-list-information
func AccessListFolder(mount string) string { return authPrefix + mount + accessListSegment }

// AccessListPath returns the path of an instance's entry in the access list of an AWS auth mount.
func AccessListPath(mount, instanceID string) string {
	return AccessListFolder(mount) + "/" + instanceID
}

// SplitAccessListPath returns the mount and the instance of the access list entry at a path. ok is false for any other path.
func SplitAccessListPath(path string) (mount, instanceID string, ok bool) {
	return splitAuthPath(path, accessListSegment)
}

func splitAuthPath(path, segment string) (mount, name string, ok bool) {
	folder, name := splitPath(path)
	mount, isAuth := strings.CutPrefix(folder, authPrefix)
	mount, isSegment := strings.CutSuffix(mount, segment)
	if !isAuth || !isSegment || mount == "" || name == "" {
		return "", "", false
	}
	return mount, name, true
}

// PKIRoleFolder returns the folder of the roles of a PKI mount.
func PKIRoleFolder(mount string) string { return mount + pkiRolesSegment }

// PKIRolePath returns the path of a PKI role.
func PKIRolePath(mount, role string) string { return PKIRoleFolder(mount) + "/" + role }

// SplitPKIRoleFolder returns the PKI mount whose roles have this folder. ok is false if the path is not of the form of such a
// folder; the roles of an SSH mount have a folder of the same form, and a generic output can have one.
func SplitPKIRoleFolder(folder string) (mount string, ok bool) {
	mount, isRoles := strings.CutSuffix(folder, pkiRolesSegment)
	if !isRoles || mount == "" {
		return "", false
	}
	return mount, true
}

// SplitPKIRolePath returns the PKI mount and the name of the PKI role at a path. ok is false for a path of another form.
func SplitPKIRolePath(path string) (mount, role string, ok bool) {
	folder, role := splitPath(path)
	mount, isRoles := SplitPKIRoleFolder(folder)
	if !isRoles || role == "" {
		return "", "", false
	}
	return mount, role, true
}

// IssuePath returns the path at which a PKI role issues a certificate with a key made by Vault,
// https://developer.hashicorp.com/vault/api-docs/secret/pki#generate-certificate-and-key
func IssuePath(mount, role string) string { return mount + "/issue/" + role }

// SignPath returns the path at which a PKI role signs a certificate request, or an SSH role a host's key,
// https://developer.hashicorp.com/vault/api-docs/secret/pki#sign-certificate,
// https://developer.hashicorp.com/vault/api-docs/secret/ssh#sign-ssh-key
func SignPath(mount, role string) string { return mount + "/sign/" + role }

// LeasePrefixes returns the prefixes of the leases of all certificates that a PKI role issued: a lease ID begins with the path
// of the request.
func LeasePrefixes(mount, role string) []string {
	return []string{IssuePath(mount, role), SignPath(mount, role)}
}

// RevokePrefixPath returns the path at which Vault revokes all leases with a prefix,
// https://developer.hashicorp.com/vault/api-docs/system/leases#revoke-prefix
func RevokePrefixPath(prefix string) string { return "sys/leases/revoke-prefix/" + prefix }

// StoredCertificates returns the folder of the certificates that a PKI mount stores, by serial number,
// https://developer.hashicorp.com/vault/api-docs/secret/pki#list-certificates
func StoredCertificates(mount string) string { return mount + "/certs" }

// StoredCertificatePath returns the path of a stored certificate, which needs no right to read. The serial number is in hex,
// https://developer.hashicorp.com/vault/api-docs/secret/pki#read-certificate
func StoredCertificatePath(mount, serial string) string { return mount + "/cert/" + serial }

// RevokePath returns the path at which a PKI mount revokes any of its certificates,
// https://developer.hashicorp.com/vault/api-docs/secret/pki#revoke-certificate
func RevokePath(mount string) string { return mount + "/revoke" }

// SplitIssuancePath returns the PKI mount and the role of a request that issued a certificate. ok is false for any other path.
func SplitIssuancePath(path string) (mount, role string, ok bool) {
	folder, role := splitPath(path)
	mount, end := splitPath(folder)
	return mount, role, mount != "" && role != "" && (end == "issue" || end == "sign")
}

// MountInfoPath returns the path at which Vault describes a mount; for an auth mount, mount is its AuthMountPath. A token may
// read it if it may use anything on the mount, https://developer.hashicorp.com/vault/api-docs/system/internal-ui-mounts
func MountInfoPath(mount string) string { return "sys/internal/ui/mounts/" + mount }

// FolderOf returns a path without its last segment; empty for a path of one segment.
func FolderOf(path string) string {
	folder, _ := splitPath(path)
	return folder
}

// splitPath cuts a path at its last slash. Without a slash, all of it is the name.
func splitPath(path string) (folder, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// NamePrefix returns the beginning of the names of instances' objects of a kind.
func NamePrefix(kind Kind) string {
	if kind == KindPolicy {
		return policyNamePrefix + "i-"
	}
	return "i-"
}

// NamePattern returns the pattern of the names of instances' objects of a kind. The functions' own policies have it at the end of
// their paths.
func NamePattern(kind Kind) string { return NamePrefix(kind) + "*" }

// KindOf returns the kind of the object at a path. mounts are the profiles'. All paths of an auth mount count as KindAuthRole, the
// access list's too. Every other path is KindGeneric.
func KindOf(path string, mounts Mounts) Kind {
	if _, isPolicy := SplitPolicyPath(path); isPolicy {
		return KindPolicy
	}
	if strings.HasPrefix(path, authPrefix) {
		return KindAuthRole
	}
	if mount, _, isRole := SplitPKIRolePath(path); isRole {
		return mounts.kindOfRoles(mount)
	}
	return KindGeneric
}

// IsPathOf reports whether a path has the form of an instance's object of a kind. It does not check whether the object
// exists, or who made it.
func IsPathOf(instanceID string, kind Kind, path string) bool {
	if !facts.IsInstanceID(instanceID) {
		return false
	}
	if kind == KindAuthRole {
		mount, name, ok := SplitAuthRolePath(path)
		return ok && authMount.MatchString(mount) && name == instanceID
	}
	folder, name := splitPath(path)
	if id, ok := InstanceOf(kind, name); !ok || id != instanceID {
		return false
	}
	if kind == KindPolicy {
		return folder == PolicyFolder
	}
	return CheckBasePath(folder) == nil
}

// folder returns the folder of an output's objects, base path included. A policy has none of its own.
func (o Output) folder(basePath string) string { return basePath + "/" + o.Path }

// mount returns the mount of an output that is a role, base path included.
func (o Output) mount(basePath string) string {
	mount, _ := SplitPKIRoleFolder(o.folder(basePath))
	return mount
}

// OutputFolders returns the folders of the profile's roles and generic objects, base path included, sorted.
func (p *Profile) OutputFolders() []string {
	var folders []string
	for _, o := range p.Outputs {
		if o.Type != KindPolicy {
			folders = append(folders, o.folder(p.BasePath))
		}
	}
	return sortedOnce(folders)
}

// OutputFolders returns the folders of all profiles' roles and generic objects, base paths included, sorted.
func (s *Set) OutputFolders() []string {
	var folders []string
	for _, p := range s.Profiles {
		folders = append(folders, p.OutputFolders()...)
	}
	return sortedOnce(folders)
}

// sortedOnce sorts a list and drops doubles, in place.
func sortedOnce(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}
