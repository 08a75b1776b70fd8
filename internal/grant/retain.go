package grant

import (
	"fmt"
	"slices"
	"strings"
)

// Removal is what becomes of an output's object when the instance's grant is removed.
type Removal string

// The removals. The zero value counts as RemovalDelete.
const (
	RemovalDelete Removal = "delete"
	RemovalRetain Removal = "retain" // it stays in Vault: only for generic objects that let nothing in
)

// rolesOfEngines are segments of paths below which engines have what lets something in: roles, their keys, and settings. An object
// with one of them in its path is not retained. Converge asks Vault for the engine too: see IsDataMount.
var rolesOfEngines = []string{
	"role", "roles", "static-role", "static-roles", "roleset", "rolesets", "static-account", "static-accounts", "impersonated-account", "role-set",
	"config", "key", "keys", "library", "creds", "sign", "issue", "issuer", "issuers", "users", "groups", "token", "tokens",
}

// MayRetain reports whether an object of a kind may outlive its instance by its path: it is a generic object that lets nothing in.
func MayRetain(kind Kind, path string) bool {
	segments := strings.Split(FolderOf(path), "/")
	return kind == KindGeneric && !slices.ContainsFunc(segments, func(s string) bool { return slices.Contains(rolesOfEngines, s) }) && vaultSegment(path) == ""
}

// checkRemoval returns an error if the output's object may not outlive its instance as the profile says. where
// names the output in it.
func (o Output) checkRemoval(where, basePath string) error {
	switch {
	case o.OnRemoval == "" || o.OnRemoval == RemovalDelete:
		return nil
	case !o.retains():
		return fmt.Errorf("%s: on_removal: %q is neither delete nor retain", where, o.OnRemoval)
	case o.Type != KindGeneric:
		return fmt.Errorf("%s: on_removal: an output of type %s lets something in and is always deleted: retain is for type generic", where, o.Type)
	case !MayRetain(o.Type, o.folder(basePath)+"/"):
		return fmt.Errorf("%s: on_removal: an object below %q may let something in: retain is for a key-value engine, in a folder without %s", where, o.Path, strings.Join(rolesOfEngines, ", "))
	}
	return nil
}

// IsDataMount reports whether a mount, as Vault answers MountInfoPath, only stores data: it is a key-value engine. engine is its type.
// https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v1
func IsDataMount(shown map[string]any) (engine string, ok bool) {
	engine, _ = shown["type"].(string)
	return engine, engine == "kv" || engine == "generic" // its former name
}

// Retains reports whether a profile of the set retains the object at a path, of whichever instance.
func (s *Set) Retains(path string) bool {
	folder, name := splitPath(path)
	_, output, ok := SplitObjectName(name)
	return ok && slices.ContainsFunc(s.Profiles, func(p *Profile) bool {
		return slices.ContainsFunc(p.Outputs, func(o Output) bool {
			return o.retains() && o.Name == output && o.folder(p.BasePath) == folder
		})
	})
}

// retains reports whether the output's objects outlive their instances.
func (o Output) retains() bool { return o.OnRemoval == RemovalRetain }

// Retained returns the names of the outputs whose objects outlive their instances.
func (p *Profile) Retained() []string {
	var names []string
	for _, o := range p.Outputs {
		if o.retains() {
			names = append(names, o.Name)
		}
	}
	return names
}
