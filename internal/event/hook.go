package event

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// The events of lifecycle hooks. A hook's test notification is not one of these events: it goes only to a queue or topic that
// the hook names, has another envelope, and is ignored.
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-event-reference.html
const (
	hookSource    = "aws.autoscaling"
	hookLaunch    = "EC2 Instance-launch Lifecycle Action"
	hookTerminate = "EC2 Instance-terminate Lifecycle Action"
	toLaunch      = "autoscaling:EC2_INSTANCE_LAUNCHING"
	toTerminate   = "autoscaling:EC2_INSTANCE_TERMINATING"
	warmPool      = "WarmPool"
	// The action of a refresh that replaces root volumes: the terminate hook before it, the launch hook after it.
	// https://docs.aws.amazon.com/autoscaling/ec2/userguide/replace-root-volume.html#replace-root-volume-lifecycle-hooks
	replaceVolume = "ReplaceRootVolume"
)

// Hook is a lifecycle action: an Auto Scaling group's hook holds one instance until it is completed.
type Hook struct {
	Group string
	Name  string
	Token string // of this action; empty if the event has none
	// At is the time of the hook's own event: the wait began then, whatever other events of the instance come later.
	At time.Time
	// Terminating reports whether the instance leaves the group; otherwise it launches.
	Terminating bool
	// Returns reports whether a terminating instance goes back to its group's warm pool, and so may serve again.
	Returns bool
	// ReplacesVolume reports whether the instance stays in its group and gets a new root volume.
	ReplacesVolume bool
}

type hookDetail struct {
	Token       string `json:"LifecycleActionToken"`
	Group       string `json:"AutoScalingGroupName"`
	Name        string `json:"LifecycleHookName"`
	InstanceID  string `json:"EC2InstanceId"`
	Transition  string `json:"LifecycleTransition"`
	Destination string `json:"Destination"`
	Action      string `json:"Action"`
}

// parseHook parses the detail of a lifecycle action. The state is running for a terminating instance too: EC2 shows it as such
// until Auto Scaling acts.
func parseHook(detail json.RawMessage) (instanceID string, state facts.State, h *Hook, err error) {
	var d hookDetail
	if err := json.Unmarshal(detail, &d); err != nil {
		return "", "", nil, fault.Refusef("reading the lifecycle action's detail: %w", err)
	}
	switch {
	case d.Transition != toLaunch && d.Transition != toTerminate:
		return "", "", nil, fault.Refusef("the lifecycle action of instance %+q: unknown transition %+q", d.InstanceID, d.Transition)
	case strings.TrimSpace(d.Group) == "", strings.TrimSpace(d.Name) == "":
		return "", "", nil, fault.Refusef("the lifecycle action of instance %+q names no group or no hook", d.InstanceID)
	}
	return d.InstanceID, facts.Running, &Hook{
		Group: d.Group, Name: d.Name, Token: d.Token,
		Terminating: d.Transition == toTerminate, Returns: d.Transition == toTerminate && d.Destination == warmPool,
		ReplacesVolume: d.Action == replaceVolume,
	}, nil
}
