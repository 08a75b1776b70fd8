package integration

import (
	"maps"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// reconcileLife runs the reconcile function through all that it does: a repair by the queue, a direct repair, an explanation,
// a removal, and the doctor.
func reconcileLife(t *testing.T) {
	t.Helper()
	i := launch(t, fleet.Spec{Role: "alice-worker"}) // its event is lost
	in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{i.ID}}
	byQueue := variant(t, reconcile, map[string]string{"CONVERGE_QUEUE_URL": world.Stack.Outputs["ProvisionQueueUrl"]})
	if a := runReconcile(t, byQueue, in); a.Summary.Enqueued == 0 {
		t.Fatalf("want the repair sent to the queue, got %+v", a)
	}
	if err := world.Pollers[provision].Drained(t.Context()); err != nil {
		t.Fatal(err)
	}
	vaultDelete(t, pathsOf(i.ID).policy)
	if a := runReconcile(t, world.Functions[reconcile], in); a.Summary.Corrected != 1 {
		t.Fatalf("want the policy made again, got %+v", a)
	}
	explain(t, world.Functions[reconcile], i.ID)
	terminate(t, i)
	if a := runReconcile(t, world.Functions[reconcile], in); a.Summary.Corrected != 1 {
		t.Fatalf("want the grant removed, got %+v", a)
	}
	runReconcile(t, world.Functions[reconcile], rec.Input{Mode: rec.Doctor})
}

func TestTemplate_GrantsExactlyReconcilesActions(t *testing.T) {
	resetTaps()
	reconcileLife(t)
	used, granted := actionsUsed(t), actionsGranted(t, "FunctionsPolicy", "ReconcileFunctionRole")
	for _, action := range slices.Concat(lambdaActions, tagActions, []string{"sts:AssumeRole"}) {
		if !granted[action] {
			t.Errorf("%s is needed and not granted", action)
		}
		delete(granted, action)
		delete(used, action)
	}
	if got, want := slices.Sorted(maps.Keys(granted)), slices.Sorted(maps.Keys(used)); !slices.Equal(got, want) {
		t.Errorf("the template grants %v\nthe function used    %v", got, want)
	}
}

// The function takes runs from its queue one message at a time. A message is deleted when its run is done.
func TestReconcileQueue_FeedsTheFunction(t *testing.T) {
	poller := world.Pollers[reconcile]
	if poller == nil {
		t.Fatal("the stack has no poller of the reconcile queue")
	}
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	body := `{"mode":"correct","instanceIds":["` + i.ID + `"]}`
	url := world.Stack.Outputs["ReconcileQueueUrl"]
	if _, err := sqs.NewFromConfig(world.AWS).SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &url, MessageBody: &body}); err != nil {
		t.Fatal(err)
	}
	r, b, err := poller.WaitFor(t.Context(), func(r queue.Record) bool { return r.Body == body })
	if err != nil || !r.Handled || len(b.Records) != 1 {
		t.Fatalf("want the message handled alone, got %+v, %v\nlogs:\n%s", b, err, world.Functions[reconcile].Logs())
	}
	if made := objects(t, i); len(made) == 0 {
		t.Error("want the message's instance granted")
	}
}
