package handler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/autoscaling"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// groupLag is how long after a hook's event Auto Scaling's answers may still be older than the event.
const groupLag = converge.Grace

// Groups is Auto Scaling, which holds instances back by lifecycle hooks.
type Groups interface {
	// States returns the state of each instance in its group.
	States(ctx context.Context, refs []facts.Ref) map[facts.Ref]autoscaling.GroupState
	// Complete ends a wait, and Prolong prolongs it; both succeed for a wait that is over.
	Complete(ctx context.Context, r facts.Ref, h event.Hook, result autoscaling.Result) error
	Prolong(ctx context.Context, r facts.Ref, h event.Hook) error
}

// Hooks are the lifecycle hooks that a function answers.
type Hooks struct {
	Groups Groups // nil: all hooks are ignored
	// Duties are the function's. Make answers the hooks of launching instances, Remove those of terminating instances.
	Duties converge.Duties
	// Prefix begins the names of the hooks that this deployment answers.
	Prefix string
	// NameWait is how long after a launch hook's event its instance waits for a name that a live instance holds.
	NameWait time.Duration
	// ContinueOnRefusal lets a launching instance without an identity into service.
	ContinueOnRefusal bool
}

// check returns an error that wraps event.ErrIgnored for a hook that this function does not answer; nil for no hook.
func (h Hooks) check(hook *event.Hook) error {
	switch {
	case hook == nil:
		return nil
	case h.Groups == nil, hook.Terminating && !h.Duties.Remove, !hook.Terminating && !h.Duties.Make:
		return fault.New(fault.Refuse, fmt.Errorf("the lifecycle hook %q is another function's to answer: %w", hook.Name, event.ErrIgnored))
	case !strings.HasPrefix(hook.Name, h.Prefix):
		return fault.New(fault.Refuse, fmt.Errorf("the lifecycle hook %q does not begin with %q: %w", hook.Name, h.Prefix, event.ErrIgnored))
	}
	return nil
}

// beforeConverge returns the tasks of a batch's events, and an error for each instance whose state in its group could not
// be confirmed. It sets Leaving on each task whose instance Auto Scaling itself shows as terminating, and Volume on one whose
// root volume is replaced: EC2 still shows such an instance as running, and an event alone ends nothing.
func (inv *invocation) beforeConverge(ctx context.Context, latest map[facts.Ref]event.Event) (tasks map[facts.Ref]task, unconfirmed map[facts.Ref]error) {
	tasks, unconfirmed = make(map[facts.Ref]task, len(latest)), map[facts.Ref]error{}
	var ending []facts.Ref
	for ref, e := range latest {
		t := task{Request: converge.RequestOf(e), hook: e.Hook}
		if e.Hook != nil && !e.Hook.Terminating {
			t.AwaitNames = e.Hook.At.Add(inv.Hooks.NameWait)
		}
		tasks[ref] = t
		if e.Hook != nil && e.Hook.Terminating && !e.Hook.Returns {
			ending = append(ending, ref)
		}
	}
	if len(ending) == 0 {
		return tasks, nil
	}
	for ref, state := range inv.Hooks.Groups.States(ctx, ending) {
		t := tasks[ref]
		switch {
		case state.Err != nil:
			unconfirmed[ref] = state.Err
		case state.Terminating():
			t.Leaving = true
			tasks[ref] = t
		case state.ReplacingVolume():
			t.Volume, t.At = converge.VolumeReplacing, t.hook.At
			tasks[ref] = t
		case t.hook.ReplacesVolume:
			t.Volume, t.At = converge.VolumeReplaced, t.hook.At
			tasks[ref] = t
		case state.State != "" && inv.Now().Sub(t.hook.At) < groupLag:
			unconfirmed[ref] = fault.Retryf("instance %s is terminating by the event of hook %s, but Auto Scaling still shows it as %s", ref.ID, t.hook.Name, state.State)
		}
	}
	return tasks, unconfirmed
}

