package reconcile

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// inventory is everything that Vault lists and the ledger holds. It keeps only the records of one stretch, the next limit
// instances in the order of their IDs, so that memory is bounded for any size of the fleet. Each stretch has its own
// inventory.
type inventory struct {
	*listing
	// inFolder counts the instances whose records name objects in a folder that could not be listed or has no mount.
	inFolder map[string]int
	// recorded counts the instances whose record is no tombstone.
	recorded int
	// records counts the records of the stretch.
	records int

	// The stretch has the instances whose IDs are greater than after and at most upTo. An empty bound does not apply.
	after, upTo string
	limit       int
	now         time.Time // of the scan
}

// scan reads the ledger, once Vault's lists are complete: a record is written before its objects are made.
func (r *Reconciler) scan(ctx context.Context, l *listing, after string, limit int) (*inventory, error) {
	held := &inventory{
		listing: l, inFolder: map[string]int{}, after: after, limit: limit, now: r.Now(),
	}
	err := r.Ledger.Scan(ctx, ledger.Visitor{
		Record: held.addRecord,
		Claim:  func(name ledger.Name, c ledger.Claim) { held.addClaim(name, c.InstanceID) },
	})
	held.trim()
	return held, err
}

// addRecord adds a record of the scan. A tombstone is kept only if Vault lists objects or leftovers of its instance or is asked about
// them, if it has names or certificates left or retains objects, or if the instance is in quarantine.
func (held *inventory) addRecord(r ledger.Record) {
	id := r.InstanceID
	if r.State == ledger.Deleted {
		held.addEntities(id, r.FormerRoleIDs)
		if held.isUnlisted(id) && len(r.Revoking)+len(r.Names())+len(r.Retained) == 0 && !held.asksAbout(r) && !r.InQuarantine() {
			return
		}
	} else {
		held.recorded++
		held.setPlace(held.add(id), r.Place())
		held.addFolders(r)
	}
	if !held.inStretch(id) {
		return
	}
	held.add(id).record = held.packer.Pack(r)
	held.add(id).quarantined = r.LivesInQuarantine()
	held.records++
	if held.records > 2*held.limit {
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
			held.add(r.InstanceID).unseen = folder
		}
		if held.unlisted[folder] != nil || held.unmounted[folder] != nil {
			held.inFolder[folder]++
		}
	}
}

// placeOf returns the place in an instance's record. known is false without a record; a tombstone may be left out (records).
func (held *inventory) placeOf(id string) (p facts.Place, known bool) {
	if p, known = held.recordedAt(id); known {
		return p, true
	}
	if r := held.recordOf(id); r != nil {
		return r.Place(), true
	}
	return facts.Place{}, false
}

// unseenFolder returns a folder that could not be listed and may hold objects of an instance; empty if there is none. No record
// says where the objects of an instance are not, if its record is lost or names none.
func (held *inventory) unseenFolder(id string) string {
	if len(held.unlisted) == 0 {
		return ""
	}
	if _, isRecorded := held.recordedAt(id); isRecorded {
		if r := held.recordOf(id); r == nil || len(r.Objects) > 0 {
			return held.of(id).unseen
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
	if held.records <= held.limit {
		return
	}
	ids := held.idsOf(func(e *entry) bool { return e.record != "" })
	held.upTo = ids[held.limit-1]
	for _, id := range ids[held.limit:] {
		held.entries[id].record = ""
	}
	held.records = held.limit
}

// half returns the limit of a stretch with half as many records. It is below minStretch only if the stretch's own limit was nearly
// that short.
func (held *inventory) half() int { return min(held.limit, max(held.records, 2*minStretch)) / 2 }

// recordsUpTo counts the records of the stretch up to an instance.
func (held *inventory) recordsUpTo(id string) int {
	n := 0
	for _, e := range held.entries {
		if e.record != "" && e.id <= id {
			n++
		}
	}
	return n
}

// ids returns the instances of the stretch that are in Vault or in the ledger, sorted.
func (held *inventory) ids() []string {
	return held.idsOf(func(e *entry) bool { return held.inStretch(e.id) && (e.record != "" || !held.isUnlisted(e.id)) })
}

// isUnlisted reports whether Vault lists nothing of an instance.
func (held *inventory) isUnlisted(id string) bool {
	e := held.of(id)
	return len(e.objects)+len(e.leftovers) == 0
}

// idsOf returns the instances with these entries, sorted.
func (r *roster) idsOf(chosen func(*entry) bool) []string {
	var ids []string
	for id, e := range r.entries {
		if chosen(e) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}
