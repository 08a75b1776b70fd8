package reconcile

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ownership"
)

// Change is a row with everything by which it is judged and repaired.
type Change struct {
	Drift
	place   facts.Place // of the instance; zero if unknown
	profile string
	// removes reports whether the repair removes the instance's whole grant, and not one object of a live instance.
	removes bool
	// counts reports whether the removal counts toward the delete limit.
	counts bool
	// revokes reports whether only certificates are left to revoke: the removal is otherwise done.
	revokes bool
	// absent reports whether EC2 does not show the instance at all.
	absent bool
	// written is the time of the last write to the record; set for an instance that is gone.
	written time.Time
	// heldBy is the instance that holds a name of this one's grant; empty if none does.
	heldBy string
	// adopt is the action on a conflicting row where settings say to adopt; empty if there is none.
	adopt Action
	// bars reports whether converge would refuse the whole instance for this conflict.
	bars bool
	// needsRemove reports whether the repair needs a function with the Remove duty.
	needsRemove bool
	// failed reports whether the instance could not be compared.
	failed bool
	// left reports whether the profile has this drift only shown: see ledger.Record.LeavesDrift.
	left bool
}

// subject is everything known about one instance.
type subject struct {
	id        string
	sighting  instance.Sighting
	place     facts.Place
	record    *ledger.Record // may be a tombstone; nil if there is none
	paths     []string       // of objects in Vault under the instance's name, without the retained ones
	lost      []string       // retained paths that Vault lists no more
	leftovers []string       // paths of login leftovers
	profile   *grant.Profile // nil if none fits
	grant     *grant.Grant   // nil if none could be rendered
	refusal   error          // why grant is nil although a profile fits, or more than one does
	// asRecorded reports whether the record names exactly this grant.
	asRecorded bool
	// holder is another instance that holds a name of the grant; empty if none does.
	holder string
	// contested is the name that holder holds.
	contested ledger.Name
	// lacking are the names of the grant that no instance holds.
	lacking []ledger.Name
	// contents are Vault's answers for the paths that were read; a path without an object has no entry.
	contents map[string]map[string]any
}

// comparison compares subjects. It is pure: all reads come before it.
type comparison struct {
	deployment string
	now        time.Time
	mounts     grant.Mounts
}

// hasLiveRecord reports whether the instance has a record that is no tombstone: it has, or may have, objects in Vault.
func (s *subject) hasLiveRecord() bool { return s.record != nil && s.record.State != ledger.Deleted }

// isBusy reports whether a run works on the instance, or the instance waits for its second token cut. It is left to that run.
// No run sets a time further ahead than converge.Grace, so a time beyond it is ignored: it would hide the instance for good.
func (s *subject) isBusy(now time.Time) bool {
	r := s.record
	if r == nil {
		return false
	}
	ahead := func(t time.Time) bool { return !t.Before(now) && isRecent(t, now) }
	isLeased := r.LeaseOwner != "" && ahead(time.UnixMilli(r.LeaseExpiresAt))
	awaitsCut := r.QuietUntil != nil && ahead(*r.QuietUntil)
	return isLeased || awaitsCut
}

// isRecent reports whether a time is within converge.Grace of now, on either side: a record may say anything.
func isRecent(t, now time.Time) bool { return now.Sub(t).Abs() < converge.Grace }

// row returns a row about the instance.
func (s *subject) row(d Drift) Change {
	d.InstanceID = s.id
	if d.Fields == nil {
		d.Fields = []string{}
	}
	c := Change{Drift: d, place: s.place}
	if s.profile != nil {
		c.profile = s.profile.Name
	} else if s.record != nil {
		c.profile = s.record.Profile
	}
	return c
}

// recordRow returns a row about the record: it concerns the whole instance.
func (s *subject) recordRow(d Drift) Change {
	d.Object, d.Path = KindRecord, ledger.RecordKey(s.id)
	return s.row(d)
}

// failedRow returns the row of an instance that could not be compared.
func (s *subject) failedRow(err error) Change {
	c := s.recordRow(Drift{Reason: Changed, Action: None, Error: "not compared: " + err.Error()})
	c.failed = true
	return c
}

// refusalRow returns the row of an instance that gets no grant, or keeps its earlier one.
func (s *subject) refusalRow(reason error) Change {
	missing := Missing
	if s.hasLiveRecord() && len(s.record.Objects) > 0 {
		missing = Changed
	}
	return s.recordRow(Drift{Reason: missing, Action: None, Error: reason.Error()})
}

