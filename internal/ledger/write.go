package ledger

import "time"

const (
	// tombstoneTime is how long the record of a removed instance is kept, and emptyTombstoneTime that of one of which
	// nothing was ever seen in Vault: only long enough to stop a run that looked at it just before.
	tombstoneTime      = 30 * 24 * time.Hour
	emptyTombstoneTime = time.Hour
)

// Write is one change of a record.
type Write struct {
	// Old is the record as it was read; nil when there was none. The write is made only if nothing changed since.
	Old *Record
	// New is what the record becomes. Version, write ID and lease are the ledger's to set.
	New Record
	// Owner is who writes: only whoever holds the lease, or finds it free or run out, may.
	Owner string
	// KeepLease takes or prolongs the lease; else the write gives it back.
	KeepLease bool
	// Claims are taken in the same transaction, all or none. With Release they are at most grant.MaxClaims.
	Claims []Name
	// Release are given up in the same transaction, as far as they are the instance's own.
	Release []Name
}

// Becomes is the record as the write leaves it at a time, but for its write ID.
func (w Write) Becomes(now time.Time) Record {
	r := w.New
	r.Version, r.UpdatedAt = 1, now
	if w.Old != nil {
		r.Version = w.Old.Version + 1
		r.CreatedAt = w.Old.CreatedAt
	}
	if r.CreatedAt.IsZero() {
		r.CreatedAt = now
	}
	r.LeaseOwner, r.LeaseExpiresAt = "", 0
	if w.KeepLease {
		r.LeaseOwner, r.LeaseExpiresAt = w.Owner, now.Add(LeaseTime).UnixMilli()
	}
	r.ExpiresAt, r.DeletedAt = 0, nil
	if r.State == Deleted {
		r.DeletedAt = &now
		r.ExpiresAt = now.Add(kept(w)).Unix()
		for _, n := range r.Former { // what says until when a name is held stays as long
			r.ExpiresAt = max(r.ExpiresAt, n.Until.Unix())
		}
	}
	return r
}

// kept is how long the tombstone that w writes stands. What had objects, by a grant or as strays of a lost record, may have
// tokens; and the mark of a leaving instance must outlast a lifecycle hook's two days.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/lifecycle-hooks-overview.html
func kept(w Write) time.Duration {
	granted := w.New.Profile != "" || len(w.New.FormerRoleIDs) > 0 || w.Old != nil && len(w.Old.Objects) > 0
	if granted || w.New.LeavingSince != nil {
		return tombstoneTime
	}
	return emptyTombstoneTime
}
