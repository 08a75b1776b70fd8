package stack

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// product is the product's template, expanded.
func product(t *testing.T) map[string]any {
	t.Helper()
	return expand(t, filepath.Join("..", "..", "..", "template.yaml"))
}

func TestTheTemplateNamesNoPartition(t *testing.T) {
	text, err := json.Marshal(product(t)["Resources"])
	if err != nil {
		t.Fatal(err)
	}
	for _, fixed := range []string{"arn:aws", "amazonaws.com/", "amazonaws.com.cn"} {
		if strings.Contains(string(text), fixed) {
			t.Errorf("a resource holds %q: in China and GovCloud it is another", fixed)
		}
	}
}

// A message in the reconcile queue is a run under way, with leave to delete.
func TestOnlyTheReconcileFunctionMaySendToItsQueueAndOnlyOverTLS(t *testing.T) {
	resources := object(product(t)["Resources"])
	statements, _ := object(object(object(resources["ReconcileQueuePolicy"])["Properties"])["PolicyDocument"])["Statement"].([]any)
	denied := map[string]string{}
	for _, s := range statements {
		statement := object(s)
		if statement["Effect"] != "Deny" || statement["Principal"] != "*" {
			t.Errorf("nobody needs an Allow on this queue but its function, which has its own: %v", statement)
		}
		action, _ := statement["Action"].(string)
		condition, err := json.Marshal(statement["Condition"])
		if err != nil {
			t.Fatal(err)
		}
		denied[action] = string(condition)
	}
	for action, want := range map[string]string{
		"sqs:SendMessage": `{"ArnNotEquals":{"aws:PrincipalArn":{"Fn::GetAtt":["ReconcileFunctionRole","Arn"]}}}`,
		"sqs:*":           `{"Bool":{"aws:SecureTransport":"false"}}`,
	} {
		if denied[action] != want {
			t.Errorf("%s is denied under %q, want %q", action, denied[action], want)
		}
	}
	queue := object(object(resources["ReconcileQueue"])["Properties"])
	if queue["SqsManagedSseEnabled"] != true || object(queue["RedrivePolicy"])["deadLetterTargetArn"] == nil {
		t.Errorf("the queue should be encrypted and have a dead-letter queue: %v", queue)
	}
	timeout := number(object(object(resources["ReconcileFunction"])["Properties"])["Timeout"])
	if visible := number(queue["VisibilityTimeout"]); timeout != 900 || visible <= timeout {
		t.Errorf("a message comes back after %d s, while the function may run for %d s: the run would run twice", visible, timeout)
	}
}
