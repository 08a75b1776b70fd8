package awsmodel

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/stack"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

const (
	provision, deprovision, reconcile = "ProvisionFunction", "DeprovisionFunction", "ReconcileFunction"
	memberAccount                     = "111122223333"
)

// started returns a world whose functions use every service that a stack can have them use.
func started(t *testing.T) *lab.World {
	t.Helper()
	parameters := lab.Parameters()
	maps.Copy(parameters, map[string]string{
		"MemberRoleName": "vault-ec2-member", "AllowedAccounts": memberAccount, "ReconcileAccounts": parts.AccountID + "," + memberAccount, "ReadyTag": "vault-identity",
		"AuditEventBusName": "audit", "ReconcileRepairs": "queue",
	})
	w, err := lab.Start(t.Context(), lab.Options{RepoRoot: "../../..", Parameters: parameters, SetupVault: lab.SetupVault, Progress: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	labtest.CloseLater(t, w)
	if _, err := eventbridge.NewFromConfig(w.AWS).CreateEventBus(t.Context(), &eventbridge.CreateEventBusInput{Name: aws.String("audit")}); err != nil {
		t.Fatal(err)
	}
	// moto has no waits of lifecycle hooks.
	w.Taps.AWS.SetFault(func(c tap.Call) *tap.Fault {
		if c.Service != "autoscaling" || c.Action == "DescribeAutoScalingInstances" {
			return nil
		}
		return tap.AutoScaling(c, "")
	})
	return w
}

// play lets the functions make each of their calls: starts alone and side by side, in both accounts, hooks, an end, a comparison with a
// repair, questions, and the doctor.
func play(t *testing.T, w *lab.World) {
	t.Helper()
	launch := func(s fleet.Spec) []fleet.Instance {
		launched, err := w.Fleet.Launch(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		return launched
	}
	invoke := func(function, payload string) {
		if _, err := w.Functions[function].Invoke(t.Context(), []byte(payload)); err != nil {
			t.Fatal(err)
		}
	}
	pair, alone := launch(fleet.Spec{Role: "alice-worker", Count: 2}), launch(fleet.Spec{Role: "alice-etcd"})[0]
	theirs, stranger := launch(fleet.Spec{Role: "alice-worker", AccountID: memberAccount})[0], launch(fleet.Spec{Role: "of-no-profile"})[0]
	if again, _ := labtest.Deliver(t, w.Functions[provision], fleet.Event(pair[0], "running", time.Now()), fleet.Event(pair[1], "running", time.Now())); len(again) > 0 {
		t.Fatalf("the pair is not granted:\n%s", w.Functions[provision].Logs())
	}
	invoke(provision, string(fleet.Event(theirs, "running", time.Now())))
	invoke(provision, hook(alone, "LAUNCHING"))
	invoke(provision, hook(stranger, "LAUNCHING"))
	if err := w.Fleet.Terminate(t.Context(), pair[0]); err != nil {
		t.Fatal(err)
	}
	invoke(deprovision, string(fleet.Event(pair[0], "terminated", time.Now())))
	invoke(deprovision, hook(alone, "TERMINATING"))
	if _, err := w.Vault.Logical().DeleteWithContext(t.Context(), "auth/"+w.AuthMount+"/role/"+pair[1].ID); err != nil {
		t.Fatal(err)
	}
	invoke(reconcile, `{"mode":"correct"}`)
	invoke(reconcile, `{"mode":"explain","instanceIds":["`+pair[1].ID+`"]}`)
	invoke(reconcile, `{"mode":"who","names":["`+pair[0].PrivateIP+`"]}`)
	invoke(reconcile, `{"mode":"report"}`)
	invoke(reconcile, `{"mode":"doctor"}`)
	command, err := w.Command(t.Context(), "profiles", "--stack", w.Stack.Name)
	if err != nil {
		t.Fatal(err)
	}
	command.Env = append(command.Env, "AWS_ENDPOINT_URL="+w.Taps.AWS.URL, "AWS_ENDPOINT_URL_DYNAMODB="+w.Taps.Dynamo.URL)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("vault-ec2 profiles: %v\n%s", err, out)
	}
}

// hook returns the event of a lifecycle hook, with a token of AWS's form.
func hook(i fleet.Instance, transition string) string {
	return string(fleet.HookEvent(i, fleet.Hook{Name: "vault-identity-wait", Token: "87654321-4321-4321-4321-210987654321", Transition: transition}, time.Now()))
}

// Every request that the built functions send is one that AWS's models admit and their roles allow, and every operation of theirs is among
// them.
func TestRequests_FitTheModelsAndTheRoles(t *testing.T) {
	w := started(t)
	play(t, w)
	models, seen := find(t), map[string]int{}
	calls := slices.Concat(w.Taps.AWS.Calls(), w.Taps.Dynamo.Calls())
	for _, c := range calls {
		if c.Service == "" && c.Action == "GET /" {
			continue // the doctor asks without a signature whether an endpoint answers
		}
		model, err := models.Of(c.Service)
		if err != nil {
			t.Errorf("%s %s by %s: %v", c.Method, c.Path, w.Caller(c), err)
			continue
		}
		seen[strings.Replace(c.Service, "events", "eventbridge", 1)+"."+c.Action]++ // by the SDK's name
		for _, fault := range model.Check(c.Action, c.Body) {
			t.Errorf("%s by %s: AWS refuses the request: %s\n%s", c.Service, w.Caller(c), fault, c.Body)
		}
	}
	wantAllowed(t, w, models, calls)
	for operation := range stack.Operations {
		if seen[operation] == 0 {
			t.Errorf("%s was not called, so that its request was not checked", operation)
		}
	}
	for _, operation := range []string{"sts.AssumeRole", "cloudformation.DescribeStacks"} { // of a library, and of the command
		if seen[operation] == 0 {
			t.Errorf("%s was not called, so that its request was not checked", operation)
		}
	}
	t.Logf("checked: %v", seen)
}
