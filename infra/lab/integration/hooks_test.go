package integration

import (
	"bytes"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	ebtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// autoScaling answers the calls of Auto Scaling that moto does not implement: moto has groups and their members, but no waits
// of lifecycle hooks.
type autoScaling struct {
	state string // the lifecycle state of every instance; if empty, moto answers
	over  bool   // no wait is active
	// attached is when EC2 shows the root volumes as attached; zero for moto's answer.
	attached time.Time
}

// install answers the functions' calls of Auto Scaling until the test ends.
func (a *autoScaling) install(t *testing.T) {
	t.Helper()
	world.Taps.AWS.Reset()
	world.Taps.AWS.SetFault(func(c tap.Call) *tap.Fault {
		if c.Action == "DescribeInstances" && !a.attached.IsZero() {
			answer := askMoto(t, c, func(url.Values) {})
			if answer != nil {
				shown := regexp.MustCompile(`<attachTime>[^<]*</attachTime>`).ReplaceAll(answer.Body, []byte("<attachTime>"+a.attached.UTC().Format(time.RFC3339)+"</attachTime>"))
				if bytes.Equal(shown, answer.Body) {
					t.Error("moto shows no volume")
				}
				answer.Body = shown
			}
			return answer
		}
		if c.Service != "autoscaling" {
			return nil
		}
		form, _ := url.ParseQuery(string(c.Body))
		body := ""
		switch {
		case c.Action == "DescribeAutoScalingInstances" && a.state == "":
			return nil
		case c.Action == "DescribeAutoScalingInstances":
			body = "<AutoScalingInstances><member><InstanceId>" + form.Get("InstanceIds.member.1") + "</InstanceId><AutoScalingGroupName>workers</AutoScalingGroupName>" +
				"<LifecycleState>" + a.state + "</LifecycleState></member></AutoScalingInstances>"
		case a.over:
			return &tap.Fault{Status: 400, Body: []byte(`<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/"><Error><Type>Sender</Type><Code>ValidationError</Code>` +
				`<Message>No active Lifecycle Action found with instance ID ` + form.Get("InstanceId") + `</Message></Error><RequestId>r</RequestId></ErrorResponse>`)}
		}
		return tap.AutoScaling(c, body)
	})
	t.Cleanup(func() { world.Taps.AWS.SetFault(nil) })
}

// hookCalls returns the functions' calls about waits: action, hook, token, instance and result.
func hookCalls() []string {
	var out []string
	for _, c := range world.Taps.AWS.Calls() {
		form, _ := url.ParseQuery(string(c.Body))
		if c.Service == "autoscaling" && c.Action != "DescribeAutoScalingInstances" {
			out = append(out, strings.TrimSpace(strings.Join([]string{c.Action, form.Get("LifecycleHookName"), form.Get("LifecycleActionToken"), form.Get("InstanceId"), form.Get("LifecycleActionResult")}, " ")))
		}
	}
	return out
}

// waitOf returns a hook with the token that hookCalls shows.
func waitOf(hook, transition string) fleet.Hook {
	return fleet.Hook{Name: hook, Token: "a-token", Transition: transition}
}

// hookEvent returns the event as EventBridge delivers it to a function.
func hookEvent(i fleet.Instance, hook, transition string) []byte {
	return fleet.HookEvent(i, waitOf(hook, transition), time.Now())
}

// The template's rule sends the hook's event from moto's bus to the queue, and ignores the event of another team's hook.
func TestLaunchHook_WaitsForTheWholeGrant(t *testing.T) {
	(&autoScaling{}).install(t)
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	for _, hook := range []string{"drain", "vault-identity-ready"} {
		detail, err := json.Marshal(fleet.HookDetail(i, waitOf(hook, "LAUNCHING")))
		if err != nil {
			t.Fatal(err)
		}
		out, err := eventbridge.NewFromConfig(world.AWS).PutEvents(t.Context(), &eventbridge.PutEventsInput{Entries: []ebtypes.PutEventsRequestEntry{{
			Source: aws.String("aws.autoscaling"), DetailType: aws.String("EC2 Instance-launch Lifecycle Action"), Time: aws.Time(time.Now()), Detail: aws.String(string(detail)),
		}}})
		if err != nil || out.FailedEntryCount > 0 {
			t.Fatalf("%v, %v", err, out)
		}
	}
	handled(t, provision, i, "")
	want := []string{"CompleteLifecycleAction vault-identity-ready a-token " + i.ID + " CONTINUE"}
	if got := hookCalls(); !slices.Equal(got, want) {
		t.Errorf("calls about the wait: got %q, want %q", got, want)
	}
	for n, c := range world.Taps.AWS.Calls() {
		if c.Action == "CompleteLifecycleAction" && n == 0 {
			t.Error("the wait was completed before a call of EC2")
		}
	}
	if found := objects(t, i); len(found) != 4 {
		t.Errorf("want the whole grant when the wait is completed, got %q", found)
	}
	if _, err := world.Fleet.Login(t.Context(), world.AuthMount, i, ""); err != nil {
		t.Errorf("want its first login to succeed: %v", err)
	}
}

func TestLaunchHook_AbandonsRefusedKeepsWaiting(t *testing.T) {
	(&autoScaling{}).install(t)
	stranger := launch(t, fleet.Spec{Role: "of-no-profile"})
	a := bare(t, world.Functions[provision], hookEvent(stranger, "vault-identity-ready", "LAUNCHING"))
	if got, want := hookCalls(), []string{"RecordLifecycleActionHeartbeat vault-identity-ready a-token " + stranger.ID}; !strings.Contains(a.Failure, "no profile fits") || !slices.Equal(got, want) {
		t.Errorf("no profile fits: want a retry, since tags may come late, got %+v, %q", a, got)
	}
	world.Taps.AWS.Reset()
	refused := launch(t, fleet.Spec{Role: "alice-worker"})
	policy := "sys/policies/acl/ec2-" + refused.ID + "-node"
	vaultWrite(t, policy, map[string]any{"policy": "# foreign\n"})
	defer vaultDelete(t, policy)
	a = bare(t, world.Functions[provision], hookEvent(refused, "vault-identity-ready", "LAUNCHING"))
	if got, want := hookCalls(), []string{"CompleteLifecycleAction vault-identity-ready a-token " + refused.ID + " ABANDON"}; a.Kind != "conflict" || !slices.Equal(got, want) {
		t.Errorf("got %+v, %q, want %q", a, got, want)
	}
	world.Taps.AWS.Reset()
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	faultOn(t, world.Taps.Vault, tap.Fault{Status: 503, Body: []byte(`{"errors":["Vault is sealed"]}`)}, func(tap.Call) bool { return true })
	a = bare(t, world.Functions[provision], hookEvent(i, "vault-identity-ready", "LAUNCHING"))
	if got, want := hookCalls(), []string{"RecordLifecycleActionHeartbeat vault-identity-ready a-token " + i.ID}; a.Failure == "" || !slices.Equal(got, want) {
		t.Errorf("with Vault sealed: got %+v, %q, want a failure and %q", a, got, want)
	}
}

func TestTerminateHook_RemovesGrantWhileRunning(t *testing.T) {
	as := &autoScaling{}
	as.install(t)
	group := autoscaling.NewFromConfig(world.AWS)
	i, session := withToken(t)
	if _, err := group.CreateAutoScalingGroup(t.Context(), &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: aws.String("workers"), InstanceId: &i.ID, MinSize: aws.Int32(0), MaxSize: aws.Int32(1), DesiredCapacity: aws.Int32(0), VPCZoneIdentifier: &i.SubnetID,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := group.AttachInstances(t.Context(), &autoscaling.AttachInstancesInput{AutoScalingGroupName: aws.String("workers"), InstanceIds: []string{i.ID}}); err != nil {
		t.Fatal(err)
	}
	// moto's own answer: the instance is in service.
	if a := bare(t, world.Functions[deprovision], hookEvent(i, "vault-identity-gone", "TERMINATING")); !strings.Contains(a.Failure, "still shows it as InService") {
		t.Errorf("want the event alone to remove nothing, got %+v", a)
	}
	if len(objects(t, i)) < 4 {
		t.Fatalf("an event that Auto Scaling does not confirm removed something: %q", objects(t, i))
	}
	world.Taps.AWS.Reset()
	as.state = "Terminating:Wait"
	if a := bare(t, world.Functions[deprovision], hookEvent(i, "vault-identity-gone", "TERMINATING")); a.Action != "deprovisioned" {
		t.Fatalf("got %+v\nlogs:\n%s", a, world.Functions[deprovision].Logs())
	}
	if got, want := hookCalls(), []string{"CompleteLifecycleAction vault-identity-gone a-token " + i.ID + " CONTINUE"}; !slices.Equal(got, want) {
		t.Errorf("calls about the wait: got %q, want %q", got, want)
	}
	if _, err := session.Client.Auth().Token().LookupSelfWithContext(t.Context()); err == nil {
		t.Error("its token still works")
	}
	must(t, provision, i, "running", "left-alone")
	if a := runReconcile(t, world.Functions[reconcile], rec.Input{Mode: rec.Correct, InstanceIDs: []string{i.ID}}); len(a.Drift) > 0 {
		t.Errorf("want no drift of a running instance that is leaving, got %+v", a.Drift)
	}
	if found := objects(t, i); len(found) > 0 {
		t.Errorf("%q was made again", found)
	}
	as.over = true
	if a := bare(t, world.Functions[deprovision], hookEvent(i, "vault-identity-gone", "TERMINATING")); a.Failure+a.Error != "" {
		t.Errorf("the same event after its wait ended: want no failure, got %+v", a)
	}
}

// TestNewRootVolume_LogsInAgain has the old system, its successor after the replacement, and a client that has only the identity
// document. EC2's times are moved, since Vault's entries are made now.
func TestNewRootVolume_LogsInAgain(t *testing.T) {
	as := &autoScaling{state: "ReplacingRootVolume:Wait", attached: time.Now().Add(-time.Hour)}
	as.install(t)
	i, session := withToken(t)
	refused := func(when string) {
		t.Helper()
		if _, err := world.Fleet.Login(t.Context(), world.AuthMount, i, ""); err == nil || !strings.Contains(err.Error(), "nonce") {
			t.Errorf("%s: want a client without the nonce refused, got %v", when, err)
		}
	}
	refused("before the refresh")
	var event map[string]any
	if err := json.Unmarshal(hookEvent(i, "vault-identity-gone", "TERMINATING"), &event); err != nil {
		t.Fatal(err)
	}
	detail, _ := event["detail"].(map[string]any)
	detail["Action"], detail["Destination"] = "ReplaceRootVolume", "AutoScalingGroup"
	body, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	continued := []string{"CompleteLifecycleAction vault-identity-gone a-token " + i.ID + " CONTINUE"}
	if a := bare(t, world.Functions[deprovision], body); !strings.Contains(a.Failure, "being replaced") || !slices.Equal(hookCalls(), continued) {
		t.Errorf("want the wait ended at once and the message kept, got %+v, %q", a, hookCalls())
	}
	if found := objects(t, i); len(found) < 4 {
		t.Errorf("want the whole grant kept, got %q", found)
	}
	if _, err := session.Client.Auth().Token().LookupSelfWithContext(t.Context()); err != nil {
		t.Errorf("want the old system's token good until the system ends: %v", err)
	}
	refused("while the old system runs")

	as.attached = time.Now().Add(2 * time.Minute) // as if the old system had logged in two minutes before
	if a := bare(t, world.Functions[deprovision], body); !strings.Contains(a.Failure, "being replaced") {
		t.Errorf("want the message kept until the replacement is over, got %+v", a)
	}
	if _, err := world.Fleet.Login(t.Context(), world.AuthMount, i, ""); err != nil {
		t.Errorf("want the new system's login to succeed: %v", err)
	}
	as.state, as.attached = "Pending:Wait", time.Now().Add(-30*time.Second)
	if a := bare(t, world.Functions[deprovision], body); a.Action != "left-alone" {
		t.Errorf("want nothing reset after the new system's login, got %+v", a)
	}
	refused("after the new system's login")
	if a := runReconcile(t, world.Functions[reconcile], rec.Input{Mode: rec.Correct, InstanceIDs: []string{i.ID}}); len(a.Drift) > 0 {
		t.Errorf("want no drift after that, got %+v", a.Drift)
	}
}
