package tryout

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/vault-ec2/internal/deployed"
)

const groupPatience = 15 * time.Minute

// groups tries hooks, a warm pool and the replacement of a root volume.
func (t *tryout) groups(ctx context.Context) bool {
	out := t.home().stack.Outputs
	since := time.Now()
	stack, err := t.makeStack(ctx, t.home().aws, stackInput{
		name: t.groupsStack(), template: inserted(groupsTemplate, "INSTANCE_USER_DATA", base64.StdEncoding.EncodeToString([]byte(t.userData(t.home())))),
		parameters: map[string]string{
			"Image": out["Arm64Image"], "SubnetId": out["SubnetId"], "SecurityGroupId": out["InstanceGroupId"], "InstanceProfileArn": out["InstanceProfileArn"],
			"Name": t.o.Name,
		},
	})
	if !t.j.check("Two Auto Scaling groups", since, err) {
		return false
	}
	const (
		waits    = "An instance of a group waits in Pending:Wait until its grant is stored, then it is in service"
		warms    = "An instance of a warm pool starts, is stopped, starts again and logs in"
		replaced = "An instance whose root volume is replaced logs in again, though its nonce is gone"
	)
	since = time.Now()
	hooked := &host{kind: "group with hooks", group: stack.Outputs["Group"], place: t.home()}
	isInService := t.j.check(waits, since, t.growGroup(ctx, hooked))
	since = time.Now()
	warm := &host{kind: "warm pool", group: stack.Outputs["WarmGroup"], place: t.home()}
	err = t.awaitWarm(ctx, warm)
	if err == nil {
		err = t.growGroup(ctx, warm)
	}
	t.j.check(warms, since, err)
	if !isInService {
		t.j.skip(replaced, "the group has no instance")
		return true
	}
	since = time.Now()
	t.j.check(replaced, since, t.replaceRootVolume(ctx, stack, hooked))
	return true
}

// growGroup has a group launch an instance, and waits until it is in service and has logged in since. An instance that the host names
// must be the one.
func (t *tryout) growGroup(ctx context.Context, h *host) error {
	client, pooled, former := autoscaling.NewFromConfig(t.home().aws), h.id, h.seen.Granted
	t.j.doing("growing %s to one instance", h.group)
	h.launched = time.Now()
	err := within(ctx, func(ctx context.Context) error {
		_, err := client.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: &h.group, DesiredCapacity: aws.Int32(1)})
		return err
	})
	if err != nil {
		return fmt.Errorf("growing group %s: %w", h.group, err)
	}
	err = t.await(ctx, groupPatience, func() error {
		id, err := inService(ctx, client, h.group)
		if err == nil {
			h.id = id
		}
		return err
	})
	if err != nil {
		return err
	}
	if pooled == "" {
		t.hosts = append(t.hosts, h)
	} else if h.id != pooled {
		return fmt.Errorf("group %s has instance %s in service, and not %s of its pool", h.group, h.id, pooled)
	}
	err = t.await(ctx, grantPatience, func() error {
		err := t.readSeen(ctx, h)
		if err == nil && h.seen.Granted == former {
			err = fmt.Errorf("instance %s has not logged in since it was stopped", h.id)
		}
		return err
	})
	if err != nil {
		return err
	}
	return checkCertificate(h.seen)
}

// awaitWarm waits until a group's warm pool has an instance that is stopped, after it logged in.
func (t *tryout) awaitWarm(ctx context.Context, h *host) error {
	client := autoscaling.NewFromConfig(t.home().aws)
	var pool *autoscaling.DescribeWarmPoolOutput
	look := func(ctx context.Context) (err error) {
		pool, err = client.DescribeWarmPool(ctx, &autoscaling.DescribeWarmPoolInput{AutoScalingGroupName: &h.group})
		return err
	}
	if err := within(ctx, look); err != nil || pool.WarmPoolConfiguration == nil {
		return fmt.Errorf("group %s has no warm pool (%w)", h.group, cmp.Or(err, errNoPool))
	}
	t.j.doing("waiting for an instance in the warm pool of %s", h.group)
	err := t.await(ctx, groupPatience, func() error {
		if err := within(ctx, look); err != nil {
			return fmt.Errorf("looking at the warm pool of group %s: %w", h.group, err)
		}
		id, err := inState(pool.Instances, types.LifecycleStateWarmedStopped, "the warm pool of group "+h.group)
		h.id = id
		return err
	})
	if err != nil {
		return err
	}
	t.hosts = append(t.hosts, h)
	if err := t.readSeen(ctx, h); err != nil {
		return fmt.Errorf("instance %s of the warm pool, at its first start: %w", h.id, err)
	}
	return nil
}

