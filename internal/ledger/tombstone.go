package ledger

import "time"

const (
	// tombstoneTime is how long a tombstone is kept: longer than a lifecycle hook holds a terminating instance (2 days) and
	// than a dead-letter queue holds an event (14 days). Without its tombstone an instance can be granted again.
	// https://docs.aws.amazon.com/autoscaling/ec2/userguide/lifecycle-hooks-overview.html
	tombstoneTime = 30 * 24 * time.Hour
	// emptyTombstoneTime is how long the tombstone of an instance without a grant is kept: long enough to stop a run that asked
	// EC2 just before.
	emptyTombstoneTime = time.Hour
)

// setExpiry makes the record of a removed instance a tombstone, and clears the expiry of any other record.
func (r *Record) setExpiry(w Write, now time.Time) {
	r.ExpiresAt, r.DeletedAt = 0, nil
	if r.State != Deleted {
		return
	}
	r.DeletedAt = &now
	if r.LivesInQuarantine() {
		return // without its mark the instance would be granted again
	}
	if len(r.Retained) > 0 {
		return // it is the proof of whose they are, and lasts as long as they do
	}
	r.ExpiresAt = now.Add(w.tombstoneTime()).Unix()
	for _, n := range r.Former { // a former name's end must stay known until then
		r.ExpiresAt = max(r.ExpiresAt, n.Until.Unix())
	}
}

// tombstoneTime returns how long the tombstone that w writes is kept. An instance that had objects, by a grant or as
// untracked objects of a lost record, may have live tokens. The tombstone of a leaving instance must outlast its hook. A quarantine that
// ended stays to be asked about.
func (w Write) tombstoneTime() time.Duration {
	hadObjects := w.New.Profile != "" || len(w.New.FormerRoleIDs) > 0 || (w.Old != nil && len(w.Old.Objects) > 0)
	if hadObjects || w.New.LeavingSince != nil || w.New.Quarantine != nil {
		return tombstoneTime
	}
	return emptyTombstoneTime
}
