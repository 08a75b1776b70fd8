package converge

import (
	"context"
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

// momentTime is how long a batch remembers what it asked Vault. A batch of 50 takes about as long.
const momentTime = 2 * time.Second

// Batch is what the requests of one batch share: their records, read at once, the number of first grants among them, and what Vault
// answered to one of them about them all. A nil batch knows nothing, and each run asks for itself. It is safe for concurrent use.
type Batch struct {
	converger *Converger
	lists     recent[map[string]bool]  // by folder
	mounts    recent[vault.LoginMount] // by auth mount
	readAt    time.Time
	isRead    chan struct{} // closed when records are read

	mu      sync.Mutex
	records map[string]*ledger.Record // not used yet
	firsts  int                       // first grants that have not begun
}

// Begin begins to read the records of the instances of a batch, and returns at once. Only a function that makes grants reads them: a
// removal judges its record as it is in that moment.
func (c *Converger) Begin(ctx context.Context, refs []facts.Ref) *Batch {
	b := &Batch{converger: c, readAt: c.Now().Round(0), isRead: make(chan struct{})}
	if c.Records == nil || !c.Duties.Make || len(refs) == 0 {
		close(b.isRead)
		return b
	}
	seen := map[string]bool{} // the same ID may come from two places
	var ids []string
	for _, r := range refs {
		if !seen[r.ID] {
			seen[r.ID] = true
			ids = append(ids, r.ID)
		}
	}
	go func() {
		defer close(b.isRead)
		b.records, _ = c.Records.GetSome(ctx, ids) // whatever is missing is read alone, with its own error
	}()
	return b
}

// Expect counts the first grants among sightings of the batch's instances.
func (b *Batch) Expect(seen map[facts.Ref]instance.Sighting) {
	if b == nil {
		return
	}
	<-b.isRead
	b.mu.Lock()
	defer b.mu.Unlock()
	for ref, s := range seen {
		r, isRead := b.records[ref.ID]
		lives := s.Found && (s.Facts.State == facts.Pending || s.Facts.State == facts.Running)
		if !isRead || holds(r) || s.Err != nil || !lives {
			continue
		}
		if profile, err := b.converger.Profiles.Match(s.Facts); profile != nil && err == nil {
			b.firsts++
		}
	}
}

// take returns the record of an instance as it was read for the batch, once: a later read wants a later state. ok is false if it is
// unknown, old, or under a lease, which may have been returned since.
func (b *Batch) take(id string) (r *ledger.Record, ok bool) {
	if b == nil {
		return nil, false
	}
	<-b.isRead
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok = b.records[id]
	delete(b.records, id)
	isOld := b.converger.Now().Round(0).Sub(b.readAt) > MaxFactsAge
	if isOld || (r != nil && r.LeaseOwner != "") {
		return nil, false
	}
	return r, ok
}

// beginFirst returns the number of first grants that have not begun, this one included, and counts it as begun.
func (b *Batch) beginFirst() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := max(b.firsts, 1)
	b.firsts = n - 1
	return n
}

// recordOf returns the record of the request's instance; nil if there is none. A record of the batch may be older than the facts: each
// write requires that it has not changed.
func (c *Converger) recordOf(ctx context.Context, req Request) (*ledger.Record, error) {
	if r, ok := req.Batch.take(req.ID); ok {
		return r, nil
	}
	return c.Ledger.Get(ctx, req.ID)
}

// loginMount returns the settings of an auth mount by which tokens are cut. Settings that could not be read are not remembered.
func (b *Batch) loginMount(ctx context.Context, cutter Cutter, authMount string) (vault.LoginMount, error) {
	if b == nil {
		return cutter.LoginMount(ctx, authMount)
	}
	ctx = context.WithoutCancel(ctx) // as in lacks
	a, err := b.mounts.get(authMount, b.converger.Now(), func() (vault.LoginMount, time.Duration, error) {
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
		case grant.KindPolicy, grant.KindPKIRole, grant.KindAuthRole:
			if req.Batch.lacks(ctx, o.Path, looks) {
				return nil
			}
		case grant.KindGeneric: // an engine may list other names than it reads
		}
		return c.read(ctx, o)
	})
}
