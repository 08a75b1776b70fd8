package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// read reads the objects of the grant, and the instance's other policies: their markers show whose they are. If the record is
// missing or names no objects, it reads the auth role too.
func (s *survey) read(ctx context.Context, u *subject) error {
	wanted := map[string]bool{}
	if u.grant != nil {
		for _, o := range u.grant.All() {
			wanted[o.Path] = true
			exists, known := s.inventory.exists(u.id, o.Path)
			recorded := u.record != nil && u.record.Has(o.Path)
			switch {
			case known && !exists && (!recorded || s.input.NamesOnly):
				continue // a recorded object may have been made since the list
			case known && recorded && s.input.NamesOnly:
				u.contents[o.Path] = o.Fields // assumed to be unchanged
				continue
			}
			if err := s.readOne(ctx, u, o.Path); err != nil {
				return err
			}
		}
	}
	for _, path := range u.paths {
		login := (u.record == nil || len(u.record.Objects) == 0) && path == grant.AuthRolePath(s.r.Realm.AuthMount, u.id)
		if !wanted[path] && (grant.KindOf(path, grant.Mounts{}) == grant.KindPolicy || login) {
			if err := s.readOne(ctx, u, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// readLogin reads the auth role, and the instance's policies that the role names and that were not read: they may have been
// made since the list.
func (s *survey) readLogin(ctx context.Context, u *subject) error {
	login := grant.AuthRolePath(s.r.Realm.AuthMount, u.id)
	if u.contents[login] == nil {
		if err := s.readOne(ctx, u, login); err != nil {
			return err
		}
	}
	for _, path := range u.policiesOf(u.contents[login]) {
		if u.contents[path] != nil {
			continue
		}
		if err := s.readOne(ctx, u, path); err != nil {
			return err
		}
	}
	return nil
}

// existing returns the rows without those that say of an object that it should not exist, if it does not: an owner may have removed
// it since the list. An object that was read when it was compared is not read again.
func (s *survey) existing(ctx context.Context, u *subject, rows []Change) ([]Change, error) {
	var out []Change
	for _, row := range rows {
		if row.Reason != Missing && u.contents[row.Path] == nil && slices.Contains(u.paths, row.Path) {
			data, err := s.r.Vault.Read(ctx, row.Path)
			if err != nil {
				return nil, err
			}
			if data == nil {
				continue
			}
		}
		out = append(out, row)
	}
	return out, nil
}

// errUnreadable marks the error of a read in a folder that could not be listed.
var errUnreadable = errors.New("its folder could not be listed")

// readOne adds the object at a path to the subject's contents, if it exists. In a folder that could not be listed, the first read
// that fails is the last: a mount that does not answer would use up the time of the run.
func (s *survey) readOne(ctx context.Context, u *subject, path string) error {
	folder := grant.FolderOf(path)
	s.mu.Lock()
	err := s.unreadable[folder]
	s.mu.Unlock()
	if err != nil {
		return err
	}
	data, err := s.r.Vault.Read(ctx, path)
	switch {
	case err == nil && data != nil:
		u.contents[path] = data
	case err != nil && s.inventory.unlisted[folder] != nil && ctx.Err() == nil:
		err = fmt.Errorf("%w: %w", errUnreadable, err)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.unreadable[folder] = err
	}
	return err
}

// confirm reads the record again, and a claim of the grant, and returns no rows if either changed since the scan: another run
// works on the instance, or has done so. It leaves out the rows of listed objects that are gone. So no row rests on the age of the
// lists or the scan, which are many minutes old at the end of a large fleet.
func (s *survey) confirm(ctx context.Context, u *subject, rows []Change) ([]Change, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	current, err := s.r.Ledger.Get(ctx, u.id)
	if err != nil || s.isOutdated(u, current) {
		return nil, err
	}
	if rows, err = s.existing(ctx, u, rows); err != nil || u.grant == nil {
		return rows, err
	}
	name, holder := u.contested, u.holder
	if holder == "" {
		name = ledger.Name{Under: u.profile.BasePath, Text: u.grant.FQDN}
		if len(u.lacking) > 0 {
			name = u.lacking[0]
		}
		holder = s.inventory.holderOf(name)
	}
	claim, err := s.r.Ledger.Holder(ctx, name)
	if err != nil {
		return nil, err
	}
	if claim == nil {
		claim = &ledger.Claim{}
	}
	if claim.InstanceID != holder {
		return nil, nil
	}
	return rows, nil
}

// isOutdated reports whether a subject was compared by another record than the current one. The scan leaves out tombstones of
// instances without objects in Vault. Of a live instance, such a tombstone outdates the subject only if it says that the instance is
// leaving. Any other subject without a record has objects, so its tombstone was written since the scan.
func (s *survey) isOutdated(u *subject, current *ledger.Record) bool {
	if u.record == nil && current != nil && current.State == ledger.Deleted {
		return !s.isComparable(u.sighting) || current.Leaves(u.sighting.Facts.LaunchTime)
	}
	var scanned, read int64
	if u.record != nil {
		scanned = u.record.Version
	}
	if current != nil {
		read = current.Version
	}
	return scanned != read
}

// placeOf returns the place to which the auth role binds an instance without a record; zero if there is no role, or it binds
// none. It reads the role whatever the list says: the role is made last, and may have been made since.
func (s *survey) placeOf(ctx context.Context, u *subject) (facts.Place, error) {
	role, err := s.r.Vault.Read(ctx, grant.AuthRolePath(s.r.Realm.AuthMount, u.id))
	if err != nil || role == nil {
		return facts.Place{}, err
	}
	region := first(role["bound_region"])
	if region == "" {
		region = first(role["inferred_aws_region"])
	}
	p := facts.Place{Account: first(role["bound_account_id"]), Region: region}
	if p.Account == "" || p.Region == "" {
		return facts.Place{}, nil
	}
	return p, nil
}

// first returns the first value of a list in Vault's answer; empty if there is none.
func first(v any) string {
	switch v := v.(type) {
	case string:
		f, _, _ := strings.Cut(v, ",")
		return f
	case []any:
		if len(v) > 0 {
			return fmt.Sprint(v[0])
		}
	}
	return ""
}
