package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

func TestSealedVault_EventWaitsInTheQueue(t *testing.T) {
	client := sqs.NewFromConfig(world.AWS)
	mapping, err := world.Stack.Mapping(provision)
	if err != nil {
		t.Fatal(err)
	}
	visibility := func(seconds string) {
		t.Helper()
		world.Pollers[provision].Pause() // a receive in flight would keep the old timeout
		defer world.Pollers[provision].Resume()
		if _, err := client.SetQueueAttributes(t.Context(), &sqs.SetQueueAttributesInput{
			QueueUrl: &mapping.QueueURL, Attributes: map[string]string{"VisibilityTimeout": seconds},
		}); err != nil {
			t.Fatal(err)
		}
	}
	visibility("1") // instead of the template's two minutes
	defer visibility("120")
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	faultOn(t, world.Taps.Vault, tap.Fault{Status: 503, Body: []byte(`{"errors":["Vault is sealed"]}`)},
		func(c tap.Call) bool { return strings.Contains(c.Path, i.ID) })
	if err := world.Fleet.Announce(t.Context(), i, "running"); err != nil {
		t.Fatal(err)
	}
	delivered := func(times int, handled bool) {
		t.Helper()
		if _, _, err := world.Pollers[provision].WaitFor(t.Context(), func(r queue.Record) bool {
			return strings.Contains(r.Body, i.ID) && r.ReceiveCount >= times && r.Handled == handled
		}); err != nil {
			t.Fatal(err)
		}
	}
	delivered(2, false)
	if len(objects(t, i)) > 0 {
		t.Error("objects were made in a sealed Vault")
	}
	world.Taps.Vault.SetFault(nil)
	delivered(3, true)
	if n := len(objects(t, i)); n != 4 {
		t.Errorf("want the grant made once Vault is back, got %d objects", n)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		dead, err := queue.DepthOf(t.Context(), client, world.Stack.Outputs["ProvisionDeadLetterQueueUrl"])
		if err != nil {
			t.Fatal(err)
		}
		if dead == (queue.Depth{}) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("want the event to wait out the outage in the queue and not in the dead-letter queue: %+v", dead)
		}
	}
}
