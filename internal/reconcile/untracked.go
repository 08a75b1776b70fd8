package reconcile

import (
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ownership"
)

// rowsOfUntracked returns the rows of objects that bear the instance's name and that neither its record nor its grant names.
// Login leftovers have rows if they are ours and the instance is not alive.
func (c *comparison) rowsOfUntracked(s *subject) []Change {
	var objects []ownership.Object
	for _, path := range s.paths {
		isRecorded := s.record != nil && s.record.Has(path)
		isGranted := s.grant != nil && s.grant.Has(path)
		if isRecorded || isGranted {
			continue
		}
		o := ownership.Object{Kind: grant.KindOf(path, c.mounts), Path: path, Data: s.contents[path]}
		if o.Data == nil {
			o.Data = map[string]any{} // it was listed, and gone or not read since: that proves nothing
		}
		objects = append(objects, o)
	}
	evidence := ownership.OfUntracked(c.instance(s), s.record, objects)
	var rows []Change
	for _, o := range objects {
		isOurs := evidence.OwnerOf(o) == ownership.Ours
		if !isOurs && !s.hasLiveRecord() && evidence.IsAnothers() && o.Kind != grant.KindPolicy {
			continue // another deployment's instance: the rows of its policies say so
		}
		d := Drift{Object: o.Kind, Path: o.Path, Reason: Orphaned, Action: Delete}
		if !isOurs {
			d.Reason, d.Action = Conflicting, None
			d.Error = "nothing shows that this deployment (" + c.deployment + ") made it: left alone; " +
				"find its owner, and delete it if it is not needed"
		}
		row := s.row(d)
		row.needsRemove = true
		rows = append(rows, row)
	}
	// The leftovers of a live record go with its removal.
	if s.isAlive() || (s.hasLiveRecord() && !evidence.Lost()) || evidence.OwnerOfLeftovers() != ownership.Ours {
		return rows
	}
	for _, path := range s.leftovers {
		row := s.row(Drift{Object: grant.KindAuthRole, Path: path, Reason: Orphaned, Action: Delete})
		row.needsRemove = true
		rows = append(rows, row)
	}
	return rows
}
