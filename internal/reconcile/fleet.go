package reconcile

import (
	"context"
	"maps"
	"slices"
	"unique"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// fleet is what Vault and the ledger hold. Of the records only a stretch of limit instances, in the order of their IDs,
// is kept in full, so that memory is bounded however large the fleet: the next stretch is another pass.
type fleet struct {
	names  *names
	claims map[ledger.Name]string // the holder's instance ID
	// recorded says where every instance is that has a record and no tombstone.
	recorded map[string]facts.Place
	// records are those of the stretch, and the tombstones of instances that Vault still lists something of.
	records map[string]*ledger.Record

	after, upTo string // the stretch: past after, up to and with upTo; empty for no bound
	limit       int
}

// scan reads the ledger, after Vault's lists: a record is written before what it names is made.
func (r *Reconciler) scan(ctx context.Context, n *names, after string, limit int) (*fleet, error) {
	f := &fleet{
		names: n, claims: map[ledger.Name]string{}, recorded: map[string]facts.Place{}, records: map[string]*ledger.Record{},
		after: after, limit: limit,
	}
	err := r.Ledger.Scan(ctx, ledger.Visitor{
		Record: f.take,
		// There are several claims for each instance: their texts are kept once.
		Claim: func(name ledger.Name, c ledger.Claim) {
			name.Under = unique.Make(name.Under).Value()
			f.claims[name] = unique.Make(c.InstanceID).Value()
		},
	})
	f.trim()
	return f, err
}

func (f *fleet) take(r ledger.Record) {
	id := r.InstanceID
	if r.State == ledger.Deleted {
		f.names.leftBy(id, r.FormerRoleIDs)
		if len(f.names.paths[id])+len(f.names.litter[id])+len(r.Revoking)+len(r.Names()) == 0 {
			return
		}
	} else {
		f.recorded[id] = facts.Place{Account: r.Account, Region: r.Region}
	}
	if !f.has(id) {
		return
	}
	f.records[id] = &r
	if len(f.records) > 2*f.limit {
		f.trim()
	}
}

// has tells whether an instance is in the stretch.
func (f *fleet) has(id string) bool { return id > f.after && (f.upTo == "" || id <= f.upTo) }

// trim ends the stretch at its limit.
func (f *fleet) trim() {
	if len(f.records) <= f.limit {
		return
	}
	ids := slices.Sorted(maps.Keys(f.records))
	f.upTo = ids[f.limit-1]
	for _, id := range ids[f.limit:] {
		delete(f.records, id)
	}
}

// ids are the instances of the stretch that Vault or the ledger knows, sorted.
func (f *fleet) ids() []string {
	all := map[string]bool{}
	for id := range f.records {
		all[id] = true
	}
	for _, m := range []map[string][]string{f.names.paths, f.names.litter} {
		for id := range m {
			if f.has(id) {
				all[id] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(all))
}