// rowsOfPresent returns the rows of an instance that EC2 shows as pending or running.
func (c *comparison) rowsOfPresent(s *subject) []Change {
	switch {
	case s.isBusy(c.now):
		return nil
	case s.record.InQuarantine():
		return c.rowsOfQuarantined(s)
	case s.record.Leaves(s.sighting.Facts.LaunchTime):
		return c.rowsOfLeaving(s)
	case errors.Is(s.refusal, grant.ErrNotYet) && converge.MayComeLate(s.sighting.Facts, time.Time{}, c.now):
		return nil
	case s.refusal != nil:
		return []Change{s.refusalRow(s.refusal)}
	case s.profile == nil:
		return c.rowsOfUnmatched(s)
	case s.holder != "":
		err := fmt.Sprintf("the name %s is held by instance %s: it is free once that instance is gone", s.contested, s.holder)
		row := s.recordRow(Drift{Reason: Conflicting, Action: None, Error: err})
		row.heldBy, row.bars = s.holder, true
		return []Change{row}
	}
	objects := c.compareObjects(s)
	record := c.compareRecord(s, objects)
	hasObjects := slices.ContainsFunc(s.grant.All(), func(o grant.Object) bool { return s.contents[o.Path] != nil })
	if record != nil && record.Reason == Missing && !hasObjects {
		return []Change{*record} // one row says that nothing was granted
	}
	untracked := c.rowsOfUntracked(s)
	if record != nil {
		objects = append(objects, *record)
	}
	return append(objects, untracked...)
}

// rowsOfLeaving returns the rows of an instance that Auto Scaling terminates while EC2 still shows it as alive. It has rows only
// if its removal broke off, or missed objects that the record does not name.
func (c *comparison) rowsOfLeaving(s *subject) []Change {
	rows, isAll := c.rowsBeforeRemoval(s)
	if isAll {
		return rows
	}
	if s.hasLiveRecord() && c.hasMoreToRemove(s, len(rows)) {
		states := diffOf("instance", "terminating by its Auto Scaling group", s.record.State)
		rows = append(rows, s.recordRow(Drift{Reason: Orphaned, Action: Delete, Diff: states}))
	}
	bare := *s
	bare.grant = nil // so that the grant's objects are untracked too
	return removing(append(rows, c.rowsOfUntracked(&bare)...))
}

// rowsBeforeRemoval returns the rows of a live instance that gets no grant, before those of what is left of its grant. isAll reports
// whether there are no others.
func (c *comparison) rowsBeforeRemoval(s *subject) (rows []Change, isAll bool) {
	if row := s.unrevokedRow(); row != nil {
		return []Change{*row}, true
	}
	if !s.hasLiveRecord() && isRecent(s.record.UpdatedAt, c.now) {
		return nil, true // removed a moment ago: the lists may be older
	}
	rows = c.foreignPolicies(s)
	// What another deployment adopted is left alone by converge.
	return rows, slices.ContainsFunc(rows, func(row Change) bool { return c.namesAnother(s, row.Path) })
}

// removing marks the deletes among the rows of a live instance as the removal of its whole grant, which counts toward the
// delete limit.
func removing(rows []Change) []Change {
	for i := range rows {
		rows[i].removes = rows[i].Action == Delete
		rows[i].counts = rows[i].removes
	}
	return rows
}

// rowsOfUnmatched returns the rows of an instance that no profile fits.
func (c *comparison) rowsOfUnmatched(s *subject) []Change {
	if row := s.unrevokedRow(); row != nil {
		return []Change{*row}
	}
	if rows := c.foreignPolicies(s); len(rows) > 0 {
		return rows // foreign policies: the whole instance is left alone
	}
	var rows []Change
	if s.hasLiveRecord() && len(s.record.Objects) > 0 {
		row := s.recordRow(Drift{
			Reason: Changed, Action: Delete, Fields: []string{"profile"},
			Diff: diffOf("profile", "none fits", s.record.Profile),
		})
		rows = append(rows, row)
	}
	return removing(append(rows, c.rowsOfUntracked(s)...))
}

