// Package ledgertest has the ledger's table in memory, for tests with a fault at each call and for tests with millions of
// steps. A test of infra/lab compares it with the ledger on DynamoDB.
package ledgertest

import (
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Table has the items of a ledger. It is not safe for concurrent use.
type Table struct {
	Records map[string]ledger.Record // by instance ID
	Claims  map[ledger.Name]ledger.Claim
}

// Put does the same as ledger.Ledger.Put, and fails with the same errors.
func (t Table) Put(w ledger.Write, now time.Time) (*ledger.Record, error) {
	r := w.Becomes(now)
	old, exists := t.Records[r.InstanceID]
	isLeased := old.LeaseOwner != "" && old.LeaseOwner != w.Owner && old.LeaseExpiresAt >= now.UnixMilli()
	asRead := exists == (w.Old != nil) && (!exists || old.Version == w.Old.Version)
	if !asRead || isLeased {
		return nil, fault.New(fault.Retry, ledger.ErrChanged)
	}
	for _, n := range w.Claims {
		if c, held := t.Claims[n]; held && c.InstanceID != r.InstanceID {
			return nil, &ledger.ClaimedError{Name: n}
		}
	}
	for _, n := range w.Claims {
		t.Claims[n] = ledger.Claim{InstanceID: r.InstanceID, Account: r.Account, Region: r.Region}
	}
	for _, n := range w.Release {
		if t.Claims[n].InstanceID == r.InstanceID {
			delete(t.Claims, n)
		}
	}
	r.Objects = slices.Clone(r.Objects)
	t.Records[r.InstanceID] = r
	r.Objects = slices.Clone(r.Objects)
	return &r, nil
}
