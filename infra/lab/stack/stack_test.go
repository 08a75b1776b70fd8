package stack

import (
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/eventbridge"
	ebtypes "github.com/aws/aws-sdk-go-v2/service/eventbridge/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/awsclient"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
)

const region = "us-east-1"

func TestStack_CreatesTheTemplatesResources(t *testing.T) {
	o := start(t)
	o.Expanded = expand(t, "testdata/template.yaml")
	o.Parameters = map[string]string{"VaultAddr": "https://vault.example:8200"}
	s, err := Deploy(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}

	f := s.Functions["ProvisionFunction"]
	for name, want := range map[string]string{
		"TABLE_NAME": s.Tables["Table"], "VAULT_ADDR": "https://vault.example:8200", "DEPLOYMENT_ID": "lab", "LOGIN_ROLE": "lab-provision",
	} {
		if f.Env[name] != want || want == "" {
			t.Errorf("the function's %s is %q, expected %q", name, f.Env[name], want)
		}
	}
	if f.TimeoutSeconds != 7 || f.MemoryMB != 192 || f.RoleARN != s.Outputs["RoleArn"] || f.CodeDir != filepath.Join("build", "provision") {
		t.Errorf("expected 7 s, 192 MB, role %s and build/provision; seen %+v", s.Outputs["RoleArn"], f)
	}
	m, err := s.Mapping("ProvisionFunction")
	if err != nil {
		t.Fatal(err)
	}
	if m.BatchSize != 25 || m.Window != 2*time.Second || !m.ReportBatchItemFailures || m.MaximumConcurrency != 3 || m.QueueURL != s.Outputs["QueueUrl"] {
		t.Errorf("expected the mapping of the template onto %s, seen %+v", s.Outputs["QueueUrl"], m)
	}
	if len(s.Schedules) != 1 || s.Schedules[0].Expression != "rate(1 day)" || s.Schedules[0].FunctionLogicalID != "ProvisionFunction" || s.Schedules[0].Input != `{"mode":"detect"}` {
		t.Errorf("expected the nightly schedule, seen %+v", s.Schedules)
	}
	if len(s.Schedules) == 1 {
		rule, err := eventbridge.NewFromConfig(o.AWS).DescribeRule(t.Context(), &eventbridge.DescribeRuleInput{Name: &s.Schedules[0].RuleName})
		if err != nil || aws.ToString(rule.ScheduleExpression) != "rate(1 day)" {
			t.Errorf("the schedule should exist in moto: %+v, %v", rule, err)
		}
	}
	if _, there := s.Resources["OnlyInOneRegion"]; there {
		t.Error("a resource whose condition is false was created")
	}
	if _, err := o.Dynamo.DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String(s.Tables["Table"])}); err != nil {
		t.Errorf("the table should be in DynamoDB Local: %v", err)
	}

	if on, off := s.QueuesFor("running"), s.QueuesFor("stopped"); len(on) != 1 || on[0] != m.QueueURL || len(off) != 0 {
		t.Errorf("expected %s for running and nothing for stopped, seen %v and %v", m.QueueURL, on, off)
	}

	body := announced(t, o.AWS, m.QueueURL, "running")
	if body["account"] != parts.AccountID || body["detail-type"] != "EC2 Instance State-change Notification" || body["region"] != region || body["time"] == nil {
		t.Errorf("the event lost fields on its way to the queue: %v", body)
	}
	if _, ok := body["time"].(string); !ok {
		t.Errorf("the event's time should be text, seen %v", body["time"])
	}
}

