package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	ebtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// subscription is a queue fed by a rule on a bus of its own.
type subscription struct {
	bus, queue string
	client     *sqs.Client
}

// subscribe makes a bus, a queue and a rule for the program's events, all with one name.
func subscribe(t *testing.T, name string) *subscription {
	t.Helper()
	events, s := eventbridge.NewFromConfig(world.AWS), &subscription{bus: name, client: sqs.NewFromConfig(world.AWS)}
	if _, err := events.CreateEventBus(t.Context(), &eventbridge.CreateEventBusInput{Name: &name}); err != nil {
		t.Fatal(err)
	}
	made, err := s.client.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: &name})
	if err != nil {
		t.Fatal(err)
	}
	s.queue = aws.ToString(made.QueueUrl)
	attributes, err := s.client.GetQueueAttributes(t.Context(), &sqs.GetQueueAttributesInput{
		QueueUrl: &s.queue, AttributeNames: []sqstypes.QueueAttributeName{sqstypes.QueueAttributeNameQueueArn},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.PutRule(t.Context(), &eventbridge.PutRuleInput{
		EventBusName: &name, Name: &name, EventPattern: aws.String(`{"source":["vault-ec2-provisioner"]}`),
	}); err != nil {
		t.Fatal(err)
	}
	out, err := events.PutTargets(t.Context(), &eventbridge.PutTargetsInput{
		EventBusName: &name, Rule: &name, Targets: []ebtypes.Target{{Id: aws.String("queue"), Arn: aws.String(attributes.Attributes["QueueArn"])}},
	})
	if err != nil || out.FailedEntryCount > 0 {
		t.Fatalf("%v, %v", out, err)
	}
	return s
}

// received waits for events of the types of one instance and returns them by detail-type.
func (s *subscription) received(t *testing.T, instanceID string, types ...string) map[string]map[string]any {
	t.Helper()
	got := map[string]map[string]any{}
	for deadline := time.Now().Add(10 * time.Second); len(got) < len(types); {
		if time.Now().After(deadline) {
			t.Fatalf("want the events %q of %s on the bus, got %v", types, instanceID, got)
		}
		out, err := s.client.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &s.queue, MaxNumberOfMessages: 10, WaitTimeSeconds: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range out.Messages {
			var e map[string]any
			if err := json.Unmarshal([]byte(aws.ToString(m.Body)), &e); err != nil {
				t.Fatal(err)
			}
			if detail, _ := e["detail"].(map[string]any); detail["instanceId"] == instanceID {
				got[fmt.Sprint(e["detail-type"])] = e
			}
			if _, err := s.client.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: &s.queue, ReceiptHandle: m.ReceiptHandle}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, kind := range types {
		if got[kind] == nil {
			t.Fatalf("want an event %q of %s, got %v", kind, instanceID, got)
		}
	}
	return got
}

func docs(name string) string { return filepath.Join("..", "..", "..", "docs", name) }

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(docs("events.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAuditEvents_ReachTheBusAsDocumented(t *testing.T) {
	s, form := subscribe(t, "audit"), schema(t)
	env := map[string]string{"EVENT_BUS_NAME": "audit"}
	granting, removing, comparing := variant(t, provision, env), variant(t, deprovision, env), variant(t, reconcile, env)
	var all []map[string]any
	want := func(i fleet.Instance, kind string) map[string]any {
		t.Helper()
		e := s.received(t, i.ID, kind)[kind]
		all = append(all, e)
		detail, _ := e["detail"].(map[string]any)
		return detail
	}

	i := launch(t, fleet.Spec{Role: "alice-worker"})
	bare(t, granting, fleet.Event(i, "running", time.Now()))
	granted := want(i, audit.Granted)
	paths, _ := granted["objects"].([]any)
	if len(paths) != 4 || paths[3] != "auth/aws/role/"+i.ID || granted["fqdn"] != i.PrivateDNS || fmt.Sprint(granted["addresses"]) != fmt.Sprint([]any{i.PrivateIP}) {
		t.Errorf("want the four paths, the name and the address of %+v, got %v", i, granted)
	}

	vaultDelete(t, pathsOf(i.ID).kubelet)
	runReconcile(t, comparing, rec.Input{Mode: rec.Detect, InstanceIDs: []string{i.ID}})
	row, _ := want(i, audit.Drifted)["drift"].(map[string]any)
	if row["path"] != pathsOf(i.ID).kubelet || row["reason"] != "missing" {
		t.Errorf("want the row of the missing role, got %v", row)
	}

	terminate(t, i)
	bare(t, removing, fleet.Event(i, "terminated", time.Now()))
	if removed := want(i, audit.Removed); fmt.Sprint(removed["profile"]) != "alice_cluster-worker" {
		t.Errorf("want the profile of the removed grant, got %v", removed)
	}

	templates := changed(t, "worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, "fqdn: '{{ .Tag \"Name\" }}'\nfqdn_suffixes: [example]")
	strict := variant(t, provision, map[string]string{"EVENT_BUS_NAME": "audit", "TEMPLATES_DIR": templates})
	i = launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": `x" }`}})
	bare(t, strict, fleet.Event(i, "running", time.Now()))
	if refused := want(i, audit.Refused); refused["kind"] != "refuse" || refused["error"] == "" {
		t.Errorf("want the reason, got %v", refused)
	}

	i = launch(t, fleet.Spec{Role: "alice-worker"})
	vaultWrite(t, pathsOf(i.ID).policy, map[string]any{"policy": "# foreign\n"})
	bare(t, granting, fleet.Event(i, "running", time.Now()))
	if conflict := want(i, audit.Conflict); !strings.Contains(fmt.Sprint(conflict["error"]), pathsOf(i.ID).policy) {
		t.Errorf("want the path in the reason, got %v", conflict)
	}
	vaultDelete(t, pathsOf(i.ID).policy)

	for _, e := range all {
		if err := form.Validate(e); err != nil {
			t.Errorf("the event %v does not match the documented schema: %v", e, err)
		}
	}
}

func TestAuditBus_MissingIsOnlyCounted(t *testing.T) {
	f := variant(t, provision, map[string]string{"EVENT_BUS_NAME": "no-such-bus"})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	if a := bare(t, f, fleet.Event(i, "running", time.Now())); a.Action != "provisioned" {
		t.Errorf("want the grant made without the bus, got %+v", a)
	}
	logged(t, f, `"AuditFailed":1`)
	logged(t, f, "did not reach the event bus")
}

func TestAuditSchema_AcceptsOnlyDocumentedForm(t *testing.T) {
	form := schema(t)
	page, err := os.ReadFile(docs("events.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := bytes.Split(page, []byte("```json\n"))[1:]
	if len(blocks) < 2 {
		t.Fatalf("want at least two samples on the page, got %d", len(blocks))
	}
	for _, b := range blocks {
		text, _, _ := bytes.Cut(b, []byte("```"))
		sample, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if err := form.Validate(sample); err != nil {
			t.Errorf("a sample of the page does not match the schema: %v", err)
		}
		e, _ := sample.(map[string]any)
		detail, _ := e["detail"].(map[string]any)
		detail["token"] = "hvs.x"
		if form.Validate(e) == nil {
			t.Error("the schema accepts a detail with an undocumented field")
		}
		delete(detail, "token")
		e["detail-type"] = "Vault Access Refused"
		if form.Validate(e) == nil {
			t.Error("the schema accepts a refusal without a reason")
		}
	}
}