// foreignPolicies returns the rows of recorded policies whose markers do not name this deployment.
func (c *comparison) foreignPolicies(s *subject) []Change {
	if !s.hasLiveRecord() {
		return nil
	}
	var rows []Change
	for _, o := range s.record.Objects {
		if o.Kind == grant.KindPolicy && s.contents[o.Path] != nil && c.ownerOf(s, o.Path) != ownership.Ours {
			rows = append(rows, s.row(Drift{
				Object: o.Kind, Path: o.Path, Reason: Conflicting, Action: None,
				Error: "recorded, but it has no marker of this deployment (" + c.deployment + ") for the instance: left alone; find out who wrote it",
			}))
		}
	}
	return rows
}

// compareObjects returns the rows of the grant's objects, and of the objects that the record names beyond the grant.
func (c *comparison) compareObjects(s *subject) []Change {
	all := s.grant.All()
	objects := make([]ownership.Object, len(all))
	for i, o := range all {
		objects[i] = ownership.Object{Kind: o.Kind, Path: o.Path, Data: s.contents[o.Path]}
	}
	evidence := ownership.OfGrant(c.instance(s), s.record, objects)
	var rows []Change
	for i, o := range all {
		if row := c.compareObject(s, o, evidence.OwnerOf(objects[i])); row != nil {
			rows = append(rows, *row)
		}
	}
	if s.record == nil {
		return rows
	}
	for _, o := range s.record.Objects {
		if !s.grant.Has(o.Path) && !o.Retain { // the record's row is about one to retain
			row := s.row(Drift{Object: o.Kind, Path: o.Path, Reason: Orphaned, Action: Delete})
			row.needsRemove = true
			rows = append(rows, row)
		}
	}
	return rows
}

// compareObject returns the row of one object of the grant; nil if it is as it should be.
func (c *comparison) compareObject(s *subject, o grant.Object, owner ownership.Owner) *Change {
	got := s.contents[o.Path]
	if got == nil {
		row := s.row(Drift{Object: o.Kind, Path: o.Path, Reason: Missing, Action: Create})
		return s.byMode(o, row)
	}
	recorded := s.record != nil && s.record.Has(o.Path)
	fields := o.Differences(got)
	if owner != ownership.Ours {
		row := s.row(Drift{
			Object: o.Kind, Path: o.Path, Reason: Conflicting, Action: None, Fields: fields, Diff: diff(o, fields, got),
			Error: "not made by this deployment (" + c.deployment + "): left alone; remove it, or set CONFLICT_MODE to adopt",
		})
		row.adopt, row.bars = Update, true
		return &row
	}
	rewritten := !s.asRecorded && recorded && s.record.State == ledger.Active && s.record.SHA256(o.Path) != o.SHA256()
	if len(fields) == 0 && !rewritten {
		return nil
	}
	if len(fields) == 0 && o.Kind == grant.KindPolicy {
		fields = []string{"policy"} // the same rules in another text
	}
	row := s.row(Drift{Object: o.Kind, Path: o.Path, Reason: Changed, Action: Update, Fields: fields, Diff: diff(o, fields, got)})
	row.needsRemove = o.Kind == grant.KindAuthRole && grant.MustReplace(got, o)
	return s.byMode(o, row)
}

// compareRecord returns the row of a live instance's record; nil if the record is as it should be, or if the rows of the
// objects say enough.
func (c *comparison) compareRecord(s *subject, objects []Change) *Change {
	r, names := s.record, ledger.NamesOf(s.grant)
	suffices := slices.ContainsFunc(objects, func(c Change) bool { return !c.left }) // a row of an object leads to converge
	var row Change
	switch {
	case !s.hasLiveRecord(), r.State == ledger.Refused && len(r.Objects) == 0:
		row = s.recordRow(Drift{Reason: Missing, Action: Create, Diff: diffOf("profile", s.profile.Name, "no record")})
	case r.State != ledger.Active:
		row = s.recordRow(Drift{Reason: Changed, Action: Update, Fields: []string{"state"}, Diff: diffOf("state", ledger.Active, r.State)})
	case len(s.lacking) > 0 && slices.Equal(r.Claims, names):
		row = s.recordRow(Drift{Reason: Changed, Action: Update, Fields: []string{"claim"}, Diff: diffOf("claim", s.lacking[0].Text, "not held")})
	case !suffices && !r.RetainsAs(s.grant):
		row = s.recordRow(Drift{Reason: Changed, Action: Update, Fields: []string{"on_removal"}, Diff: s.retentionDiff()})
	case !suffices && r.FQDN != s.grant.FQDN:
		row = s.recordRow(Drift{Reason: Changed, Action: Update, Fields: []string{"fqdn"}, Diff: diffOf("fqdn", s.grant.FQDN, r.FQDN)})
	case !suffices && !slices.Equal(r.Claims, names):
		counts := diffOf("claims", fmt.Sprint(len(names)), fmt.Sprint(len(r.Claims)))
		row = s.recordRow(Drift{Reason: Changed, Action: Update, Fields: []string{"claims"}, Diff: counts})
	default:
		return nil
	}
	return &row
}

