package reconcile

import (
	"context"
	"fmt"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// read reads what the grant holds, as far as it exists, and the policies that stand beside it.
func (s *survey) read(ctx context.Context, u *subject) error {
	wanted := map[string]bool{}
	if u.grant != nil {
		for _, o := range u.grant.All() {
			wanted[o.Path] = true
			exists, known := s.inventory.exists(u.id, o.Path)
			recorded := u.record != nil && u.record.Has(o.Path)
			switch {
			case known && !exists && (!recorded || s.input.NamesOnly):
				continue // what is recorded may have been made since the list
			case known && recorded && s.input.NamesOnly:
				u.contents[o.Path] = o.Fields // taken to be as it should
				continue
			}
			if err := s.readOne(ctx, u, o.Path); err != nil {
				return err
			}
		}
	}
	for _, path := range u.paths {
		login := (u.record == nil || len(u.record.Objects) == 0) && path == grant.AuthRolePath(s.r.Realm.AuthMount, u.id)
		if !wanted[path] && (grant.KindOf(path, nil) == grant.KindPolicy || login) {
			if err := s.readOne(ctx, u, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// readLogin reads the auth role, and those of the instance's own policies that it gives and no list shows: they may have been
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

// existing returns the rows whose objects still exist: their owner may have removed them since the list.
func (s *survey) existing(ctx context.Context, rows []Change) ([]Change, error) {
	var out []Change
	for _, row := range rows {
		data, err := s.r.Vault.Read(ctx, row.Path)
		if err != nil {
			return nil, err
		}
		if data != nil {
			out = append(out, row)
		}
	}
	return out, nil
}

func (s *survey) readOne(ctx context.Context, u *subject, path string) error {
	data, err := s.r.Vault.Read(ctx, path)
	if err == nil && data != nil {
		u.contents[path] = data
	}
	return err
}

// confirm drops the rows of an instance whose record, or whose name's claim, was written since the scan: somebody is, or
// was, at work on it; and those of a running one whose tombstone says that its identity was taken as it leaves.
func (s *survey) confirm(ctx context.Context, u *subject, rows []Change) ([]Change, *subject, error) {
	if len(rows) == 0 {
		return nil, u, nil
	}
	current, err := s.r.Ledger.Get(ctx, u.id)
	if err != nil {
		return nil, u, err
	}
	var was, is int64
	if u.record != nil {
		was = u.record.Version
	}
	if current != nil {
		is = current.Version
	}
	tombstone := u.record == nil && current != nil && current.State == ledger.Deleted // left out of the scan
	if was != is && !tombstone || tombstone && s.isComparable(u.sighting) && current.Leaves(u.sighting.Facts.LaunchTime) {
		return nil, u, nil
	}
	if u.grant == nil {
		return rows, u, nil
	}
	name, claimed := u.contested, u.holder
	if claimed == "" {
		name = ledger.Name{Under: u.profile.BasePath, Text: u.grant.FQDN}
		if len(u.lacking) > 0 {
			name = u.lacking[0]
		}
		claimed = s.inventory.claims[name]
	}
	holder, err := s.r.Ledger.Holder(ctx, name)
	if err != nil {
		return nil, u, err
	}
	if holder == nil {
		holder = &ledger.Claim{}
	}
	if holder.InstanceID != claimed {
		return nil, u, nil
	}
	return rows, u, nil
}

// placeOf tells from its auth role's bindings where an instance is that has no record; zero when there is no such role.
// The list does not say that there is none: the role is made last, and may have been made since.
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

// first is the first value of what Vault answers for a list.
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
