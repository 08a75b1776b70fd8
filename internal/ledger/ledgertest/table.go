// Package ledgertest has the ledger's table in memory, for tests with a fault at each call and for tests with millions of
// steps. A test of infra/lab compares it with the ledger on DynamoDB.
package ledgertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// Table has the items of a ledger. It is not safe for concurrent use.
type Table struct {
	Records  map[string]ledger.Record // by instance ID
	Claims   map[ledger.Name]ledger.Claim
	Teardown *time.Time // when the teardown began; nil for none
	// Waiters are the instances that wait for a name of a holder, by the holder's ID.
	Waiters map[string][]facts.Ref
}

// New returns an empty table.
func New() *Table {
	return &Table{Records: map[string]ledger.Record{}, Claims: map[ledger.Name]ledger.Claim{}, Waiters: map[string][]facts.Ref{}}
}

// Client has the methods of ledger.Ledger on a table, with the same errors.
type Client struct {
	*Table
	Now func() time.Time
	// Do makes each call if it is not nil. kind and what name the call, effect changes the table and sets the answer, and the
	// error of Do is the error of the call.
	Do func(kind, what string, effect func() error) error
}

func (c Client) do(kind, what string, effect func() error) error {
	if c.Do == nil {
		return effect()
	}
	return c.Do(kind, what, effect)
}

// Get returns the record of an instance, or nil if there is none.
func (c Client) Get(_ context.Context, instanceID string) (out *ledger.Record, err error) {
	err = c.do("get", instanceID, func() error {
		if r, ok := c.Records[instanceID]; ok {
			r.Objects = slices.Clone(r.Objects)
			out = &r
		}
		return nil
	})
	return out, err
}

// GetSome returns the records of instances; nil for an instance that has none.
func (c Client) GetSome(_ context.Context, instanceIDs []string) (out map[string]*ledger.Record, err error) {
	out = map[string]*ledger.Record{}
	err = c.do("get some", strings.Join(instanceIDs, ","), func() error {
		for _, id := range instanceIDs {
			out[id] = nil
			if r, ok := c.Records[id]; ok {
				r.Objects = slices.Clone(r.Objects)
				out[id] = &r
			}
		}
		return nil
	})
	return out, err
}

// Holder returns the claim on a name, or nil if there is none.
func (c Client) Holder(_ context.Context, name ledger.Name) (out *ledger.Claim, err error) {
	err = c.do("holder", name.Under+" "+name.Text, func() error {
		if claim, ok := c.Claims[name]; ok {
			out = &claim
		}
		return nil
	})
	return out, err
}

// Put makes a write and returns the record as written.
func (c Client) Put(_ context.Context, w ledger.Write) (out *ledger.Record, err error) {
	err = c.do("put", fmt.Sprintf("%s %s", w.New.State, w.New.InstanceID), func() error {
		out, err = c.Table.Put(w, c.Now())
		return err
	})
	return out, err
}

// Put does the same as ledger.Ledger.Put, and fails with the same errors.
func (t Table) Put(w ledger.Write, now time.Time) (*ledger.Record, error) {
	w.Release = slices.DeleteFunc(slices.Clone(w.Release), func(n ledger.Name) bool {
		c, held := t.Claims[n]
		return held && c.InstanceID != w.New.InstanceID
	})
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

// AddWaiting remembers that an instance waits for a name of a holder.
func (c Client) AddWaiting(_ context.Context, holder string, r facts.Ref) error {
	return c.do("add waiting", holder, func() error {
		c.Waiters[holder] = ledger.WithWaiting(c.Waiters[holder], r)
		return nil
	})
}

// Waiting returns the instances that wait for a name of a holder.
func (c Client) Waiting(_ context.Context, holder string) (list []facts.Ref, err error) {
	err = c.do("waiting", holder, func() error {
		list = slices.Clone(c.Waiters[holder])
		return nil
	})
	return list, err
}

// Scan calls v for every record, in the order of the instance IDs, and every claim.
func (c Client) Scan(_ context.Context, v ledger.Visitor) error {
	return c.do("scan", "", func() error {
		for _, id := range slices.Sorted(maps.Keys(c.Records)) {
			v.Record(c.Records[id])
		}
		for name, claim := range c.Claims {
			v.Claim(name, claim)
		}
		return nil
	})
}

// ScanFrom calls v for every record behind a key, one to a page and in the order of their keys, and on the first page for every claim.
func (c Client) ScanFrom(_ context.Context, key string, v ledger.Visitor, more func() bool) (next string, err error) {
	next = key
	for _, id := range append(slices.Sorted(maps.Keys(c.Records)), "") {
		if id != "" && ledger.RecordKey(id) <= key {
			continue
		}
		if !more() {
			return next, nil
		}
		if err := c.do("page", id, func() error {
			if next == "" {
				for name, claim := range c.Claims {
					v.Claim(name, claim)
				}
			}
			if id != "" {
				v.Record(c.Records[id])
			}
			return nil
		}); err != nil {
			return next, err
		}
		next = ledger.RecordKey(id)
	}
	return "", nil
}

// TearDown begins the teardown, unless it has begun, and returns when it began.
func (c Client) TearDown(context.Context) (since time.Time, err error) {
	err = c.do("tear down", "", func() error {
		if c.Teardown == nil {
			now := c.Now()
			c.Teardown = &now
		}
		since = *c.Teardown
		return nil
	})
	return since, err
}

// TornDown returns when the teardown began, or nil if there is none.
func (c Client) TornDown(context.Context) (since *time.Time, err error) {
	err = c.do("torn down", "", func() error {
		since = c.Teardown
		return nil
	})
	return since, err
}
