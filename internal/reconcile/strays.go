package reconcile

import (
	"slices"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// strays are what stands under the instance's name and is neither recorded nor to be granted. Whose a policy is, its
// marker tells; all else is ours only if the record was lost and every policy that is left bears our marker, and an auth
// role only if it gives one of them. What logins left is swept where the ledger knows that the instance was granted
// something and is gone.
func (c *comparison) strays(s *subject) []Change {
	var strays []string
	var marked []string
	foreign, anothers := 0, 0
	for _, path := range s.paths {
		if s.record != nil && s.record.Has(path) || s.grant != nil && slices.ContainsFunc(s.grant.All(), func(o grant.Object) bool { return o.Path == path }) {
			continue
		}
		strays = append(strays, path)
		switch {
		case folderOf(path) != policyFolder:
		case c.ours(s, path):
			marked = append(marked, path[len(policyFolder)+1:])
		case s.marked(path) && c.anothers(s, path):
			foreign, anothers = foreign+1, anothers+1
		default:
			foreign++
		}
	}
	lost := (s.record == nil || len(s.record.Objects) == 0) && len(marked) > 0 && foreign == 0
	var rows []Change
	for _, path := range strays {
		ours := lost
		switch c.kindOf(path) {
		case grant.KindPolicy:
			ours = c.ours(s, path)
		case grant.KindAuthRole:
			ours = lost && grant.GivesOneOf(s.contents[path], marked)
		case grant.KindPKIRole, grant.KindGeneric: // they carry no proof of their own
		}
		if !ours && !s.live() && anothers > 0 && len(marked) == 0 && folderOf(path) != policyFolder {
			continue // another deployment's instance: the rows of its policies say so
		}
		d := Drift{Object: c.kindOf(path), Path: path, Reason: Orphaned, Action: Delete}
		if !ours {
			d.Reason, d.Action, d.Error = Conflicting, None, "nothing tells that this deployment ("+c.deployment+") made it"
		}
		row := s.change(d)
		row.here = true
		rows = append(rows, row)
	}
	granted := s.record != nil && s.record.State == ledger.Deleted && s.record.Profile != ""
	if s.alive() || !granted && !lost {
		return rows
	}
	for _, path := range s.litter {
		row := s.change(Drift{Object: grant.KindAuthRole, Path: path, Reason: Orphaned, Action: Delete})
		row.here = true
		rows = append(rows, row)
	}
	return rows
}