var errNoPool = errors.New("it was not made")

// inService returns a group's instance that is in service.
func inService(ctx context.Context, client *autoscaling.Client, group string) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := client.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{group}})
	if err != nil {
		return "", fmt.Errorf("asking for group %s: %w", group, err)
	}
	if len(answer.AutoScalingGroups) == 0 {
		return "", fmt.Errorf("group %s does not exist", group)
	}
	return inState(answer.AutoScalingGroups[0].Instances, types.LifecycleStateInService, "group "+group)
}

// inState returns the first instance that is in a state. An error names of, and the states of all.
func inState(instances []types.Instance, want types.LifecycleState, of string) (id string, err error) {
	states := []string{}
	for _, i := range instances {
		if i.LifecycleState == want {
			return aws.ToString(i.InstanceId), nil
		}
		states = append(states, fmt.Sprintf("%s is %s", aws.ToString(i.InstanceId), i.LifecycleState))
	}
	return "", fmt.Errorf("%s has no instance that is %s: %v", of, want, states)
}

// replaceRootVolume starts an instance refresh that replaces the root volume, and waits for a first login with another nonce: the former
// one was on the volume.
func (t *tryout) replaceRootVolume(ctx context.Context, stack deployed.Stack, h *host) error {
	client, nonce := autoscaling.NewFromConfig(t.home().aws), h.seen.Nonce
	t.j.doing("replacing the root volume of %s", h.id)
	template := stack.Outputs["TemplateId"]
	err := within(ctx, func(ctx context.Context) error {
		_, err := client.StartInstanceRefresh(ctx, &autoscaling.StartInstanceRefreshInput{
			AutoScalingGroupName: &h.group, Strategy: types.RefreshStrategyReplaceRootVolume,
			DesiredConfiguration: &types.DesiredConfiguration{MixedInstancesPolicy: &types.MixedInstancesPolicy{LaunchTemplate: &types.LaunchTemplate{
				LaunchTemplateSpecification: &types.LaunchTemplateSpecification{LaunchTemplateId: &template, Version: aws.String("$Latest")},
				Overrides:                   []types.LaunchTemplateOverrides{{InstanceType: aws.String("t4g.nano"), ImageId: aws.String(h.place.stack.Outputs["Arm64Image"])}},
			}}},
			Preferences: &types.RefreshPreferences{MinHealthyPercentage: aws.Int32(0), InstanceWarmup: aws.Int32(0), SkipMatching: aws.Bool(false)},
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("starting an instance refresh of group %s: %w", h.group, err)
	}
	return t.await(ctx, groupPatience, func() error {
		if err := t.readSeen(ctx, h); err != nil {
			return err
		}
		if h.seen.Nonce == nonce {
			return fmt.Errorf("instance %s has not logged in with another nonce since; %s", h.id, refreshState(ctx, client, h.group))
		}
		return nil
	})
}

// refreshState returns Auto Scaling's word about a group's last instance refresh.
func refreshState(ctx context.Context, client *autoscaling.Client, group string) string {
	state := "its instance refresh is not known"
	_ = within(ctx, func(ctx context.Context) error { // it only adds to another error
		answer, err := client.DescribeInstanceRefreshes(ctx, &autoscaling.DescribeInstanceRefreshesInput{AutoScalingGroupName: &group})
		if err == nil && len(answer.InstanceRefreshes) > 0 {
			r := answer.InstanceRefreshes[0]
			state = fmt.Sprintf("its instance refresh is %s %s", r.Status, aws.ToString(r.StatusReason))
		}
		return err
	})
	return state
}

// within makes a call with the deadline of one call.
func within(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx)
}
