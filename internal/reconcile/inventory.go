package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// listing is everything that Vault lists under names of this program's form.
type listing struct {
	// paths are those of policies, auth roles, PKI roles and generic objects, by instance.
	paths map[string][]string
	// leftovers are the paths of the identity entities and accesslist entries that logins left, by instance.
	leftovers map[string][]string
	// entities are the paths of identity entities by alias, where the alias is the role_id of an auth role and not an
	// instance ID. The ledger knows their instances.
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

	policies, authRoles, pkiRoles int
}

// exists reports whether an instance's path is in the list of its folder. known is false if that list failed.
func (l *listing) exists(instanceID, path string) (exists, known bool) {
	if !l.listed[grant.FolderOf(path)] {
		return false, false
	}
	return slices.Contains(l.paths[instanceID], path), true
}

// listsAtOnce is the number of lists that are read at once.
const listsAtOnce = 4

// list reads every list of Vault. The objects of a list that failed stay unknown.
func (r *Reconciler) list(ctx context.Context) *listing {
	l := &listing{
		paths: map[string][]string{}, leftovers: map[string][]string{}, entities: map[string]string{},
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
	list(roles, l.addLogins(l.paths, roles, l.addMisnamed), &l.authRoles)
	list(entries, l.addLogins(l.leftovers, entries, nil), nil)
	pkiMounts := r.Profiles.PKIMounts()
	for _, folder := range folders {
		kind, count := grant.KindGeneric, (*int)(nil)
		if mount, isRoles := grant.SplitPKIRoleFolder(folder); isRoles && slices.Contains(pkiMounts, mount) {
			kind, count = grant.KindPKIRole, &l.pkiRoles
		}
		list(folder, l.addObjects(folder, kind), count)
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
			l.leftovers[instanceID] = append(l.leftovers[instanceID], entity)
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
			l.paths[id] = append(l.paths[id], folder+"/"+k)
			added++
		}
		return added
	}
}

// addLogins returns a function that adds the keys that are instance IDs and returns their number. It passes the other keys to
// rest; nil if they are not needed.
func (l *listing) addLogins(into map[string][]string, folder string, rest func(kind grant.Kind, folder, key string)) func([]string) int {
	return func(keys []string) int {
		added := 0
		for _, k := range keys {
			switch {
			case facts.IsInstanceID(k):
				into[k] = append(into[k], folder+"/"+k)
				added++
			case rest != nil:
				rest(grant.KindAuthRole, folder, k)
			}
		}
		return added
	}
}

// inventory is everything that Vault lists and the ledger holds. It keeps only the records of one stretch, the next limit
// instances in the order of their IDs, so that memory is bounded for any size of the fleet. Each stretch has its own
// inventory.
type inventory struct {
	*listing
	// claims are the holders' instance IDs by name.
	claims map[ledger.Name]string
	// recorded is the place of every instance whose record is no tombstone.
	recorded map[string]facts.Place
	// unseen is a folder that could not be listed, of every instance whose record names an object there.
	unseen map[string]string
	// inFolder counts the instances whose records name objects in a folder that could not be listed or has no mount.
	inFolder map[string]int
	// records are those of the stretch. A tombstone is among them only if Vault lists objects or leftovers of its instance or is
	// asked about them, or if it has names or certificates left.
	records map[string]*ledger.Record

	// The stretch has the instances whose IDs are greater than after and at most upTo. An empty bound does not apply.
	after, upTo string
	limit       int
	now         time.Time // of the scan
}

// scan reads the ledger, once Vault's lists are complete: a record is written before its objects are made.
func (r *Reconciler) scan(ctx context.Context, l *listing, after string, limit int) (*inventory, error) {
	held := &inventory{
		listing: l, claims: map[ledger.Name]string{}, recorded: map[string]facts.Place{}, records: map[string]*ledger.Record{},
		unseen: map[string]string{}, inFolder: map[string]int{},
		after: after, limit: limit, now: r.Now(),
	}
	err := r.Ledger.Scan(ctx, ledger.Visitor{
		Record: held.addRecord,
		// An instance has several claims: equal texts are stored once.
		Claim: func(name ledger.Name, c ledger.Claim) {
			name.Under = unique.Make(name.Under).Value()
			held.claims[name] = unique.Make(c.InstanceID).Value()
		},
	})
	held.trim()
	return held, err
}

// addRecord adds a record of the scan.
func (held *inventory) addRecord(r ledger.Record) {
	id := r.InstanceID
	if r.State == ledger.Deleted {
		held.addEntities(id, r.FormerRoleIDs)
		if len(held.paths[id])+len(held.leftovers[id])+len(r.Revoking)+len(r.Names()) == 0 && !held.asksAbout(r) {
			return
		}
	} else {
		held.recorded[id] = facts.Place{Account: r.Account, Region: r.Region}
		held.addFolders(r)
	}
	if !held.inStretch(id) {
		return
	}
	held.records[id] = &r
	if len(held.records) > 2*held.limit {
		held.trim()
	}
}

// addFolders counts the folders of a record's objects that could not be listed or have no mount.
func (held *inventory) addFolders(r ledger.Record) {
	if len(held.unlisted)+len(held.unmounted) == 0 {
		return
	}
	folders := map[string]bool{}
	for _, o := range r.Objects {
		folders[grant.FolderOf(o.Path)] = true
	}
	for _, folder := range slices.Sorted(maps.Keys(folders)) {
		if held.unlisted[folder] != nil {
			held.unseen[r.InstanceID] = folder
		}
		if held.unlisted[folder] != nil || held.unmounted[folder] != nil {
			held.inFolder[folder]++
		}
	}
}

// placeOf returns the place in an instance's record. known is false without a record; a tombstone may be left out (records).
func (held *inventory) placeOf(id string) (p facts.Place, known bool) {
	if p, known = held.recorded[id]; known {
		return p, true
	}
	if r := held.records[id]; r != nil {
		return facts.Place{Account: r.Account, Region: r.Region}, true
	}
	return facts.Place{}, false
}

// unseenFolder returns a folder that could not be listed and may hold objects of an instance; empty if there is none. No record
// says where the objects of an instance are not, if its record is lost or names none.
func (held *inventory) unseenFolder(id string) string {
	if len(held.unlisted) == 0 {
		return ""
	}
	if _, isRecorded := held.recorded[id]; isRecorded {
		if r := held.records[id]; r == nil || len(r.Objects) > 0 {
			return held.unseen[id]
		}
	}
	return slices.Sorted(maps.Keys(held.unlisted))[0]
}

// inStretch reports whether an instance is in the stretch.
func (held *inventory) inStretch(id string) bool {
	return id > held.after && (held.upTo == "" || id <= held.upTo)
}

// trim ends the stretch at its limit.
func (held *inventory) trim() {
	if len(held.records) <= held.limit {
		return
	}
	ids := slices.Sorted(maps.Keys(held.records))
	held.upTo = ids[held.limit-1]
	for _, id := range ids[held.limit:] {
		delete(held.records, id)
	}
}

// ids returns the instances of the stretch that are in Vault or in the ledger, sorted.
func (held *inventory) ids() []string {
	all := map[string]bool{}
	for id := range held.records {
		all[id] = true
	}
	for _, m := range []map[string][]string{held.paths, held.leftovers} {
		for id := range m {
			if held.inStretch(id) {
				all[id] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}
