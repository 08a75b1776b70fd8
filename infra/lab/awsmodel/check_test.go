package awsmodel

import (
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
)

func find(t *testing.T) *Models {
	t.Helper()
	models, err := Find(t.Context(), partstest.Python(t))
	if err != nil {
		t.Fatal(err)
	}
	return models
}

// Each row is a good request with one change. A check that finds nothing in the changed one would find nothing in a bad call of ours.
func TestCheck_FindsEachKindOfFault(t *testing.T) {
	models := find(t)
	const describe, complete, get, put = "Action=DescribeInstances&Version=2016-11-15&InstanceId.1=i-1&Filter.1.Name=a&Filter.1.Value.1=b&MaxResults=5",
		"Action=CompleteLifecycleAction&Version=2011-01-01&AutoScalingGroupName=g&LifecycleHookName=h&LifecycleActionResult=CONTINUE&InstanceId=i-0123456789abcdef0",
		`{"TableName":"t","Key":{"pk":{"S":"a"}},"ConsistentRead":true}`,
		`{"Entries":[{"Source":"s","DetailType":"d","Detail":"{}","EventBusName":"audit"}]}`
	for _, row := range []struct {
		name, service, operation, good, from, to, says string
	}{
		{"an unknown operation", "dynamodb", "GetItem", get, "", "", ""},
		{"a missing member", "dynamodb", "GetItem", get, `"TableName":"t",`, "", "TableName is required"},
		{"an unknown member", "dynamodb", "GetItem", get, "ConsistentRead", "Consistent", "no member Consistent"},
		{"another type", "dynamodb", "GetItem", get, "true", `"yes"`, "want a boolean"},
		{"an unknown type of attribute", "dynamodb", "GetItem", get, `"S"`, `"T"`, "no member T"},
		{"no text where one is needed", "dynamodb", "GetItem", get, `"TableName":"t"`, `"TableName":""`, "at least 1"},
		{"a value outside of the pattern", "events", "PutEvents", put, `"audit"`, `"a b"`, "pattern"},
		{"a list without entries", "events", "PutEvents", put, put, `{"Entries":[]}`, "at least 1"},
		{"a list of other entries", "events", "PutEvents", put, put, `{"Entries":["x"]}`, "want a structure"},
		{"an unknown parameter", "ec2", "DescribeInstances", describe, "MaxResults", "PageSize", "no parameters"},
		{"a list without numbers", "ec2", "DescribeInstances", describe, "InstanceId.1=", "InstanceId=", "no parameters"},
		{"text for a number", "ec2", "DescribeInstances", describe, "MaxResults=5", "MaxResults=five", "want a number"},
		{"an instance ID that is too long", "autoscaling", "CompleteLifecycleAction", complete, "i-0123456789abcdef0", "i-0123456789abcdef01", "at most 19"},
		{"a body that is no JSON", "sqs", "SendMessageBatch", `{"QueueUrl":"u","Entries":[{"Id":"1","MessageBody":"b"}]}`, `{"Qu`, `{Qu`, "not JSON"},
	} {
		model, err := models.Of(row.service)
		if err != nil {
			t.Fatal(err)
		}
		if faults := model.Check(row.operation, []byte(row.good)); len(faults) > 0 {
			t.Errorf("%s: want nothing wrong with the good request, seen %q", row.name, faults)
		}
		operation := row.operation
		if row.from == "" {
			operation, row.says = "GetItems", "no such operation"
		}
		faults := model.Check(operation, []byte(strings.Replace(row.good, row.from, row.to, 1)))
		if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, row.says) }) {
			t.Errorf("%s: want a fault with %q, seen %q", row.name, row.says, faults)
		}
	}
}
