package scenes

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// elsewhere is an account that the stack does not know.
const elsewhere = "444455556666"

// troubles are the instances of a storm that a person must look at.
type troubles struct {
	stranger fleet.Instance // of no profile
	foreign  fleet.Instance // a foreign policy is in the way, and a launch hook waits
	untagged fleet.Instance // EC2 refuses its readiness tag
	hooked   fleet.Instance // a launch hook waits, later a termination hook
}

// prepare launches the instances, and has EC2, Auto Scaling and EventBridge answer as the troubles need.
func (t *troubles) prepare(ctx context.Context, r *recorder) error {
	for _, one := range []struct {
		instance *fleet.Instance
		role     string
	}{{&t.stranger, "bob"}, {&t.foreign, "alice-worker"}, {&t.untagged, "alice-worker"}, {&t.hooked, "alice-worker"}} {
		launched, err := r.world.Fleet.Launch(ctx, fleet.Spec{Role: one.role})
		if err != nil {
			return err
		}
		*one.instance = launched[0]
	}
	if err := r.world.Vault.Sys().PutPolicyWithContext(ctx, grant.PolicyName(t.foreign.ID, "node"), "# foreign\n"); err != nil {
		return fmt.Errorf("writing a foreign policy: %w", err)
	}
	r.world.Taps.AWS.SetFault(t.answer)
	return nil
}

// answer is the fault of the calls of AWS: moto has no waits of lifecycle hooks, EC2 refuses one tag, and the bus does not take
// the audit events about refusals.
func (t *troubles) answer(c tap.Call) *tap.Fault {
	form, _ := url.ParseQuery(string(c.Body))
	switch {
	case c.Action == "CreateTags" && strings.Contains(string(c.Body), t.untagged.ID):
		return &tap.Fault{Status: http.StatusForbidden, Body: []byte(`<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>not authorized</Message></Error></Errors><RequestID>x</RequestID></Response>`)}
	case c.Action == "PutEvents" && (strings.Contains(string(c.Body), t.foreign.ID) || strings.Contains(string(c.Body), t.hooked.ID)):
		return &tap.Fault{Status: http.StatusBadRequest, Body: []byte(`{"__type":"ResourceNotFoundException","message":"no such bus"}`)}
	case c.Service != "autoscaling":
		return nil
	}
	body := ""
	if c.Action == "DescribeAutoScalingInstances" {
		body = "<AutoScalingInstances><member><InstanceId>" + form.Get("InstanceIds.member.1") + "</InstanceId><AutoScalingGroupName>workers</AutoScalingGroupName>" +
			"<LifecycleState>Terminating:Wait</LifecycleState></member></AutoScalingInstances>"
	}
	return tap.AutoScaling(c, body)
}

// hook returns the event of a lifecycle hook.
func hook(i fleet.Instance, name, transition string) []byte {
	return fleet.HookEvent(i, fleet.Hook{Name: name, Token: "a-token", Transition: transition}, time.Now())
}

// of returns an instance's event as if another account had sent it.
func of(account string, i fleet.Instance, state string) []byte {
	i.AccountID = account
	return fleet.Event(i, state, time.Now())
}

// unusable are messages that are no events, and an event of a kind that no function handles.
func (t *troubles) unusable(ctx context.Context, r *recorder, queueID string) error {
	other := strings.Replace(string(fleet.Event(t.hooked, "running", time.Now())), "EC2 Instance State-change Notification", "EC2 Spot Instance Interruption Warning", 1)
	return errors.Join(r.send(ctx, queueID, []byte("no event")), r.send(ctx, queueID, []byte(other)))
}

// starts sends the events of the starts.
func (t *troubles) starts(ctx context.Context, r *recorder) error {
	const q = "ProvisionQueue"
	return errors.Join(
		t.unusable(ctx, r, q),
		r.world.Fleet.Announce(ctx, t.stranger, "running"),
		r.world.Fleet.Announce(ctx, t.untagged, "running"),
		r.send(ctx, q, hook(t.foreign, "vault-identity-ready", "LAUNCHING")),
		r.send(ctx, q, hook(t.hooked, "vault-identity-ready", "LAUNCHING")),
		r.send(ctx, q, of(elsewhere, t.stranger, "running")),
		r.world.Fleet.Announce(ctx, r.fleet[0], "running"), // comes twice
		r.invoke(ctx, reconciler, []byte(`{"mode":"perhaps"}`)),
	)
}

// ends sends the events of the ends, and some about instances whose state does not fit.
func (t *troubles) ends(ctx context.Context, r *recorder) error {
	const q = "DeprovisionQueue"
	running := r.fleet[len(r.fleet)-1]
	err := errors.Join(
		t.unusable(ctx, r, q),
		r.world.Fleet.Announce(ctx, running, "terminated"),
		r.world.Fleet.Announce(ctx, running, "running"),
		r.send(ctx, q, of(elsewhere, running, "terminated")),
		r.send(ctx, q, hook(t.hooked, "vault-identity-gone", "TERMINATING")),
		r.world.Fleet.Terminate(ctx, t.foreign),
		r.world.Fleet.Announce(ctx, t.foreign, "terminated"),
		r.world.Fleet.Terminate(ctx, t.stranger),
	)
	return errors.Join(err, r.world.Fleet.Announce(ctx, t.stranger, "running")) // late: it has ended
}