// rowsOfGone returns the rows of an instance that EC2 shows as ended, or does not show.
func (c *comparison) rowsOfGone(s *subject) []Change {
	if row := s.unrevokedRow(); row != nil && !s.isBusy(c.now) {
		return append(removing(c.rowsOfUntracked(s)), *row)
	}
	hasTombstone := s.record != nil && !s.hasLiveRecord()
	if s.isBusy(c.now) || (hasTombstone && isRecent(s.record.UpdatedAt, c.now)) {
		return nil // removed a moment ago: the lists may be older
	}
	rows := c.foreignPolicies(s)
	if s.hasLiveRecord() && c.hasMoreToRemove(s, len(rows)) {
		state := "not in EC2"
		if s.sighting.Found {
			state = string(s.sighting.Facts.State)
		}
		rows = append(rows, s.recordRow(Drift{Reason: Orphaned, Action: Delete, Diff: diffOf("instance", state, s.record.State)}))
	}
	if hasTombstone && len(s.record.Names()) > 0 {
		// It lived on without a grant and kept its names. No event of its end arrived.
		names := diffOf("names", "given up", fmt.Sprint(len(s.record.Names()), " held"))
		rows = append(rows, s.recordRow(Drift{Reason: Orphaned, Action: Delete, Diff: names}))
	} else if row := s.endOfQuarantineRow(); row != nil {
		rows = append(rows, *row)
	}
	rows = append(rows, c.rowsOfUntracked(s)...)
	if row := s.lostRow(); row != nil && len(rows) == 0 {
		return []Change{*row}
	}
	for i := range rows {
		rows[i].removes = rows[i].Action == Delete
		rows[i].counts = rows[i].removes && (s.hasLiveRecord() || len(s.paths) > 0)
		// A removal that waits for its second token cut was decided by an earlier run: Grace does not delay it again.
		rows[i].absent = !s.sighting.Found && (s.record == nil || s.record.QuietUntil == nil)
		if s.record != nil {
			rows[i].written = s.record.UpdatedAt
		}
	}
	return rows
}

// unrevokedRow returns the row of a removed instance whose certificates are not all revoked; nil if they are. It removes no
// instance, so it does not count toward the delete limit.
func (s *subject) unrevokedRow() *Change {
	if s.record == nil || s.hasLiveRecord() || len(s.record.Revoking) == 0 {
		return nil
	}
	row := s.recordRow(Drift{Reason: Orphaned, Action: Delete, Diff: diffOf("certificates", "revoked", "not all revoked")})
	row.removes, row.revokes = true, true
	return &row
}

// hasMoreToRemove reports whether a removal has work left besides a number of foreign policies. A removal that met foreign
// policies removes everything else, and keeps them in the record.
func (c *comparison) hasMoreToRemove(s *subject, foreign int) bool {
	if foreign == 0 || s.record.State != ledger.Deprovisioning {
		return true
	}
	return len(s.paths) > foreign || len(s.leftovers) > 0
}

// isAlive reports whether EC2 shows the instance in a state other than ending or ended.
func (s *subject) isAlive() bool {
	return s.sighting.Found && !s.sighting.Facts.State.IsEnding()
}

// instance returns a subject in the eyes of this deployment.
func (c *comparison) instance(s *subject) ownership.Instance {
	return ownership.Instance{Deployment: c.deployment, ID: s.id}
}

// ownerOf returns the owner of the policy at a path, by its marker.
func (c *comparison) ownerOf(s *subject, path string) ownership.Owner {
	return c.instance(s).OwnerOf(s.contents[path])
}

// namesAnother reports whether the policy at a path bears another deployment's marker.
func (c *comparison) namesAnother(s *subject, path string) bool {
	_, ok := c.instance(s).NamesAnother(s.contents[path])
	return ok
}
