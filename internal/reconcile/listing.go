package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// listing is everything that Vault lists under names of this program's form.
type listing struct {
	*roster
	// entities are the IDs of identity entities by alias, where the alias is the role_id of an auth role and not an instance
	// ID. The ledger knows their instances.
	entities map[string]string
	// listed are the folders whose list is complete. Objects of other folders may exist or not.
	listed map[string]bool
	// unlisted are the errors of the profiles' folders whose list failed.
	unlisted map[string]error
	// unmounted are the errors of the profiles' folders where Vault has no mount. They hold nothing, and count as listed.
	unmounted map[string]error
	// misnamed are the objects inside the program's name space that belong to no instance.
	misnamed []misnamed
	// unaliased is set if there are too many aliases to list: leftovers and entities have no entities then.
	unaliased *unlistedAliases
	// failed are the errors of the failed lists that concern every instance: policies, auth roles, and what logins left.
	failed []error

	policies, authRoles, pkiRoles, sshRoles int
}

// exists reports whether an instance's path is in the list of its folder. known is false if that list failed.
func (l *listing) exists(instanceID, path string) (exists, known bool) {
	if !l.listed[grant.FolderOf(path)] {
		return false, false
	}
	return l.lists(instanceID, path), true
}

// listsAtOnce is the number of lists that are read at once.
const listsAtOnce = 4

// list reads every list of Vault. The objects of a list that failed stay unknown.
func (r *Reconciler) list(ctx context.Context) *listing {
	l := &listing{
		roster: newRoster(), entities: map[string]string{},
		listed: map[string]bool{}, unlisted: map[string]error{}, unmounted: map[string]error{},
	}
	folders := r.Profiles.OutputFolders()
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(listsAtOnce)
	// list passes the keys of a folder to add, and adds the number that add returns to count, unless count is nil.
	list := func(folder string, add func([]string) int, count *int) {
		group.Go(func() error {
			keys, err := r.Vault.List(ctx, folder)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && folder == grant.PolicyFolder && len(keys) == 0 {
				err = fmt.Errorf("listing %s in Vault: the answer is empty, but Vault always has policies of its own", folder)
			}
			isOfProfiles := slices.Contains(folders, folder)
			switch {
			case err != nil && !isOfProfiles:
				l.failed = append(l.failed, err)
				return nil
			case errors.Is(err, vault.ErrNotMounted):
				l.unmounted[folder] = err
			case err != nil:
				l.unlisted[folder] = err
				return nil
			}
			l.listed[folder] = true
			added := add(keys)
			if count != nil {
				*count += added
			}
			return nil
		})
	}
	list(grant.PolicyFolder, l.addObjects(grant.PolicyFolder, grant.KindPolicy), &l.policies)
	roles, entries := grant.AuthRoleFolder(r.Realm.AuthMount), grant.AccessListFolder(r.Realm.AuthMount)
	list(roles, l.addLogins(l.addPath, roles, l.addMisnamed), &l.authRoles)
	list(entries, l.addLogins(l.addLeftover, entries, nil), nil)
	mounts, counts := r.Profiles.Mounts(), map[grant.Kind]*int{grant.KindPKIRole: &l.pkiRoles, grant.KindSSHRole: &l.sshRoles}
	for _, folder := range folders {
		kind := mounts.KindOfFolder(folder)
		list(folder, l.addObjects(folder, kind), counts[kind])
	}
	group.Go(func() error {
		aliases, unlisted, err := r.listAliases(ctx)
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			l.failed = append(l.failed, err)
		}
		l.unaliased = unlisted
		l.addAliases(aliases)
		return nil
	})
	_ = group.Wait() // the functions above keep their errors in failed
	return l
}

// addEntities moves the entities behind the role_ids of a removed instance to its leftovers.
func (l *listing) addEntities(instanceID string, roleIDs []string) {
	for _, alias := range roleIDs {
		if entity := l.entities[alias]; entity != "" {
			l.addLeftover(instanceID, entityPath(entity))
			delete(l.entities, alias)
		}
	}
}

// addObjects returns a function that adds the keys of the form <instance ID>-<output> and returns their number.
func (l *listing) addObjects(folder string, kind grant.Kind) func([]string) int {
	return func(keys []string) int {
		added := 0
		for _, k := range keys {
			id, _, ok := grant.SplitObjectName(k)
			if !ok || !strings.HasPrefix(k, grant.NamePrefix(kind)) {
				l.addMisnamed(kind, folder, k)
				continue
			}
			l.addPath(id, folder+"/"+k)
			added++
		}
		return added
	}
}

// addLogins returns a function that passes the keys that are instance IDs to add, with their paths, and returns their number. It
// passes the other keys to rest; nil if they are not needed.
func (l *listing) addLogins(add func(id, path string), folder string, rest func(kind grant.Kind, folder, key string)) func([]string) int {
	return func(keys []string) int {
		added := 0
		for _, k := range keys {
			switch {
			case facts.IsInstanceID(k):
				add(k, folder+"/"+k)
				added++
			case rest != nil:
				rest(grant.KindAuthRole, folder, k)
			}
		}
		return added
	}
}
