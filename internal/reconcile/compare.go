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

// Change is one difference with what is needed to judge it and to put it right.
type Change struct {
	Drift
	place   facts.Place // zero when nothing tells where the instance is, or was
	profile string
	// removes tells that all of the instance's is to go, and not one object of a live one; counts, that it is one for the
	// delete limit: not what logins left of an instance that went before.
	removes, counts bool
	// revokes reports whether the row is about certificates alone, of an instance whose removal is otherwise done.
	revokes bool
	// absent tells that EC2 does not show the instance at all; written is when the ledger last wrote of it.
	absent  bool
	written time.Time
	// heldBy is the instance that holds the name this one should have.
	heldBy string
	// adopt is what is done about a conflicting row where settings say to adopt; empty when nothing is.
	adopt Action
	// bars tells that lifecycle would refuse the whole instance for this row's conflict.
	bars bool
	// needsRemove tells that only a function that may remove can put it right.
	needsRemove bool
	// failed tells that it could not be compared.
	failed bool
}

// subject is all that is known of one instance.
type subject struct {
	id        string
	sighting  instance.Sighting
	place     facts.Place
	record    *ledger.Record // a tombstone included; nil for none
	paths     []string       // what Vault lists under its name
	leftovers []string       // what its logins left
	profile   *grant.Profile // nil when none fits
	grant     *grant.Grant   // nil when none could be rendered
	refusal   error          // why not
	// asRecorded tells that the record names exactly this grant.
	asRecorded bool
	// holder is another instance that holds one of the grant's names, and contested that name; empty when none does.
	holder    string
	contested ledger.Name
	lacking   []ledger.Name // those of the grant's names that nobody holds
	contents  map[string]map[string]any
}

// comparison compares subjects. It does no I/O.
type comparison struct {
	deployment string
	now        time.Time
	pkiMounts  []string
}

// hasLiveRecord reports whether the record is live: live records are those of instances that have, or may have, something in Vault.
func (s *subject) hasLiveRecord() bool { return s.record != nil && s.record.State != ledger.Deleted }

// isBusy reports whether a run is at work on the instance, or one is to follow: it is left to that. No run sets a time further
// ahead than converge.Grace; what does would hide the instance for good.
func (s *subject) isBusy(now time.Time) bool {
	r := s.record
	if r == nil {
		return false
	}
	ahead := func(t time.Time) bool { return !t.Before(now) && isRecent(t, now) }
	return r.LeaseOwner != "" && ahead(time.UnixMilli(r.LeaseExpiresAt)) || r.QuietUntil != nil && ahead(*r.QuietUntil)
}

// isRecent reports whether a time is within converge.Grace of now, on either side: a record may say anything.
func isRecent(t, now time.Time) bool { return now.Sub(t).Abs() < converge.Grace }

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

// recordRow is a row about the record, which stands for all of the instance's.
func (s *subject) recordRow(d Drift) Change {
	d.Object, d.Path = KindRecord, ledger.RecordKey(s.id)
	return s.row(d)
}

// failedRow is the row of an instance that could not be compared.
func (s *subject) failedRow(err error) Change {
	c := s.recordRow(Drift{Reason: Changed, Action: None, Error: "not compared: " + err.Error()})
	c.failed = true
	return c
}

// rowsOfPresent compares an instance that EC2 shows as pending or running.
func (c *comparison) rowsOfPresent(s *subject) []Change {
	switch {
	case s.isBusy(c.now):
		return nil
	case s.record.Leaves(s.sighting.Facts.LaunchTime):
		return c.rowsOfLeaving(s)
	case errors.Is(s.refusal, grant.ErrNotYet) && s.sighting.Facts.State == facts.Pending:
		return nil
	case s.refusal != nil:
		reason := Missing
		if s.hasLiveRecord() && len(s.record.Objects) > 0 {
			reason = Changed
		}
		return []Change{s.recordRow(Drift{Reason: reason, Action: None, Error: s.refusal.Error()})}
	case s.profile == nil:
		return c.rowsOfUnmatched(s)
	case s.holder != "":
		row := s.recordRow(Drift{Reason: Conflicting, Action: None, Error: fmt.Sprintf("the name %s is held by instance %s", s.contested, s.holder)})
		row.heldBy, row.bars = s.holder, true
		return []Change{row}
	}
	objects := c.compareObjects(s)
	record := c.compareRecord(s, objects)
	if record != nil && record.Reason == Missing && !slices.ContainsFunc(s.grant.All(), func(o grant.Object) bool { return s.contents[o.Path] != nil }) {
		return []Change{*record} // nothing at all is there: one row says so
	}
	untracked := c.rowsOfUntracked(s)
	if record != nil {
		objects = append(objects, *record)
	}
	return append(objects, untracked...)
}

