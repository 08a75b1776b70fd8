package handler

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// The values of the readiness tag.
const (
	tagReady   = "ready"
	tagRefused = "refused"
	tagRemoved = "removed"
)

// tagReserve is the part of an invocation's time that tagging leaves for the answer, the metrics and the audit events.
const tagReserve = audit.Reserve + time.Second

// Tagger tags instances.
type Tagger interface {
	// Tag sets the same tag on instances of one place. It returns one error for each instance left without it, of kind
	// fault.Retry if a retry may succeed.
	Tag(ctx context.Context, p facts.Place, ids []string, key, value string) map[string]error
}

// Readiness shows by a tag on each instance whether its identity exists. Software on the instance that waits for the identity
// asks the metadata service, and not Vault. The functions decide nothing by the tag.
type Readiness struct {
	Tagger Tagger
	Key    string // empty: no instance is tagged
}

// tag is one value for instances of one place.
type tag struct {
	place facts.Place
	value string
}

// pendingTags are the instances that an invocation has to tag. Those with the same place and value share one call, since
// EC2 allows few writes a second.
type pendingTags struct {
	mu  sync.Mutex
	all map[tag][]string
}

// addTag remembers the tag that an instance should show for a result.
func (inv *invocation) addTag(t task, s instance.Sighting, r result) {
	if inv.Readiness.Key == "" {
		return
	}
	value := readinessOf(t, s, r, inv.Readiness.Key)
	if value == "" {
		return
	}
	inv.pending.mu.Lock()
	defer inv.pending.mu.Unlock()
	if inv.pending.all == nil {
		inv.pending.all = map[tag][]string{}
	}
	k := tag{place: t.Place, value: value}
	inv.pending.all[k] = append(inv.pending.all[k], t.ID)
}

// tagInstances sets the pending tags. It logs every failure, and returns those that a retry may mend.
func (inv *invocation) tagInstances(ctx context.Context) map[facts.Ref]error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-tagReserve))
		defer cancel()
	}
	retry := map[facts.Ref]error{}
	for k, ids := range inv.pending.all {
		slices.Sort(ids)
		for id, err := range inv.Readiness.Tagger.Tag(ctx, k.place, ids, inv.Readiness.Key, k.value) {
			ref := facts.Ref{ID: id, Place: k.place}
			inv.metrics.Count(observe.TagFailed)
			inv.logOf(ref).ErrorContext(ctx, "the readiness tag could not be set", observe.KeyKind, fault.KindOf(err).String(), observe.KeyError, err)
			if fault.KindOf(err) == fault.Retry {
				retry[ref] = err
			}
		}
	}
	return retry
}

// readinessOf returns the value to set for a key on an instance; empty if there is none to set, or the instance shows it
// already. A refusal is shown only where no value is yet, and never on an instance that keeps an earlier grant.
func readinessOf(t task, s instance.Sighting, r result, key string) string {
	if (s.Err != nil && !s.LacksRole()) || !s.Found || !s.Facts.State.IsLive() {
		return ""
	}
	o := r.outcome
	shown, tagged := s.Facts.Tags[key]
	value := ""
	switch {
	case !o.CutAt.IsZero(), r.err == nil && (t.Leaving || o.Action == converge.InQuarantine), errors.Is(r.err, converge.ErrUnfinished):
		if tagged {
			value = tagRemoved
		}
	case r.err != nil && fault.KindOf(r.err) != fault.Retry:
		if !tagged && !o.Holds && !s.LacksRole() { // without its role, the instance may belong to anything else
			value = tagRefused
		}
	case r.err == nil && (o.Action == converge.Provisioned || (o.Action == converge.Unchanged && o.Profile != "")):
		value = tagReady
	}
	if value == shown {
		return ""
	}
	return value
}
