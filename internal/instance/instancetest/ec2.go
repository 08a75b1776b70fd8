// Package instancetest is EC2 in memory, for tests with faults at every call and with millions of steps. A test of infra/lab
// compares its answers with those of instance.Lookup.
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

// EC2 answers as instance.Lookup does. It is not safe for concurrent use, unless Do makes it so.
type EC2 struct {
	Own       string                    // the function's own account
	Instances map[string]facts.Instance // by ID
	// Seen returns what Look shows of an instance where EC2 lags behind Instances; nil where it does not.
	Seen func(id string) (f facts.Instance, found bool)
	// RoleAge is how old the roles of a look are: instance.Lookup remembers them for a while.
	RoleAge time.Duration
	Now     func() time.Time
	// Do is asked to make each call, of a kind and about an instance or a region: effect is what the call does to the answer.
	// Its error is the call's. nil makes the calls as they come.
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

// sighting returns an instance as a look shows it: a terminated one without its instance profile, and the role of one that is
// pending or running only.
func (e EC2) sighting(f facts.Instance) instance.Sighting {
	f.ObservedAt, f.RoleObservedAt = e.Now(), e.Now().Add(-e.RoleAge)
	if f.State == facts.Terminated {
		f.IAMInstanceProfileARN = ""
	}
	if f.State != facts.Pending && f.State != facts.Running || f.IAMInstanceProfileARN == "" {
		f.IAMRoleARN, f.RoleObservedAt = "", time.Time{}
	}
	return instance.Sighting{Found: true, Facts: f}
}

// List shows the instances of a place to each, page by page in the order of their IDs; with IDs, only those. Each page is a
// call.
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

// Look shows instances, each in a call of its own.
func (e EC2) Look(_ context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	out := map[facts.Ref]instance.Sighting{}
	for _, r := range slices.SortedFunc(slices.Values(refs), func(a, b facts.Ref) int { return strings.Compare(a.ID, b.ID) }) {
		err := e.do("look", r.ID, func() error {
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

// RoleNow returns the role in an instance's instance profile; empty for an instance without one. The role in a profile that
// the instance has no more is as it was observed.
func (e EC2) RoleNow(_ context.Context, f facts.Instance) (arn string, err error) {
	if f.IAMInstanceProfileARN == "" {
		return "", nil
	}
	err = e.do("role", f.ID, func() error {
		arn = f.IAMRoleARN
		if now := e.Instances[f.ID]; now.IAMInstanceProfileARN == f.IAMInstanceProfileARN {
			arn = now.IAMRoleARN
		}
		return nil
	})
	return arn, err
}
