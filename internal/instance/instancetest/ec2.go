// Package instancetest has EC2 in memory, for tests with a fault at each call and for tests with millions of steps. A test of
// infra/lab compares its answers with those of instance.Lookup on moto.
package instancetest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// EC2 has the methods of instance.Lookup. It is safe for concurrent use only if Do makes one call at a time.
type EC2 struct {
	Own       string                    // the function's own account
	Instances map[string]facts.Instance // by ID
	// Seen returns what Describe shows of an instance where EC2 lags behind Instances; nil where it does not.
	Seen func(id string) (f facts.Instance, found bool)
	// RoleAge is the age of the roles in a sighting: instance.Lookup caches roles.
	RoleAge time.Duration
	Now     func() time.Time
	// Do makes each call if it is not nil. kind and what name the call, effect sets the answer, and the error of Do is the error of
	// the call.
	Do func(kind, what string, effect func() error) error
}

func (e EC2) do(kind, what string, effect func() error) error {
	if e.Do == nil {
		return effect()
	}
	return e.Do(kind, what, effect)
}

const pageSize = 10

// Account returns the function's own account.
func (e EC2) Account(context.Context) (string, error) { return e.Own, nil }

// sighting returns the sighting of an instance. A terminated instance has no instance profile, and only a pending or running
// one has a role.
func (e EC2) sighting(f facts.Instance) instance.Sighting {
	f.ObservedAt, f.RoleObservedAt = e.Now(), e.Now().Add(-e.RoleAge)
	if f.State == facts.Terminated {
		f.IAMInstanceProfileARN = ""
	}
	if !f.State.IsLive() || f.IAMInstanceProfileARN == "" {
		f.IAMRoleARN, f.RoleObservedAt = "", time.Time{}
	}
	return instance.Sighting{Found: true, Facts: f}
}

// List calls each with the instances of a place, page by page in the order of their IDs; with IDs, only with those. Each page is
// a call.
func (e EC2) List(_ context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error {
	var all []string
	more := true
	for first := 0; more; first += pageSize {
		var page []instance.Sighting
		err := e.do("list", p.Region, func() error {
			if first == 0 {
				for _, id := range slices.Sorted(maps.Keys(e.Instances)) {
					f := e.Instances[id]
					if f.Account == p.Account && f.Region == p.Region && (len(ids) == 0 || slices.Contains(ids, id)) {
						all = append(all, id)
					}
				}
			}
			last := min(first+pageSize, len(all))
			for _, id := range all[first:last] {
				page = append(page, e.sighting(e.Instances[id]))
			}
			more = last < len(all)
			return nil
		})
		if err == nil {
			err = each(page)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Describe returns one sighting for each ref. It makes one call for each.
func (e EC2) Describe(_ context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	out := map[facts.Ref]instance.Sighting{}
	for _, r := range slices.SortedFunc(slices.Values(refs), func(a, b facts.Ref) int { return strings.Compare(a.ID, b.ID) }) {
		err := e.do("describe", r.ID, func() error {
			f, found := e.Instances[r.ID]
			if e.Seen != nil {
				f, found = e.Seen(r.ID)
			}
			if found && f.Account == r.Account && f.Region == r.Region {
				out[r] = e.sighting(f)
			} else {
				out[r] = instance.Sighting{}
			}
			return nil
		})
		if err != nil {
			out[r] = instance.Sighting{Err: err}
		}
	}
	return out
}

// RoleNow returns f with the role in its instance profile; without a role if f has no profile. If the instance has another profile
// now, the role is as observed.
func (e EC2) RoleNow(_ context.Context, f facts.Instance) (facts.Instance, error) {
	if f.IAMInstanceProfileARN == "" {
		return f, nil
	}
	err := e.do("role", f.ID, func() error {
		if now := e.Instances[f.ID]; now.IAMInstanceProfileARN == f.IAMInstanceProfileARN {
			f.IAMRoleARN = now.IAMRoleARN
		}
		return nil
	})
	return f, err
}
