package tryout

import (
	"context"
	"encoding/base64"
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
			"TagKey": tagKey, "TagValue": t.o.Name,
		},
	})
	if !t.j.check("Two Auto Scaling groups", since, err) {
		return false
	}
	hooked := t.growGroup(ctx, stack, "Group", "group with hooks", "An instance of a group waits in Pending:Wait until its grant is stored, then it is in service")
	t.growGroup(ctx, stack, "WarmGroup", "warm pool", "An instance of a warm pool starts, is stopped, starts again and logs in")
	const replaced = "An instance whose root volume is replaced logs in again, though its nonce is gone"
	if hooked == nil {
		t.j.skip(replaced, "the group has no instance")
		return true
	}
	since = time.Now()
	t.j.check(replaced, since, t.replaceRootVolume(ctx, stack.Outputs["Group"], hooked))
	return true
}

// growGroup has a group launch an instance, and waits until it is in service with its grant.
func (t *tryout) growGroup(ctx context.Context, stack deployed.Stack, output, kind, expected string) *host {
	client, group, since := autoscaling.NewFromConfig(t.home().aws), stack.Outputs[output], time.Now()
	t.j.doing("growing %s to one instance", group)
	h := &host{kind: kind, group: group, place: t.home(), launched: since}
	err := within(ctx, func(ctx context.Context) error {
		_, err := client.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: &group, DesiredCapacity: aws.Int32(1)})
		return err
	})
	if err == nil {
		err = t.await(ctx, groupPatience, func() error {
			i, err := inService(ctx, client, group)
			if err == nil {
				h.id = aws.ToString(i.InstanceId)
			}
			return err
		})
	}
	if h.id != "" {
		t.hosts = append(t.hosts, h)
		err = t.await(ctx, grantPatience, func() error { return t.loggedInSince(ctx, h, since) })
	}
	if err == nil {
		err = checkCertificate(h.seen)
	}
	if !t.j.check(expected, since, err) {
		return nil
	}
	return h
}

// inService returns a group's instance that is in service.
func inService(ctx context.Context, client *autoscaling.Client, group string) (types.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := client.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{group}})
	if err != nil {
		return types.Instance{}, fmt.Errorf("asking for group %s: %w", group, err)
	}
	states := []string{}
	for _, g := range answer.AutoScalingGroups {
		for _, i := range g.Instances {
			if i.LifecycleState == types.LifecycleStateInService {
				return i, nil
			}
			states = append(states, fmt.Sprintf("%s is %s", aws.ToString(i.InstanceId), i.LifecycleState))
		}
	}
	return types.Instance{}, fmt.Errorf("group %s has no instance in service: %v", group, states)
}

// replaceRootVolume starts an instance refresh that replaces the root volume, and waits for a new first login.
func (t *tryout) replaceRootVolume(ctx context.Context, group string, h *host) error {
	client, since := autoscaling.NewFromConfig(t.home().aws), time.Now()
	t.j.doing("replacing the root volume of %s", h.id)
	err := within(ctx, func(ctx context.Context) error {
		_, err := client.StartInstanceRefresh(ctx, &autoscaling.StartInstanceRefreshInput{
			AutoScalingGroupName: &group, Strategy: types.RefreshStrategyReplaceRootVolume,
			Preferences: &types.RefreshPreferences{MinHealthyPercentage: aws.Int32(0), InstanceWarmup: aws.Int32(0)},
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("starting an instance refresh of group %s: %w", group, err)
	}
	return t.await(ctx, groupPatience, func() error { return t.loggedInSince(ctx, h, since) })
}

// loggedInSince fails unless an instance has begun with a login since a time: one of a warm pool did so before it was stopped, too.
func (t *tryout) loggedInSince(ctx context.Context, h *host, since time.Time) error {
	if err := t.readSeen(ctx, h); err != nil {
		return err
	}
	if h.seen.Granted < float64(since.UnixMilli())/1000 {
		return fmt.Errorf("instance %s has not logged in since %s", h.id, since.UTC().Format(time.TimeOnly))
	}
	return nil
}

// within makes a call with the deadline of one call.
func within(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx)
}
