package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

const policyFolder = "sys/policies/acl"

// names is what Vault lists under names of this program's form.
type names struct {
	// paths are policies, auth roles, PKI roles and generic objects, by instance.
	paths map[string][]string
	// litter are the identity entities and accesslist entries that logins leave, by instance.
	litter map[string][]string
	// entities are those whose alias is not an instance ID but the role_id of some auth role, by alias: whose they are,
	// the ledger knows.
	entities map[string]string
	// listed are the folders whose list is complete; what is not in one of them may be anywhere.
	listed map[string]bool
	// misnamed are inside the program's name space and belong to no instance.
	misnamed []misnamed
	// failed are the lists that could not be had.
	failed []error

	policies, authRoles, pkiRoles int
}

// exists tells whether an instance's path stands in its list, and whether that is known.
func (n *names) exists(instanceID, path string) (exists, known bool) {
	if !n.listed[folderOf(path)] {
		return false, false
	}
	return slices.Contains(n.paths[instanceID], path), true
}

func folderOf(path string) string { return path[:strings.LastIndexByte(path, '/')] }

// listsAtOnce is how many lists are read side by side.
const listsAtOnce = 4

// listNames reads every list. One that fails is noted; what only it would tell stays unknown.
func (r *Reconciler) listNames(ctx context.Context) *names {
	n := &names{paths: map[string][]string{}, litter: map[string][]string{}, entities: map[string]string{}, listed: map[string]bool{}}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(listsAtOnce)
	list := func(folder string, take func([]string) int, count *int) {
		group.Go(func() error {
			keys, err := r.Vault.List(ctx, folder)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && folder == policyFolder && len(keys) == 0 {
				err = fmt.Errorf("listing %s in Vault: it has no policy at all, not even its own", folder)
			}
			if err != nil {
				n.failed = append(n.failed, err)
				return nil
			}
			n.listed[folder] = true
			taken := take(keys)
			if count != nil {
				*count += taken
			}
			return nil
		})
	}
	roles := "auth/" + r.Realm.AuthMount + "/role"
	list(policyFolder, n.objects(policyFolder, grant.KindPolicy), &n.policies)
	list(roles, n.logins(n.paths, roles, n.keepMisnamed), &n.authRoles)
	entries := "auth/" + r.Realm.AuthMount + "/identity-accesslist"
	list(entries, n.logins(n.litter, entries, nil), nil)
	folders := r.outputFolders()
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		kind, count := grant.KindGeneric, (*int)(nil)
		if folders[folder] {
			kind, count = grant.KindPKIRole, &n.pkiRoles
		}
		list(folder, n.objects(folder, kind), count)
	}
	group.Go(func() error {
		aliases, err := r.Vault.Aliases(ctx, r.Realm.AuthMount)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			n.failed = append(n.failed, err)
			return nil
		}
		for _, a := range aliases {
			entity := "identity/entity/id/" + a.EntityID
			if facts.IsInstanceID(a.Name) {
				n.litter[a.Name] = append(n.litter[a.Name], entity)
			} else {
				n.entities[a.Name] = entity
			}
		}
		return nil
	})
	_ = group.Wait() // the functions above note their errors
	return n
}

// leftBy notes the entities behind role_ids of an instance that was removed.
func (n *names) leftBy(instanceID string, roleIDs []string) {
	for _, alias := range roleIDs {
		if entity := n.entities[alias]; entity != "" {
			n.litter[instanceID] = append(n.litter[instanceID], entity)
			delete(n.entities, alias)
		}
	}
}

// objects takes the names <instance ID>-<output> out of a list.
func (n *names) objects(folder string, kind grant.Kind) func([]string) int {
	return func(keys []string) int {
		taken := 0
		for _, k := range keys {
			id, _, ok := grant.SplitObjectName(k)
			if !ok || !strings.HasPrefix(k, prefixOf(kind)) {
				n.keepMisnamed(kind, folder, k)
				continue
			}
			n.paths[id] = append(n.paths[id], folder+"/"+k)
			taken++
		}
		return taken
	}
}

// logins takes the names that are an instance ID out of a list. others is given the rest; nil for nobody.
func (n *names) logins(into map[string][]string, folder string, others func(kind grant.Kind, folder, key string)) func([]string) int {
	return func(keys []string) int {
		taken := 0
		for _, k := range keys {
			switch {
			case facts.IsInstanceID(k):
				into[k] = append(into[k], folder+"/"+k)
				taken++
			case others != nil:
				others(grant.KindAuthRole, folder, k)
			}
		}
		return taken
	}
}

// outputFolders are the folders that profiles write PKI roles and generic objects to, and which of them hold PKI roles.
func (r *Reconciler) outputFolders() map[string]bool {
	folders := map[string]bool{}
	for _, p := range r.Profiles.Profiles {
		for _, o := range p.Outputs {
			if o.Type != grant.KindPolicy {
				folder := p.BasePath + "/" + o.Path
				folders[folder] = folders[folder] || o.Type == grant.KindPKIRole
			}
		}
	}
	return folders
}
