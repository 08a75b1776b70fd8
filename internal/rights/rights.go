// Package rights says what each function may do in Vault, as data: infra/vault writes it as policies, and the doctor
// holds the function's token against it. Both start from the same profiles, so neither can drift from the other.
package rights

import (
	"maps"
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// The functions, by the names their policies and roles in Vault end in.
const (
	Provision   = "provision"
	Deprovision = "deprovision"
	Reconcile   = "reconcile"
)

// Functions are the names of all functions, sorted.
func Functions() []string { return []string{Deprovision, Provision, Reconcile} }

// Right is what may be done at one path. The path is in the form of a policy's: a * at its end stands for any text.
// https://developer.hashicorp.com/vault/docs/concepts/policies#policy-syntax
type Right struct {
	Path string
	// Capabilities stand in the order of Vault's documentation, each once.
	Capabilities []string
	// Allowed are the parameters that a write may have, and the values of each; an empty list is any value. Nil is any
	// parameter. https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
	Allowed map[string][]any
}

// Scope is what the functions' rights depend on.
type Scope struct {
	Profiles *grant.Set
	// AuthMount receives one role per instance.
	AuthMount string
	// AlsoPaths, base path included, and AlsoMounts are what instances still have objects at though no setting names
	// them any more.
	AlsoPaths, AlsoMounts []string
	// Revoke is REVOKE_CERTIFICATES. It needs sudo on sys/leases/revoke-prefix.
	Revoke bool
}

// ByFunction gives the rights of each function, sorted by path: the narrowest that work. They reach the object names
// this program gives (i-… below an output path, ec2-i-… among the policies) and nothing else. Entities cannot be
// narrowed by name in Vault, so only the functions that remove may look them up and delete them.
func ByFunction(s Scope) map[string][]Right {
	provision, deprovision := s.provision(), s.deprovision()
	reconcile := s.look()
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
	for _, path := range s.paths() {
		out.allow(objects(path, grant.KindGeneric), "create", "read", "update", "delete")
	}
	roles := objects(grant.AuthRoleFolder(s.AuthMount), grant.KindAuthRole)
	out.allow(roles, "create", "read", "update")
	out.bound(roles, authRoleParameters())
	return out
}

func (s Scope) deprovision() set {
	out := set{}
	out.allow(objects(grant.PolicyFolder, grant.KindPolicy), "read", "delete")
	for _, path := range s.paths() {
		out.allow(objects(path, grant.KindGeneric), "delete")
	}
	for _, mount := range append([]string{s.AuthMount}, s.AlsoMounts...) {
		// Read tells the role_id, the alias of the logins to cut, where a crash kept it from the ledger.
		out.allow(objects(grant.AuthRoleFolder(mount), grant.KindAuthRole), "read", "delete")
		out.allow(objects(grant.AccessListFolder(mount), grant.KindAuthRole), "delete")
		// A removal is done when tokens are cut, so it checks that the mount's aliases lead to the instance's entity.
		out.allow(grant.AuthConfigPath(mount, "identity"), "read")
	}
	out.allow("identity/lookup/entity", "update")
	out.allow("identity/entity/id/*", "delete")
	if s.Revoke {
		for _, path := range s.paths() {
			mount, isRoles := grant.SplitPKIRoleFolder(path)
			if !isRoles {
				continue
			}
			for _, prefix := range grant.LeasePrefixes(mount, grant.NamePattern(grant.KindPKIRole)) {
				out.allow(grant.RevokePrefixPath(prefix), "update", "sudo")
			}
		}
	}
	return out
}

// look is what reconcile may see besides: the names there are, and the settings the doctor judges. Of the accounts
// Vault can reach it sees the list and not the settings, which may hold an external ID. The issuers of a PKI mount may
// be listed by anybody: https://developer.hashicorp.com/vault/api-docs/secret/pki#list-issuers
func (s Scope) look() set {
	out := set{}
	out.allow(grant.PolicyFolder, "list")
	for _, path := range s.paths() {
		out.allow(path, "list")
	}
	out.allow(grant.AuthRoleFolder(s.AuthMount), "list")
	out.allow(grant.AccessListFolder(s.AuthMount), "list")
	out.allow(grant.AuthConfigPath(s.AuthMount, "sts"), "list")
	out.allow("identity/entity-alias/id", "list")
	for _, mount := range s.Profiles.PKIMounts() {
		out.allow(mount+"/config/acme", "read")
	}
	out.allow("sys/capabilities-self", "update")
	return out
}

// paths are those, base path included, that hold a PKI role or generic object for each instance.
func (s Scope) paths() []string {
	paths := slices.Concat(s.AlsoPaths, s.Profiles.OutputFolders())
	slices.Sort(paths)
	return slices.Compact(paths)
}

// entry is what is allowed at one path.
type entry struct {
	capabilities map[string]bool
	parameters   map[string][]any
}

// set are entries by path.
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

// add takes over all of other. Only writes have parameters, and no two functions write to one path with different ones.
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
