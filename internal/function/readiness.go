package function

import (
	"context"
	"errors"
	"slices"

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

// Tagger tags instances.
type Tagger interface {
	// Tag gives all instances of a place the same tag. An error of kind fault.Retry may pass.
	Tag(ctx context.Context, p instance.Place, ids []string, key, value string) error
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

// show tags the instances of a batch by what became of them, those of a place and value by one call, since EC2 allows few
// writes a second. It gives the errors of what should be tried again.
func (v *invocation) show(ctx context.Context, sightings map[instance.Ref]instance.Sighting, done map[instance.Ref]result) map[instance.Ref]error {
	if v.Readiness.Key == "" {
		return nil
	}
	signs := map[sign][]string{}
	for ref, r := range done {
		if value := r.sign(sightings[ref], v.Readiness.Key); value != "" {
			s := sign{place: instance.Place{Account: ref.Account, Region: ref.Region}, value: value}
			signs[s] = append(signs[s], ref.ID)
		}
	}
	failed := map[instance.Ref]error{}
	for s, ids := range signs {
		slices.Sort(ids)
		err := v.Readiness.Tagger.Tag(ctx, s.place, ids, v.Readiness.Key, s.value)
		if err == nil {
			continue
		}
		v.log.ErrorContext(ctx, "instances could not be tagged with what became of them", observe.KeyAccount, s.place.Account, observe.KeyRegion, s.place.Region,
			observe.KeyKind, fault.KindOf(err).String(), observe.KeyError, err)
		if fault.KindOf(err) == fault.Retry {
			for _, id := range ids {
				failed[instance.Ref{ID: id, Account: s.place.Account, Region: s.place.Region}] = err
			}
		}
	}
	return failed
}

// sign is the value an instance should show and does not; empty for none. A refusal is shown where nothing is yet: who was
// granted something before keeps it.
func (r result) sign(s instance.Sighting, key string) string {
	if s.Err != nil || !s.Found || s.Facts.State != facts.Pending && s.Facts.State != facts.Running {
		return ""
	}
	shown, tagged := s.Facts.Tags[key]
	value := ""
	switch o := r.outcome; {
	case errors.Is(r.err, lifecycle.ErrSettling), r.err == nil && o.Action == lifecycle.Deprovisioned:
		if tagged {
			value = tagRemoved
		}
	case r.err != nil && fault.KindOf(r.err) != fault.Retry:
		if !tagged {
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