// rowsOfLeaving is an instance that Auto Scaling terminates and that was to lose all, though EC2 shows it as alive: drift only
// where its removal broke off, or where something of its is left that the record does not name.
func (c *comparison) rowsOfLeaving(s *subject) []Change {
	if row := s.unrevokedRow(); row != nil {
		return []Change{*row}
	}
	if !s.hasLiveRecord() && isRecent(s.record.UpdatedAt, c.now) {
		return nil // removed a moment ago: the lists may be older
	}
	rows := c.foreignPolicies(s)
	if slices.ContainsFunc(rows, func(row Change) bool { return c.namesAnother(s, row.Path) }) {
		return rows // taken over: lifecycle leaves it alone
	}
	if s.hasLiveRecord() && c.hasMoreToRemove(s, len(rows)) {
		rows = append(rows, s.recordRow(Drift{Reason: Orphaned, Action: Delete, Diff: diffOf("instance", "terminating by its Auto Scaling group", s.record.State)}))
	}
	bare := *s
	bare.grant = nil // of which nothing is to stand
	return removing(append(rows, c.rowsOfUntracked(&bare)...))
}

// removing marks rows by which all of a live instance's is to go, which counts for the delete limit.
func removing(rows []Change) []Change {
	for i := range rows {
		rows[i].removes = rows[i].Action == Delete
		rows[i].counts = rows[i].removes
	}
	return rows
}

