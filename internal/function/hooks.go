package function

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/autoscaling"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/lifecycle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

const (
	// standingLag is how long after a hook's event Auto Scaling's answers may still be from before it.
	standingLag = 10 * time.Minute
	// tagsLate is how long after a launch hook's event the tags may come by which a profile fits.
	tagsLate = 5 * time.Minute
	// busyTries and busyPause bound the wait for another run on the same instance to ten seconds.
	busyTries = 20
	busyPause = 500 * time.Millisecond
)

// Groups is Auto Scaling, which holds instances back by lifecycle hooks.
type Groups interface {
	// Stand gives where each instance stands in its group.
	Stand(ctx context.Context, refs []instance.Ref) map[instance.Ref]autoscaling.Standing
	// Complete ends a wait, and Beat prolongs it; both succeed for one that is over.
	Complete(ctx context.Context, r instance.Ref, h event.Hook, result autoscaling.Result) error
	Beat(ctx context.Context, r instance.Ref, h event.Hook) error
}

// Hooks are the lifecycle hooks that a function answers.
type Hooks struct {
	Groups Groups // nil: all hooks are ignored
	// Duties are the function's: whoever makes grants answers for launching instances, and whoever removes them for
	// terminating ones.
	Duties lifecycle.Duties
	// Prefix begins the names of the hooks that are this deployment's to answer.
	Prefix string
	// ContinueOnRefusal lets a launching instance into service that gets no identity.
	ContinueOnRefusal bool
}

// ours drops the hooks of others from a record: they are ignored.
func (h Hooks) ours(r event.Record) event.Record {
	hook := r.Trigger.Hook
	if r.Err != nil || hook == nil {
		return r
	}
	switch {
	case h.Groups == nil, hook.Terminating && !h.Duties.Remove, !hook.Terminating && !h.Duties.Make:
		r.Err = fmt.Errorf("the lifecycle hook %q is another function's to answer: %w", hook.Name, event.ErrIgnored)
	case !strings.HasPrefix(hook.Name, h.Prefix):
		r.Err = fmt.Errorf("the lifecycle hook %q does not begin with %q: %w", hook.Name, h.Prefix, event.ErrIgnored)
	}
	r.Err = fault.New(fault.Refuse, r.Err)
	return r
}

// leave finds out which of the terminating instances Auto Scaling itself shows so: EC2 shows them as running still, and an
// event alone ends nothing. It gives the triggers that may go on and notes an error for the others.
func (v *invocation) leave(ctx context.Context, latest map[instance.Ref]event.Trigger) map[instance.Ref]error {
	var refs []instance.Ref
	for ref, t := range latest {
		if t.Hook != nil && t.Hook.Terminating && !t.Hook.Returns {
			refs = append(refs, ref)
		}
	}
	if len(refs) == 0 {
		return nil
	}
	unknown := map[instance.Ref]error{}
	for ref, standing := range v.Hooks.Groups.Stand(ctx, refs) {
		t := latest[ref]
		switch {
		case standing.Err != nil:
			unknown[ref] = standing.Err
		case standing.Terminating():
			t.Leaving = true
			latest[ref] = t
		case standing.State != "" && v.Now().Sub(t.Time) < standingLag:
			unknown[ref] = fault.Retryf("instance %s is terminating by the event of hook %s, but Auto Scaling still shows it as %s", ref.ID, t.Hook.Name, standing.State)
		}
	}
	return unknown
}

// patiently converges an instance. While a hook holds it back, a run that is at work on it, for its state change, is waited
// for: from the queue the event would come again only after minutes.
func (v *invocation) patiently(ctx context.Context, t event.Trigger, s instance.Sighting) (lifecycle.Outcome, error) {
	for tries := 0; ; tries++ {
		outcome, err := v.safely(ctx, t, s)
		if t.Hook == nil || !errors.Is(err, ledger.ErrChanged) || tries == busyTries {
			return outcome, err
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return outcome, err
		}
	}
}

// answerHook tells Auto Scaling what became of the instance it holds back: the wait ends, or goes on while the work is to
// be tried again. It gives the record's own result.
func (v *invocation) answerHook(ctx context.Context, t event.Trigger, r result) result {
	ref := instance.Ref{ID: t.InstanceID, Account: t.Account, Region: t.Region}
	log := v.log.With(observe.KeyInstance, t.InstanceID, observe.KeyAccount, t.Account, observe.KeyRegion, t.Region, observe.KeyGroup, t.Hook.Group, observe.KeyHook, t.Hook.Name)
	if r.err == nil && r.outcome.Action == lifecycle.Unmatched && !t.Hook.Terminating && v.Now().Sub(t.Time) < tagsLate {
		r.err = fault.Retryf("no profile fits instance %s, which hook %s of group %s holds back: it is looked at again, for tags that come late", t.InstanceID, t.Hook.Name, t.Hook.Group)
		log.InfoContext(ctx, "no profile fits this instance yet", observe.KeyError, r.err)
	}
	outcome, decided := v.hookResult(*t.Hook, r)
	if !decided && r.err == nil {
		log.WarnContext(ctx, "no profile fits this instance: its lifecycle hook is left to end by its own default result")
		return r
	}
	if !decided {
		if err := v.Hooks.Groups.Beat(ctx, ref, *t.Hook); err != nil {
			log.WarnContext(ctx, "the lifecycle hook's wait could not be prolonged", observe.KeyError, err)
		}
		return r
	}
	if err := v.Hooks.Groups.Complete(ctx, ref, *t.Hook, outcome); err != nil {
		log.ErrorContext(ctx, "the lifecycle hook could not be completed", observe.KeyKind, fault.KindOf(err).String(), observe.KeyError, err)
		switch {
		case fault.KindOf(err) == fault.Retry: // also for one that is refused: the wait would go on to its end
			r.err = fault.New(fault.Retry, errors.Join(r.err, err))
		case r.err == nil:
			r.err = err
		}
		return r
	}
	level, metric := slog.LevelInfo, observe.HookContinued
	if outcome == autoscaling.Abandon {
		level, metric = slog.LevelWarn, observe.HookAbandoned
	}
	v.metrics.Count(metric)
	log.Log(ctx, level, "lifecycle hook completed", observe.KeyResult, string(outcome))
	return r
}

// hookResult is how the wait ends by what became of the instance; decided is false while that is open, and where it is not
// for this program to say.
func (v *invocation) hookResult(h event.Hook, r result) (outcome autoscaling.Result, decided bool) {
	switch {
	case errors.Is(r.err, lifecycle.ErrSettling):
		return autoscaling.Continue, true // removed, and every token cut
	case r.err != nil && fault.KindOf(r.err) == fault.Retry:
		return "", false
	case h.Terminating:
		return autoscaling.Continue, true // what could not be removed does not get better by the instance living on
	case r.err == nil && (r.outcome.Action == lifecycle.Provisioned || r.outcome.Action == lifecycle.Unchanged):
		return autoscaling.Continue, true
	case r.err == nil && r.outcome.Action == lifecycle.TornDown:
		return autoscaling.Continue, true // a deployment that was given up holds nobody back
	case v.Hooks.ContinueOnRefusal:
		return autoscaling.Continue, true
	case r.err == nil && r.outcome.Action == lifecycle.Unmatched:
		return "", false // no profile of ours fits: whoever made the hook said by its default result what then happens
	default:
		return autoscaling.Abandon, true
	}
}
