// Package autoscaling completes and prolongs the lifecycle actions of Auto Scaling groups, and reads the states of their
// instances, across accounts and regions. Its caller is internal/handler.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/lifecycle-hooks.html
package autoscaling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/smithy-go"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// Result is the result with which a lifecycle action is completed.
type Result string

// The results. A terminating instance terminates with either; ABANDON also skips the group's other hooks.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CompleteLifecycleAction.html
const (
	Continue Result = "CONTINUE"
	Abandon  Result = "ABANDON"
)

const (
	callTimeout = 10 * time.Second
	// maxDescribed is the maximum number of instances in one call,
	// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeAutoScalingInstances.html
	maxDescribed = 50
)

// calls are the calls of this package, as functions and not clients: docs/decisions/binary-size.md says why.
type calls struct {
	describe func(context.Context, *autoscaling.DescribeAutoScalingInstancesInput, ...func(*autoscaling.Options)) (*autoscaling.DescribeAutoScalingInstancesOutput, error)
	complete func(context.Context, *autoscaling.CompleteLifecycleActionInput, ...func(*autoscaling.Options)) (*autoscaling.CompleteLifecycleActionOutput, error)
	prolong  func(context.Context, *autoscaling.RecordLifecycleActionHeartbeatInput, ...func(*autoscaling.Options)) (*autoscaling.RecordLifecycleActionHeartbeatOutput, error)
}

// Groups calls Auto Scaling. It is safe for concurrent use.
type Groups struct {
	calls *instance.ByPlace[calls]
}

// New makes Groups. It makes no calls.
func New(configs instance.Configs) *Groups {
	return &Groups{calls: instance.NewByPlace(configs, func(config aws.Config) calls {
		c := autoscaling.NewFromConfig(config)
		return calls{describe: c.DescribeAutoScalingInstances, complete: c.CompleteLifecycleAction, prolong: c.RecordLifecycleActionHeartbeat}
	})}
}

// Reader reads the states of instances, and contains no other call of Auto Scaling: docs/decisions/binary-size.md.
type Reader struct{ groups *Groups }

// NewReader makes a Reader. It makes no calls.
func NewReader(configs instance.Configs) Reader {
	return Reader{&Groups{calls: instance.NewByPlace(configs, func(config aws.Config) calls {
		return calls{describe: autoscaling.NewFromConfig(config).DescribeAutoScalingInstances}
	})}}
}

// States does the same as Groups.States.
func (r Reader) States(ctx context.Context, refs []facts.Ref) map[facts.Ref]GroupState {
	return r.groups.States(ctx, refs)
}

// GroupState is an instance's lifecycle state in its group.
type GroupState struct {
	// State is as Auto Scaling names it, for example InService or Terminating:Wait; empty for an instance without a group.
	// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html
	State string
	// Group is the group's name; empty for an instance without a group.
	Group string
	// Err says why the state could not be read.
	Err error
}

// Terminating reports whether the group or its warm pool is terminating the instance, or has terminated it.
func (s GroupState) Terminating() bool {
	state := strings.TrimPrefix(s.State, "Warmed:")
	return state == "Terminated" || strings.HasPrefix(state, "Terminating")
}

// ReplacingVolume reports whether the group is replacing the root volume of the instance, which stays in the group.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/replace-root-volume.html
func (s GroupState) ReplacingVolume() bool {
	return s.State == "RootVolumeReplaced" || strings.HasPrefix(s.State, "ReplacingRootVolume")
}

// States returns the state of each instance in its group. It makes one call for up to 50 instances of an account and region.
func (g *Groups) States(ctx context.Context, refs []facts.Ref) map[facts.Ref]GroupState {
	ids := map[facts.Place][]string{}
	for _, r := range refs {
		p := r.Place
		ids[p] = append(ids[p], r.ID)
	}
	out := make(map[facts.Ref]GroupState, len(refs))
	for p, all := range ids {
		for batch := range slices.Chunk(all, maxDescribed) {
			states, err := g.describe(ctx, p, batch)
			for _, id := range batch {
				state := states[id]
				state.Err = err
				out[facts.Ref{ID: id, Place: p}] = state
			}
		}
	}
	return out
}

// describe returns the state of each instance that belongs to a group, by its ID, in one call.
func (g *Groups) describe(ctx context.Context, p facts.Place, ids []string) (map[string]GroupState, error) {
	c, err := g.calls.At(ctx, p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.describe(ctx, &autoscaling.DescribeAutoScalingInstancesInput{InstanceIds: ids})
	if err != nil {
		return nil, fmt.Errorf("reading the states of %d instances in Auto Scaling of %s: %w", len(ids), p.Name(), err)
	}
	states := map[string]GroupState{}
	for _, i := range answer.AutoScalingInstances {
		states[aws.ToString(i.InstanceId)] = GroupState{State: aws.ToString(i.LifecycleState), Group: aws.ToString(i.AutoScalingGroupName)}
	}
	return states, nil
}

// Complete completes the lifecycle action of a hook. It succeeds if the action is already over: it was completed or timed out,
// or the instance or the group is gone.
func (g *Groups) Complete(ctx context.Context, r facts.Ref, h event.Hook, result Result) error {
	c, err := g.calls.At(ctx, r.Place)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = c.complete(ctx, &autoscaling.CompleteLifecycleActionInput{
		AutoScalingGroupName: &h.Group, LifecycleHookName: &h.Name, LifecycleActionToken: token(h), InstanceId: &r.ID,
		LifecycleActionResult: aws.String(string(result)),
	})
	return unlessOver(err, "completing", r, h)
}

// Prolong restarts the timeout of a hook's lifecycle action. It succeeds, as Complete does, if the action is over.
func (g *Groups) Prolong(ctx context.Context, r facts.Ref, h event.Hook) error {
	c, err := g.calls.At(ctx, r.Place)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = c.prolong(ctx, &autoscaling.RecordLifecycleActionHeartbeatInput{
		AutoScalingGroupName: &h.Group, LifecycleHookName: &h.Name, LifecycleActionToken: token(h), InstanceId: &r.ID,
	})
	return unlessOver(err, "prolonging", r, h)
}

func token(h event.Hook) *string {
	if h.Token == "" {
		return nil
	}
	return &h.Token
}

// unlessOver returns nil if err says that the action, hook or group no longer exists, otherwise err with the hook and the
// instance. Auto Scaling says so only in the text of a ValidationError. A ValidationError with another text is of kind
// fault.Refuse.
func unlessOver(err error, doing string, r facts.Ref, h event.Hook) error {
	var failed smithy.APIError
	if !errors.As(err, &failed) || failed.ErrorCode() != "ValidationError" {
		if err != nil {
			err = fmt.Errorf("%s the hook %s of group %s for instance %s: %w", doing, h.Name, h.Group, r.ID, err)
		}
		return err
	}
	text := strings.ToLower(failed.ErrorMessage())
	if strings.Contains(text, "no active lifecycle action") || strings.Contains(text, "not found") {
		return nil
	}
	return fault.Refusef("%s the hook %s of group %s for instance %s: %w", doing, h.Name, h.Group, r.ID, err)
}