// afterConverge answers the lifecycle hook of an event with the result of its instance: the wait ends, or goes on while
// the work is to be tried again. It returns the record's own result; r itself for an event without a hook.
func (inv *invocation) afterConverge(ctx context.Context, e event.Event, r result) result {
	if e.Hook == nil {
		return r
	}
	log := inv.logOf(e.Ref).With(observe.KeyGroup, e.Hook.Group, observe.KeyHook, e.Hook.Name)
	if r.err == nil && r.outcome.Action == converge.Unmatched && !e.Hook.Terminating && inv.Now().Sub(e.Hook.At) < converge.LateTime {
		r.err = fault.Retryf("no profile fits instance %s, which hook %s of group %s holds back: tried again, since tags may come late; the closest is %s", e.ID, e.Hook.Name, e.Hook.Group, closestOf(r.outcome))
		log.InfoContext(ctx, "no profile fits this instance yet", observe.KeyError, r.err)
	}
	outcome, decided := inv.Hooks.resultOf(*e.Hook, r)
	if !decided && r.err == nil && r.outcome.Action == converge.InQuarantine {
		log.WarnContext(ctx, "this instance is in quarantine: its lifecycle hook ends by its own default result")
		return r
	}
	if !decided && r.err == nil {
		log.WarnContext(ctx, "no profile fits this instance: its lifecycle hook ends by its own default result", observe.KeyError, "the closest is "+closestOf(r.outcome))
		return r
	}
	if !decided {
		if err := inv.Hooks.Groups.Prolong(ctx, e.Ref, *e.Hook); err != nil {
			log.WarnContext(ctx, "the lifecycle hook's wait could not be prolonged", observe.KeyError, err)
		}
		return r
	}
	if err := inv.Hooks.Groups.Complete(ctx, e.Ref, *e.Hook, outcome); err != nil {
		log.ErrorContext(ctx, "the lifecycle hook could not be completed", observe.KeyKind, fault.KindOf(err).String(), observe.KeyError, err)
		switch {
		case fault.KindOf(err) == fault.Retry: // also for a refused instance: the wait would go on to its end
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
	inv.metrics.Count(metric)
	log.Log(ctx, level, "lifecycle hook completed", observe.KeyResult, string(outcome))
	return r
}

// resultOf returns the result with which a hook is completed. decided is false if the instance is tried again, or if the
// hook's own default result decides.
func (h Hooks) resultOf(hook event.Hook, r result) (outcome autoscaling.Result, decided bool) {
	switch {
	case errors.Is(r.err, converge.ErrUnfinished), errors.Is(r.err, converge.ErrReplacing):
		return autoscaling.Continue, true // removed, and every token cut; or nothing to remove
	case r.err != nil && fault.KindOf(r.err) == fault.Retry:
		return "", false
	case hook.Terminating:
		return autoscaling.Continue, true // keeping the instance alive does not mend a failed removal
	case r.err == nil && (r.outcome.Action == converge.Provisioned || r.outcome.Action == converge.Unchanged):
		return autoscaling.Continue, true
	case r.err == nil && r.outcome.Action == converge.TornDown:
		return autoscaling.Continue, true // a torn-down deployment holds no instance back
	case r.err == nil && r.outcome.Action == converge.InQuarantine:
		return "", false // it must not serve, and ending it would end the evidence: the owner of the hook chose its default result
	case h.ContinueOnRefusal:
		return autoscaling.Continue, true
	case r.err == nil && r.outcome.Action == converge.Unmatched:
		return "", false // the owner of the hook chose its default result for this
	default:
		return autoscaling.Abandon, true
	}
}

// closestOf returns the profile that comes closest to an instance which no profile fits, for a log line.
func closestOf(o converge.Outcome) string {
	if o.Closest == nil {
		return "unknown"
	}
	return o.Closest()
}
