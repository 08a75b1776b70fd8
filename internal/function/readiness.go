package function

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/lifecycle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// The values of the readiness tag.
const (
	tagReady   = "ready"
	tagRefused = "refused"
	tagRemoved = "removed"
)

// answerTime is what is kept of an invocation's time for its answer, its metrics and its audit events.
const answerTime = 5 * time.Second

// Tagger tags instances.
type Tagger interface {
	// Tag gives instances of a place the same tag. There is one error for each that it could not be given to; one of kind
	// fault.Retry may pass.
	Tag(ctx context.Context, p instance.Place, ids []string, key, value string) map[string]error
}

// Readiness shows instances by a tag of their own whether their identity stands: what waits for it on the instance asks
// the metadata service, and not Vault. Nothing is decided by the tag.
type Readiness struct {
	Tagger Tagger
	Key    string // empty: no instance is tagged
}

// sign is one value for the instances of one place.
type sign struct {
	place instance.Place
	value string
}

// signs are what an invocation has to show, those of a place and value by one call, since EC2 allows few writes a second.
type signs struct {
	mu  sync.Mutex
	all map[sign][]string
}

// note keeps what an instance should show of what became of it.
func (v *invocation) note(t event.Trigger, s instance.Sighting, r result) {
	if v.Readiness.Key == "" {
		return
	}
	value := r.sign(t, s, v.Readiness.Key)
	if value == "" {
		return
	}
	v.signs.mu.Lock()
	defer v.signs.mu.Unlock()
	if v.signs.all == nil {
		v.signs.all = map[sign][]string{}
	}
	k := sign{place: instance.Place{Account: t.Account, Region: t.Region}, value: value}
	v.signs.all[k] = append(v.signs.all[k], t.InstanceID)
}

// show tags the instances. It gives the errors of those that should be tried again; all others are told, and left.
func (v *invocation) show(ctx context.Context) map[instance.Ref]error {
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-answerTime))
		defer cancel()
	}
	again := map[instance.Ref]error{}
	for s, ids := range v.signs.all {
		slices.Sort(ids)
		for id, err := range v.Readiness.Tagger.Tag(ctx, s.place, ids, v.Readiness.Key, s.value) {
			v.metrics.Count(observe.TagFailed)
			v.log.ErrorContext(ctx, "the instance could not be tagged with what became of it", observe.KeyInstance, id, observe.KeyAccount, s.place.Account,
				observe.KeyRegion, s.place.Region, observe.KeyKind, fault.KindOf(err).String(), observe.KeyError, err)
			if fault.KindOf(err) == fault.Retry {
				again[instance.Ref{ID: id, Account: s.place.Account, Region: s.place.Region}] = err
			}
		}
	}
	return again
}

// sign is the value that an instance should show and does not; empty for none. A refusal is shown where nothing is yet, and
// not to one that was granted something before, which it keeps.
func (r result) sign(t event.Trigger, s instance.Sighting, key string) string {
	if s.Err != nil || !s.Found || s.Facts.State != facts.Pending && s.Facts.State != facts.Running {
		return ""
	}
	o := r.outcome
	shown, tagged := s.Facts.Tags[key]
	value := ""
	switch {
	case !o.CutAt.IsZero(), r.err == nil && t.Leaving, errors.Is(r.err, lifecycle.ErrSettling):
		if tagged {
			value = tagRemoved
		}
	case r.err != nil && fault.KindOf(r.err) != fault.Retry:
		if !tagged && !o.Holds {
			value = tagRefused
		}
	case r.err == nil && (o.Action == lifecycle.Provisioned || o.Action == lifecycle.Unchanged && o.Profile != ""):
		value = tagReady
	}
	if value == shown {
		return ""
	}
	return value
}
