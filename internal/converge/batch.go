package converge

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ownership"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// Records reads the records of many instances at once.
type Records interface {
	// GetSome returns the records; nil for an instance that has none. A missing instance is unknown.
	GetSome(ctx context.Context, instanceIDs []string) (map[string]*ledger.Record, error)
}

// momentTime is how long a batch remembers what it asked Vault, and how old its records are without doubt. A batch of 50 takes about as
// long.
const momentTime = 2 * time.Second

// Batch is what the requests of one batch share: their records, read at once, the number of first grants among them, and what Vault
// answered to one of them about them all. A nil batch knows nothing, and each run asks for itself. It is safe for concurrent use.
type Batch struct {
	converger *Converger
	readAt    time.Time                // when the records were asked for
	lists     recent[map[string]bool]  // by folder
	mounts    recent[vault.LoginMount] // by auth mount

	mu      sync.Mutex
	records map[string]*ledger.Record // not used yet
	firsts  int                       // first grants that have not begun
}

// Begin begins a batch by the sightings of its instances. It reads the records of those that may get a grant, or lose one because they
// have ended, as far as they are the function's duties. What is not read here, or fails, each run reads for itself.
func (c *Converger) Begin(ctx context.Context, seen map[facts.Ref]instance.Sighting) *Batch {
	b := &Batch{converger: c, readAt: c.Now().Round(0)}
	if c.Records == nil {
		return b
	}
	ids := map[string]bool{} // whether a grant may be made; the same ID may come from two places
	for ref, s := range seen {
		if mayGrant := c.Duties.Make && c.mayGrant(s); mayGrant || (c.Duties.Remove && hasEnded(s)) {
			ids[ref.ID] = ids[ref.ID] || mayGrant
		}
	}
	if len(ids) < 2 {
		return b
	}
	b.records, _ = c.Records.GetSome(ctx, slices.Collect(maps.Keys(ids)))
	for id, r := range b.records {
		if ids[id] && !holds(r) {
			b.firsts++
		}
	}
	return b
}

// hasEnded reports whether EC2 shows an instance as ended or ending, or does not show it any more.
func hasEnded(s instance.Sighting) bool {
	return s.Err == nil && (!s.Found || s.Facts.State.IsEnding())
}

// mayGrant reports whether a sighting may lead to a grant. It returns a panic as false: it is that of one instance, whose own run
// reports it.
func (c *Converger) mayGrant(s instance.Sighting) (may bool) {
	defer func() {
		if recover() != nil {
			may = false
		}
	}()
	if !s.Found || s.Err != nil || !s.Facts.State.IsLive() {
		return false
	}
	profile, err := c.Profiles.Match(s.Facts)
	return profile != nil && err == nil
}

// take returns the record of an instance as it was read for the batch, once: a later read wants a later state. ok is false if it is
// unknown, old, or under a lease, which may have been returned since.
func (b *Batch) take(id string) (r *ledger.Record, ok bool) {
	if b == nil {
		return nil, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok = b.records[id]
	delete(b.records, id)
	if b.age() > MaxFactsAge || (r != nil && r.LeaseOwner != "") {
		return nil, false
	}
	return r, ok
}

// takeToRemove returns the record of an ending instance as it was read for the batch, if its removal begins with a write: the ledger then
// requires that the record has not changed. Every other record is to be read.
func (b *Batch) takeToRemove(req Request) (r *ledger.Record, ok bool) {
	r, ok = b.take(req.ID)
	if !ok || r == nil || r.State == ledger.Deleted || r.QuietUntil != nil || r.Place() != req.Place {
		return nil, false
	}
	return r, true
}

// age returns how long ago the records were asked for.
func (b *Batch) age() time.Duration { return b.converger.Now().Round(0).Sub(b.readAt) }

// beginFirst returns the number of first grants that have not begun, this one included, and counts it as begun.
func (b *Batch) beginFirst() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := max(b.firsts, 1)
	b.firsts = n - 1
	return n
}

// recordOf returns the record of the request's instance; nil if there is none. isOld reports whether it was read for the batch, and not
// a moment ago. A write by an old record is safe: the ledger requires that the record has not changed. A decision to write nothing is
// not.
func (c *Converger) recordOf(ctx context.Context, req Request) (r *ledger.Record, isOld bool, err error) {
	if r, ok := req.Batch.take(req.ID); ok {
		return r, req.Batch.age() > momentTime, nil
	}
	r, err = c.Ledger.Get(ctx, req.ID)
	return r, false, err
}

// loginMount returns the settings of an auth mount by which tokens are cut. Settings that could not be read are not remembered.
func (b *Batch) loginMount(ctx context.Context, cutter Cutter, authMount string) (vault.LoginMount, error) {
	if b == nil {
		return cutter.LoginMount(ctx, authMount)
	}
	a, err := b.mounts.get(ctx, authMount, b.converger.Now(), func(ctx context.Context) (vault.LoginMount, time.Duration, error) {
		m, err := cutter.LoginMount(ctx, authMount)
		if err != nil || m.ConfigErr != nil {
			return m, 0, err
		}
		return m, momentTime, nil
	})
	return a.value, err
}

// readGrant fills in the data of the objects at a grant's paths. For a first grant, lists of the batch show most of them to be absent.
func (c *Converger) readGrant(ctx context.Context, req Request, old *ledger.Record, objects []ownership.Object) error {
	if c.Lists == nil || req.Batch == nil || holds(old) || MayLag(old, c.Now()) {
		return c.readAll(ctx, objects)
	}
	looks := req.Batch.beginFirst()
	return forEach(ctx, objects, func(ctx context.Context, o *ownership.Object) error {
		switch o.Kind {
		case grant.KindPolicy, grant.KindPKIRole, grant.KindSSHRole, grant.KindAuthRole:
			if req.Batch.lacks(ctx, o.Path, looks) {
				return nil
			}
		case grant.KindGeneric: // an engine may list other names than it reads
		}
		return c.read(ctx, o)
	})
}
