package reconcile

import (
	"context"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// readLogin reads the instance's entries in the access lists, and the entities of its logins.
func (x *Explainer) readLogin(ctx context.Context, t *story) {
	t.login.LoggedIn = Unknown
	if !t.seesVault() {
		return
	}
	mounts, aliases := []string{x.Realm.AuthMount}, []string{t.id}
	if t.record != nil {
		aliases = append(aliases, t.record.RoleIDs()...)
		for _, o := range t.record.Objects {
			if mount, _, ok := grant.SplitAuthRolePath(o.Path); ok && o.Kind == grant.KindAuthRole && !slices.Contains(mounts, mount) {
				mounts = append(mounts, mount)
			}
		}
	}
	isSure := true
	for _, mount := range mounts {
		if err := x.readLoginsOn(ctx, t, mount, aliases); err != nil {
			t.addUnread("the logins on auth/"+mount, err)
			isSure = false
		}
	}
	if isSure && t.login.LoggedIn == Unknown {
		t.login.LoggedIn = No
	}
}

// readLoginsOn adds the logins on one auth mount, by the names of their identities.
func (x *Explainer) readLoginsOn(ctx context.Context, t *story, mount string, aliases []string) error {
	entry, err := x.Vault.Read(ctx, grant.AccessListPath(mount, t.id))
	if err != nil {
		return err
	}
	if entry != nil {
		t.login.LoggedIn, t.login.First, t.login.Last = Yes, timeOf(entry["creation_time"]), timeOf(entry["last_updated_time"])
	}
	m, err := x.Vault.LoginMount(ctx, mount)
	if err != nil {
		return err
	}
	for _, alias := range aliases {
		found, err := x.Logins.Identity(ctx, m, alias)
		if err != nil {
			return err
		}
		if found == nil {
			continue
		}
		t.login.LoggedIn, t.login.EntityID = Yes, found.EntityID
		if t.login.First == nil && !found.CreatedAt.IsZero() {
			t.login.First = &found.CreatedAt
		}
	}
	return nil
}

// timeOf returns a time that Vault answered; nil for another value.
func timeOf(v any) *time.Time {
	t := vault.TimeOf(v)
	if t.IsZero() {
		return nil
	}
	return &t
}
