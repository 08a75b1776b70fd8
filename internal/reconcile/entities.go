package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// A Vault with other users can have more identity aliases than it lists in one call. Then Vault is asked about the entity of each
// instance that is to be removed, or was removed a short time ago.

// aliasFolder is the folder of the identity aliases of all mounts.
const aliasFolder = "identity/entity-alias/id"

// askedFor is how long after its removal an instance is asked about. A login that a removal missed was in flight when the removal
// began, so its entity appears within minutes.
const askedFor = 24 * time.Hour

// unlistedAliases says that the aliases were not listed, and how they are asked about.
type unlistedAliases struct {
	err   error
	mount vault.LoginMount
}

// listAliases returns the aliases of all logins; or, if there are too many, how they are asked about.
func (r *Reconciler) listAliases(ctx context.Context) ([]vault.Alias, *unlistedAliases, error) {
	aliases, err := r.Vault.Aliases(ctx, r.Realm.AuthMount)
	if !errors.Is(err, vault.ErrTooLong) {
		return aliases, nil, err
	}
	mount, mountErr := r.Vault.LoginMount(ctx, r.Realm.AuthMount)
	if mountErr != nil {
		return nil, nil, mountErr
	}
	return nil, &unlistedAliases{err, mount}, nil
}

// addAliases adds the entities behind aliases.
func (l *listing) addAliases(aliases []vault.Alias) {
	for _, a := range aliases {
		if facts.IsInstanceID(a.Name) {
			l.addLeftover(a.Name, entityPath(a.EntityID))
		} else {
			l.entities[a.Name] = a.EntityID
		}
	}
}

func entityPath(id string) string { return "identity/entity/id/" + id }

// leftoversOf returns the paths of the entities and accesslist entries that an instance's logins left. It asks Vault about the
// entities if they could not be listed. record is nil if there is none.
func (r *Reconciler) leftoversOf(ctx context.Context, held *inventory, id string, record *ledger.Record) ([]string, error) {
	paths := slices.Clone(held.leftovers(id))
	if held.unaliased == nil {
		return paths, nil
	}
	aliases := []string{id}
	if record != nil && record.State == ledger.Deleted {
		aliases = append(aliases, record.FormerRoleIDs...)
	}
	for _, alias := range aliases {
		entity, err := r.Vault.Entity(ctx, held.unaliased.mount, alias)
		if err != nil {
			return nil, err
		}
		if path := entityPath(entity); entity != "" && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// asksAbout reports whether Vault is asked about the entity of a removed instance.
func (held *inventory) asksAbout(tombstone ledger.Record) bool {
	return held.unaliased != nil && held.now.Sub(tombstone.UpdatedAt) < askedFor
}

// aliasTrouble returns the trouble of aliases that could not be listed. It withholds no delete: a removal finds the entity of its
// instance by itself.
func (held *inventory) aliasTrouble() (t PlaceTrouble, ok bool) {
	if held.unaliased == nil {
		return PlaceTrouble{}, false
	}
	return PlaceTrouble{Folder: aliasFolder, Error: fmt.Sprintf("%v: Vault was asked about the entities of single instances; entities of instances that were removed more than %.0f hours ago, "+
		"or that no record and no other list names, are not found", held.unaliased.err, askedFor.Hours())}, true
}