func TestStack_CreatesTheProductsTemplate(t *testing.T) {
	o := start(t)
	o.Expanded = product(t)
	everything := maps.Clone(full)
	maps.Copy(everything, map[string]string{"ReconcileSchedule": "off", "ReconcileAccounts": "111122223333,222233334444"})
	for name, values := range map[string]map[string]string{
		"bare": bare,
		"full": everything,
	} {
		o.Name, o.Parameters = name, values
		s, err := Deploy(t.Context(), o)
		if err != nil {
			t.Fatalf("with parameters %v: %v", values, err)
		}
		for _, id := range []string{"ProvisionFunction", "DeprovisionFunction", "ReconcileFunction"} {
			if m, err := s.Mapping(id); err != nil || m.QueueURL == "" || s.Functions[id].RoleARN == "" {
				t.Errorf("%s of stack %s should have a queue and a role: %+v, %+v, %v", id, name, m, s.Functions[id], err)
			}
		}
		byClock, repairs := 1, ""
		if values["ReconcileSchedule"] == "off" {
			byClock, repairs = 0, s.Outputs["ProvisionQueueUrl"]
		}
		if len(s.Schedules) != byClock || byClock == 1 && s.Schedules[0].FunctionLogicalID != "ReconcileFunction" {
			t.Errorf("stack %s should have %d schedules, seen %+v", name, byClock, s.Schedules)
		}
		reconcile := s.Functions["ReconcileFunction"]
		for variable, want := range map[string]string{
			"CONVERGE_QUEUE_URL": repairs, "RECONCILE_QUEUE_URL": s.Outputs["ReconcileQueueUrl"], "RECONCILE_MODE": "correct",
			"RECONCILE_ACCOUNTS": values["ReconcileAccounts"], "RECONCILE_REGIONS": "", "DELETE_LIMIT_PERCENT": "20",
		} {
			if reconcile.Env[variable] != want {
				t.Errorf("stack %s: the reconcile function's %s is %q, expected %q", name, variable, reconcile.Env[variable], want)
			}
		}
		if m, err := s.Mapping("ReconcileFunction"); err != nil || m.BatchSize != 1 || m.ReportBatchItemFailures || s.Outputs["ReconcileFunctionName"] != reconcile.Name {
			t.Errorf("stack %s: the reconcile function should get one message of its own queue at a time: %+v, %v", name, m, err)
		}
	}
}

func TestStack_NamesEveryBadParameter(t *testing.T) {
	template := map[string]any{"Parameters": map[string]any{"A": map[string]any{}, "B": map[string]any{"Default": 3.0}}}
	_, err := newDecider(template, map[string]string{"C": "x"}, nil)
	if err == nil || !strings.Contains(err.Error(), "parameter A") || !strings.Contains(err.Error(), "no parameter C") {
		t.Errorf("expected A without a value and C unknown, seen: %v", err)
	}
}

func TestNoValue_LeavesNoTrace(t *testing.T) {
	noValue := map[string]any{"Ref": "AWS::NoValue"}
	d := &decider{values: map[string]any{"P": ""}, conditions: map[string]any{
		"Given": map[string]any{"Fn::Not": []any{map[string]any{"Fn::Equals": []any{map[string]any{"Ref": "P"}, ""}}}},
	}}
	got, err := d.resolve(map[string]any{
		"list": []any{"a", map[string]any{"Fn::If": []any{"Given", "b", noValue}}},
		"gone": noValue, "kept": map[string]any{"Fn::If": []any{"Given", "x", "y"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(got)
	if want := `{"kept":"y","list":["a"]}`; err != nil || string(text) != want {
		t.Errorf("expected %s, seen %s (%v)", want, text, err)
	}
}

func start(t *testing.T) Options {
	t.Helper()
	w := partstest.Workspace(t)
	moto := partstest.Moto(t, w)
	dynamo, err := parts.StartDynamoDBLocal(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dynamo.Process.Stop() })
	return Options{Name: "lab", AccountID: parts.AccountID, AWS: awsclient.Config(moto.URL, region), Dynamo: awsclient.DynamoDB(dynamo.URL, region), BuildDir: "build"}
}

func expand(t *testing.T, template string) map[string]any {
	t.Helper()
	expanded, err := Expand(t.Context(), partstest.Python(t), template, region)
	if err != nil {
		t.Fatal(err)
	}
	return expanded
}

// announced sends a state change through the event bus and returns what the
// queue received.
func announced(t *testing.T, cfg aws.Config, queue, state string) map[string]any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := eventbridge.NewFromConfig(cfg).PutEvents(ctx, &eventbridge.PutEventsInput{Entries: []ebtypes.PutEventsRequestEntry{{
		Source: aws.String("aws.ec2"), DetailType: aws.String("EC2 Instance State-change Notification"),
		Resources: []string{"arn:aws:ec2:us-east-1:123456789012:instance/i-0abc"},
		Detail:    aws.String(`{"instance-id":"i-0abc","state":"` + state + `"}`),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := sqs.NewFromConfig(cfg).ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &queue, WaitTimeSeconds: 2})
	if err != nil || len(got.Messages) != 1 {
		t.Fatalf("expected one message in %s, seen %v (%v)", queue, got, err)
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(aws.ToString(got.Messages[0].Body)), &body); err != nil {
		t.Fatalf("the event is no JSON: %v: %s", err, aws.ToString(got.Messages[0].Body))
	}
	t.Logf("received: %s", aws.ToString(got.Messages[0].Body))
	return body
}
