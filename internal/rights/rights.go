// Package rights has the rights of each function in Vault, as data. vault-ec2 setup writes them as policies, and the doctor
// compares the function's token with them. Both make them from the profiles, so that they agree.
package rights

import (
	"maps"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// The functions. The names of their policies and roles in Vault end with these.
const (
	Provision   = "provision"
	Deprovision = "deprovision"
	Reconcile   = "reconcile"
)

// Functions returns the names of all functions, sorted.
func Functions() []string { return []string{Deprovision, Provision, Reconcile} }

// Right is a path with its capabilities.
type Right struct {
	// Path is a path of a policy: a * at its end matches any text.
	// https://developer.hashicorp.com/vault/docs/concepts/policies#policy-syntax
	Path string
	// Capabilities are in the order of Vault's documentation, without doubles.
	Capabilities []string
	// Allowed are the allowed parameters of a write, and the allowed values of each. An empty list allows any value. A nil map
	// allows any parameter. https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
	Allowed map[string][]any
}

// Example returns a path that the right covers, without a wildcard: an ID of zeros represents every ID. A token has the same
// capabilities at all covered paths. The path is asked about, and never read or written.
func (r Right) Example() string {
	before, isPattern := strings.CutSuffix(r.Path, "*")
	switch {
	case !isPattern:
		return r.Path
	case strings.HasSuffix(before, grant.NamePrefix(grant.KindGeneric)):
		return before + "00000000000000000"
	default:
		return before + "00000000-0000-0000-0000-000000000000"
	}
}

// Scope has the settings that the functions' rights depend on.
type Scope struct {
	Profiles *grant.Set
	// AuthMount has one role per instance.
	AuthMount string
	// AlsoPaths are output folders, base path included, that no profile names any more and that still have objects.
	AlsoPaths []string
	// AlsoMounts are auth mounts that no setting names any more and that still have roles.
	AlsoMounts []string
	// Revoke is REVOKE_CERTIFICATES. It needs sudo on sys/leases/revoke-prefix.
	Revoke bool
	// RevokeStored is REVOKE_CERTIFICATES=all. Vault cannot narrow it to instances: it reaches all certificates of the PKI mounts.
	RevokeStored bool
}

// ByFunction returns the rights of each function, sorted by path. They are the narrowest that work: they reach the names of
// instances' objects (i-… in an output folder, ec2-i-… among the policies) and no others. Vault cannot narrow entities by
// name, so only the functions that remove may look them up and delete them.
func ByFunction(s Scope) map[string][]Right {
	provision, deprovision := s.provision(), s.deprovision()
	reconcile := s.survey()
	reconcile.add(provision)
	reconcile.add(deprovision)
	return map[string][]Right{
		Provision:   provision.sorted(),
		Deprovision: deprovision.sorted(),
		Reconcile:   reconcile.sorted(),
	}
}

// objects returns the pattern of all instances' objects of a kind in a folder.
func objects(folder string, kind grant.Kind) string { return folder + "/" + grant.NamePattern(kind) }

func (s Scope) provision() set {
	out := set{}
	out.allow(objects(grant.PolicyFolder, grant.KindPolicy), "create", "read", "update", "delete")
	for _, folder := range s.folders() {
		out.allow(objects(folder, grant.KindGeneric), "create", "read", "update", "delete")
	}
	roles := objects(grant.AuthRoleFolder(s.AuthMount), grant.KindAuthRole)
	out.allow(roles, "create", "read", "update")
	out.bound(roles, authRoleParameters())
	// One list for a batch shows which paths are absent; without it each is read.
	out.add(s.lists())
	return out
}

func (s Scope) deprovision() set {
	out := set{}
	out.allow(objects(grant.PolicyFolder, grant.KindPolicy), "read", "delete")
	for _, folder := range s.folders() {
		out.allow(objects(folder, grant.KindGeneric), "delete")
	}
	for _, mount := range append([]string{s.AuthMount}, s.AlsoMounts...) {
		// A removal reads the role_id, the alias of the logins to cut, if a crash kept it from the ledger.
		out.allow(objects(grant.AuthRoleFolder(mount), grant.KindAuthRole), "read", "delete")
		// After a root volume's replacement only the entry of the old system is deleted, which the entry's time of creation shows.
		out.allow(objects(grant.AccessListFolder(mount), grant.KindAuthRole), "read", "delete")
		// A removal is done when the tokens are cut, so it checks that the mount's aliases lead to the instance's entity.
		out.allow(grant.AuthConfigPath(mount, "identity"), "read")
	}
	out.allow("identity/lookup/entity", "update")
	out.allow("identity/entity/id/*", "delete")
	if s.Revoke {
		for _, folder := range s.folders() {
			mount, isRoles := grant.SplitPKIRoleFolder(folder)
			if !isRoles || slices.Contains(s.Profiles.Mounts().SSH, mount) { // an SSH certificate has no lease
				continue
			}
			for _, prefix := range grant.LeasePrefixes(mount, grant.NamePattern(grant.KindPKIRole)) {
				out.allow(grant.RevokePrefixPath(prefix), "update", "sudo")
			}
		}
	}
	if s.RevokeStored {
		for _, mount := range s.Profiles.PKIMounts() {
			out.allow(grant.RevokePath(mount), "update")
			out.bound(grant.RevokePath(mount), map[string][]any{"serial_number": {}})
		}
	}
	return out
}

// survey returns the rights that only reconcile has: to list all names, and to read the settings that the doctor checks. It may
// list the accounts that Vault can reach but not read their settings, which may hold an external ID. Listing the issuers of a
// PKI mount needs no right: https://developer.hashicorp.com/vault/api-docs/secret/pki#list-issuers
func (s Scope) survey() set {
	out := s.lists()
	for _, folder := range s.folders() {
		out.allow(folder, "list")
	}
	out.allow(grant.AccessListFolder(s.AuthMount), "list")
	out.allow(grant.AuthConfigPath(s.AuthMount, "sts"), "list")
	out.allow(grant.AuthConfigPath(s.AuthMount, "certificates"), "list")
	out.allow(grant.AuthConfigPath(s.AuthMount, "certificate/*"), "read")
	out.allow("identity/entity-alias/id", "list")
	for _, mount := range s.Profiles.PKIMounts() {
		out.allow(mount+"/config/acme", "read")
		if s.RevokeStored {
			out.allow(grant.StoredCertificates(mount), "list")
			out.allow(mount+"/config/crl", "read")
			out.allow(mount+"/config/auto-tidy", "read")
		}
	}
	for _, mount := range s.Profiles.Mounts().SSH {
		out.allow(mount+"/config/ca", "read") // answers the public key only
	}
	out.allow("sys/capabilities-self", "update")
	return out
}

// lists returns the rights to list the names of the policies, auth roles, PKI and SSH roles.
func (s Scope) lists() set {
	out := set{}
	out.allow(grant.PolicyFolder, "list")
	for _, mount := range s.Profiles.Mounts().All() {
		out.allow(grant.PKIRoleFolder(mount), "list")
	}
	out.allow(grant.AuthRoleFolder(s.AuthMount), "list")
	return out
}

// folders returns the folders of roles and generic objects, base path included, sorted.
func (s Scope) folders() []string {
	folders := slices.Concat(s.AlsoPaths, s.Profiles.OutputFolders())
	slices.Sort(folders)
	return slices.Compact(folders)
}

// entry has the capabilities and the allowed parameters of one path.
type entry struct {
	capabilities map[string]bool
	parameters   map[string][]any
}

// set has entries by path.
type set map[string]*entry

func (s set) at(path string) *entry {
	if s[path] == nil {
		s[path] = &entry{capabilities: map[string]bool{}}
	}
	return s[path]
}

func (s set) allow(path string, capabilities ...string) {
	e := s.at(path)
	for _, c := range capabilities {
		e.capabilities[c] = true
	}
}

func (s set) bound(path string, parameters map[string][]any) { s.at(path).parameters = parameters }

// add adds all entries of other. Only writes have parameters, and no two functions write to one path with different ones.
func (s set) add(other set) {
	for path, e := range other {
		s.allow(path, slices.Collect(maps.Keys(e.capabilities))...)
		if e.parameters != nil {
			s.bound(path, e.parameters)
		}
	}
}

func (s set) sorted() []Right {
	var out []Right
	for _, path := range slices.Sorted(maps.Keys(s)) {
		r := Right{Path: path, Allowed: s[path].parameters}
		for _, c := range []string{"create", "read", "update", "delete", "list", "sudo"} {
			if s[path].capabilities[c] {
				r.Capabilities = append(r.Capabilities, c)
			}
		}
		out = append(out, r)
	}
	return out
}
