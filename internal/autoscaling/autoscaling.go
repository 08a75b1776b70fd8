// Package autoscaling talks to Auto Scaling about the instances its groups hold back by lifecycle hooks, across accounts
// and regions.
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

// Result is how a wait ends.
type Result string

// The results. Of a terminating instance both end the wait, and ABANDON the waits of the group's other hooks too.
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_CompleteLifecycleAction.html
const (
	Continue Result = "CONTINUE"
	Abandon  Result = "ABANDON"
)

const (
	callTimeout = 10 * time.Second
	// describedAtOnce is how many instances one call may name,
	// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeAutoScalingInstances.html
	describedAtOnce = 50
)

// The calls this package makes, as functions and not as clients: docs/decisions/binary-size.md.
type calls struct {
	describe func(context.Context, *autoscaling.DescribeAutoScalingInstancesInput, ...func(*autoscaling.Options)) (*autoscaling.DescribeAutoScalingInstancesOutput, error)
	complete func(context.Context, *autoscaling.CompleteLifecycleActionInput, ...func(*autoscaling.Options)) (*autoscaling.CompleteLifecycleActionOutput, error)
	beat     func(context.Context, *autoscaling.RecordLifecycleActionHeartbeatInput, ...func(*autoscaling.Options)) (*autoscaling.RecordLifecycleActionHeartbeatOutput, error)
}

// Groups is Auto Scaling. It is safe for concurrent use.
type Groups struct {
	calls *instance.ByPlace[calls]
}

// New makes Groups. It calls nobody.
func New(configs instance.Configs) *Groups {
	return &Groups{calls: instance.NewByPlace(configs, func(config aws.Config) calls {
		c := autoscaling.NewFromConfig(config)
		return calls{describe: c.DescribeAutoScalingInstances, complete: c.CompleteLifecycleAction, beat: c.RecordLifecycleActionHeartbeat}
	})}
}

// Standing is where an instance stands in its group.
type Standing struct {
	// State is Auto Scaling's own, InService or Terminating:Wait for example; empty for an instance of no group.
	// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html
	State string
	// Err says why nothing is known.
	Err error
}

// Terminating tells whether the group, or its warm pool, is done with the instance.
func (s Standing) Terminating() bool {
	return strings.HasPrefix(strings.TrimPrefix(s.State, "Warmed:"), "Terminating")
}

// Stand gives the standing of each instance, by one call for up to 50 of an account and region.
func (g *Groups) Stand(ctx context.Context, refs []facts.Ref) map[facts.Ref]Standing {
	ids := map[facts.Place][]string{}
	for _, r := range refs {
		p := r.Place
		ids[p] = append(ids[p], r.ID)
	}
	out := make(map[facts.Ref]Standing, len(refs))
	for p, all := range ids {
		for few := range slices.Chunk(all, describedAtOnce) {
			states, err := g.states(ctx, p, few)
			for _, id := range few {
				out[facts.Ref{ID: id, Place: p}] = Standing{State: states[id], Err: err}
			}
		}
	}
	return out
}

func (g *Groups) states(ctx context.Context, p facts.Place, ids []string) (map[string]string, error) {
	c, err := g.calls.At(ctx, p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.describe(ctx, &autoscaling.DescribeAutoScalingInstancesInput{InstanceIds: ids})
	if err != nil {
		return nil, fmt.Errorf("asking Auto Scaling in %s where %d instances stand: %w", p, len(ids), err)
	}
	states := map[string]string{}
	for _, i := range answer.AutoScalingInstances {
		states[aws.ToString(i.InstanceId)] = aws.ToString(i.LifecycleState)
	}
	return states, nil
}

// Complete ends the wait of a hook. It succeeds for a wait that is over: somebody completed it, its time ran out, or the
// instance or the group is gone.
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
	return over(err, "completing", r, h)
}

// Beat has the wait of a hook begin anew. It succeeds, as Complete does, for a wait that is over.
func (g *Groups) Beat(ctx context.Context, r facts.Ref, h event.Hook) error {
	c, err := g.calls.At(ctx, r.Place)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = c.beat(ctx, &autoscaling.RecordLifecycleActionHeartbeatInput{
		AutoScalingGroupName: &h.Group, LifecycleHookName: &h.Name, LifecycleActionToken: token(h), InstanceId: &r.ID,
	})
	return over(err, "prolonging", r, h)
}

func token(h event.Hook) *string {
	if h.Token == "" {
		return nil
	}
	return &h.Token
}

// over judges the answer about one wait. Auto Scaling has no error of its own for a wait, hook or group that is no more:
// a ValidationError says so in its text. One with another text will not get better by coming again.
func over(err error, doing string, r facts.Ref, h event.Hook) error {
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
