package reconcile

import (
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// Retained is an object that a removal left in Vault, as the profile says.
type Retained struct {
	InstanceID string `json:"instanceId"`
	Path       string `json:"path"`
}

// setPaths sets the paths that Vault lists of the instance. The retained ones are neither orphaned nor untracked.
func (s *subject) setPaths(held *inventory) {
	s.paths = held.paths(s.id)
	if s.record == nil || len(s.record.Retained) == 0 {
		return
	}
	s.paths = slices.DeleteFunc(slices.Clone(s.paths), s.record.Retains)
	for _, path := range s.record.RetainedPaths() {
		if exists, known := held.exists(s.id, path); known && !exists {
			s.lost = append(s.lost, path)
		}
	}
}

// lostRow returns the row of a tombstone that retains objects which a person deleted: it is kept for them alone. Nil if there are
// none. It removes nothing in Vault, so it does not count toward the delete limit.
func (s *subject) lostRow() *Change {
	if s.record == nil || s.hasLiveRecord() || len(s.lost) == 0 {
		return nil
	}
	row := s.recordRow(Drift{Reason: Orphaned, Action: Delete, Diff: diffOf("retained", "not in Vault", strings.Join(s.lost, ", "))})
	row.removes, row.written = true, s.record.UpdatedAt
	return &row
}

// retentionDiff returns the difference between the objects that the record has retained at a removal, and those that the grant has.
func (s *subject) retentionDiff() string {
	var wanted, recorded []string
	for _, o := range s.grant.All() {
		if o.Retain {
			wanted = append(wanted, o.Path)
		}
	}
	for _, o := range s.record.Objects {
		if o.Retain {
			recorded = append(recorded, o.Path)
		}
	}
	return diffOf("retain", listOr(wanted), listOr(recorded))
}

func listOr(paths []string) string {
	if len(paths) == 0 {
		return "none"
	}
	return strings.Join(paths, ", ")
}

// retainedOf returns the retained objects of an instance.
func retainedOf(id string, paths []string) []Retained {
	var out []Retained
	for _, path := range paths {
		out = append(out, Retained{InstanceID: id, Path: path})
	}
	return out
}

// addRetained adds retained objects to the answer of a teardown. It counts all and lists as many as fit.
func (a *Answer) addRetained(all []Retained) {
	a.RetainedCount += len(all)
	a.Retained = append(a.Retained, all[:min(len(all), maxRows-len(a.Retained))]...)
}

// softened adds to an explanation what its profile leaves of drift and of removals.
func (g *WantedGrant) softened(p *grant.Profile) {
	g.Modes = map[grant.Kind]grant.DriftMode{}
	for _, m := range p.Reconcile.Softer() {
		g.Modes[m.Kind] = m.Mode
	}
	g.Retained = p.Retained()
}