// rowsOfUnmatched is an instance that no profile fits, or none any more.
func (c *comparison) rowsOfUnmatched(s *subject) []Change {
	if row := s.unrevokedRow(); row != nil {
		return []Change{*row}
	}
	if rows := c.foreignPolicies(s); len(rows) > 0 {
		return rows // another deployment has taken the instance over
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

// foreignPolicies are the rows of recorded policies that bear another marker, or none, by now.
func (c *comparison) foreignPolicies(s *subject) []Change {
	if !s.hasLiveRecord() {
		return nil
	}
	var rows []Change
	for _, o := range s.record.Objects {
		if o.Kind == grant.KindPolicy && s.contents[o.Path] != nil && c.ownerOf(s, o.Path) != ownership.Ours {
			rows = append(rows, s.row(Drift{
				Object: o.Kind, Path: o.Path, Reason: Conflicting, Action: None, Error: "recorded, and not marked as made by this deployment (" + c.deployment + ")",
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
		if !slices.ContainsFunc(all, func(w grant.Object) bool { return w.Path == o.Path }) {
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
		return &row
	}
	recorded := s.record != nil && s.record.Has(o.Path)
	fields := o.Differences(got)
	if owner != ownership.Ours {
		row := s.row(Drift{
			Object: o.Kind, Path: o.Path, Reason: Conflicting, Action: None, Fields: fields, Diff: diff(o, fields, got),
			Error: "not made by this deployment (" + c.deployment + ")",
		})
		row.adopt, row.bars = Update, true
		return &row
	}
	rewritten := !s.asRecorded && recorded && s.record.State == ledger.Active && s.record.SHA256(o.Path) != o.SHA256()
	if len(fields) == 0 && !rewritten {
		return nil
	}
	if len(fields) == 0 && o.Kind == grant.KindPolicy {
		fields = []string{"policy"} // it says the same in other words
	}
	row := s.row(Drift{Object: o.Kind, Path: o.Path, Reason: Changed, Action: Update, Fields: fields, Diff: diff(o, fields, got)})
	row.needsRemove = o.Kind == grant.KindAuthRole && grant.MustReplace(got, o)
	return &row
}

// compareRecord is the row about the ledger's record of a live instance; nil when it is as it should be, or when the rows of
// its objects say all there is.
func (c *comparison) compareRecord(s *subject, objects []Change) *Change {
	r, names := s.record, ledger.NamesOf(s.grant)
	var row Change
	switch {
	case !s.hasLiveRecord(), r.State == ledger.Refused && len(r.Objects) == 0:
		row = s.recordRow(Drift{Reason: Missing, Action: Create, Diff: diffOf("profile", s.profile.Name, "no record")})
	case r.State != ledger.Active:
		row = s.recordRow(Drift{Reason: Changed, Action: Update, Fields: []string{"state"}, Diff: diffOf("state", ledger.Active, r.State)})
	case len(s.lacking) > 0 && slices.Equal(r.Claims, names):
		row = s.recordRow(Drift{Reason: Changed, Action: Update, Fields: []string{"claim"}, Diff: diffOf("claim", s.lacking[0].Text, "not held")})
	case len(objects) == 0 && r.FQDN != s.grant.FQDN:
		row = s.recordRow(Drift{Reason: Changed, Action: Update, Fields: []string{"fqdn"}, Diff: diffOf("fqdn", s.grant.FQDN, r.FQDN)})
	case len(objects) == 0 && !slices.Equal(r.Claims, names):
		row = s.recordRow(Drift{Reason: Changed, Action: Update, Fields: []string{"claims"}, Diff: diffOf("claims", fmt.Sprint(len(names)), fmt.Sprint(len(r.Claims)))})
	default:
		return nil
	}
	return &row
}

// rowsOfGone compares an instance that EC2 says is gone, or does not show.
func (c *comparison) rowsOfGone(s *subject) []Change {
	if row := s.unrevokedRow(); row != nil && !s.isBusy(c.now) {
		return append(removing(c.rowsOfUntracked(s)), *row)
	}
	if s.isBusy(c.now) || s.record != nil && !s.hasLiveRecord() && isRecent(s.record.UpdatedAt, c.now) {
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
	if s.record != nil && !s.hasLiveRecord() && len(s.record.Names()) > 0 {
		// It lived on without a grant, and its end was not heard of.
		rows = append(rows, s.recordRow(Drift{Reason: Orphaned, Action: Delete, Diff: diffOf("names", "given up", fmt.Sprint(len(s.record.Names()), " held"))}))
	}
	rows = append(rows, c.rowsOfUntracked(s)...)
	for i := range rows {
		rows[i].removes = rows[i].Action == Delete
		rows[i].counts = rows[i].removes && (s.hasLiveRecord() || len(s.paths) > 0)
		// A removal that is only to be looked after once more was decided before: it is not put off again.
		rows[i].absent = !s.sighting.Found && (s.record == nil || s.record.QuietUntil == nil)
		if s.record != nil {
			rows[i].written = s.record.UpdatedAt
		}
	}
	return rows
}

// unrevokedRow returns the row of a removed instance whose certificates are not all revoked; nil for none. It removes no
// instance, and does not count for the delete limit.
func (s *subject) unrevokedRow() *Change {
	if s.record == nil || s.hasLiveRecord() || len(s.record.Revoking) == 0 {
		return nil
	}
	row := s.recordRow(Drift{Reason: Orphaned, Action: Delete, Diff: diffOf("certificates", "revoked", "not all revoked")})
	row.removes, row.revokes = true, true
	return &row
}

// hasMoreToRemove tells whether a removal has still something to do: once it has met policies that are somebody else's, it leaves
// the record with them, and all else gone.
func (c *comparison) hasMoreToRemove(s *subject, foreign int) bool {
	if foreign == 0 || s.record.State != ledger.Deprovisioning {
		return true
	}
	return len(s.paths) > foreign || len(s.leftovers) > 0
}

func (s *subject) isAlive() bool {
	return s.sighting.Found && s.sighting.Facts.State != facts.Terminated && s.sighting.Facts.State != facts.ShuttingDown
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
