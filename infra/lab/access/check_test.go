package access

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
)

var (
	once   sync.Once
	shared *Reference
)

func reference(t *testing.T) *Reference {
	t.Helper()
	once.Do(func() {
		dir, err := parts.FetchAuthorizationReference(t.Context(), partstest.Workspace(t))
		if err != nil {
			t.Fatal(err)
		}
		if shared, err = Load(dir); err != nil {
			t.Fatal(err)
		}
	})
	if shared == nil {
		t.Fatal("AWS's service authorization reference could not be read")
	}
	return shared
}

// changed returns a valid statement with other elements.
func changed(t *testing.T, elements string) Statement {
	t.Helper()
	base := map[string]any{"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "arn:aws:sqs:eu-central-1:123456789012:q"}
	if err := json.Unmarshal([]byte(elements), &base); err != nil {
		t.Fatal(err)
	}
	s, err := ParseStatement(base)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const bus = `"Principal": {"AWS": "111122223333"}, "Action": "events:PutEvents", "Resource": "arn:aws:events:eu-central-1:123456789012:event-bus/default"`

func TestFaults_AcceptFittingStatements(t *testing.T) {
	for name, row := range map[string]struct {
		kind     Kind
		elements string
	}{
		"the baseline":                    {Identity, `{}`},
		"an action without resources":     {Identity, `{"Action": "ec2:DescribeInstances", "Resource": "*"}`},
		"a wildcard in an ARN":            {Identity, `{"Action": "iam:GetInstanceProfile", "Resource": "arn:aws:iam::123456789012:instance-profile/*"}`},
		"the streams of a log group":      {Identity, `{"Action": "logs:PutLogEvents", "Resource": "arn:aws:logs:eu-central-1:123456789012:log-group:g:*"}`},
		"a set that is required":          {Identity, `{"Action": "dynamodb:GetItem", "Resource": "arn:aws:dynamodb:eu-central-1:123456789012:table/t", "Condition": {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": "a#*"}, "Null": {"dynamodb:LeadingKeys": "false"}}}`},
		"a denial by a global key":        {Resource, `{"Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}`},
		"a key with a variable part":      {Resource, `{"Principal": {"Service": "logs.amazonaws.com"}, "Action": "kms:Decrypt*", "Resource": "*", "Condition": {"ArnLike": {"kms:EncryptionContext:aws:logs:arn": "arn:aws:logs:*:*:*"}}}`},
		"a bus's two keys, each as a set": {Resource, `{` + bus + `, "Condition": {"ForAllValues:StringEquals": {"events:source": "aws.ec2", "events:detail-type": "x"}, "Null": {"events:source": "false", "events:detail-type": "false"}}}`},
	} {
		if faults := reference(t).Faults(changed(t, row.elements), row.kind); len(faults) > 0 {
			t.Errorf("%s: want no fault, got %q", name, faults)
		}
	}
	trust, err := ParseStatement(map[string]any{"Effect": "Allow", "Principal": map[string]any{"AWS": "arn:aws:iam::123456789012:role/r"}, "Action": "sts:AssumeRole",
		"Condition": map[string]any{"StringEquals": map[string]any{"sts:ExternalId": "x"}}})
	if err != nil {
		t.Fatal(err)
	}
	if faults := reference(t).Faults(trust, Trust); len(faults) > 0 {
		t.Errorf("a trust policy: want no fault, got %q", faults)
	}
}

// Each row is one mistake that AWS accepts in a policy.
func TestFaults_NameEachMistake(t *testing.T) {
	for name, row := range map[string]struct {
		kind           Kind
		elements, want string
	}{
		"an action that does not exist":            {Identity, `{"Action": "sqs:SendMessages"}`, "AWS has no action sqs:SendMessages"},
		"an operation that is no action":           {Identity, `{"Action": "dynamodb:TransactWriteItems"}`, "AWS has no action"},
		"a wildcard without an action":             {Identity, `{"Action": "sqs:Sent*"}`, "AWS has no action"},
		"a wildcard that changes permissions":      {Identity, `{"Action": "sqs:*"}`, "which changes permissions"},
		"another service's resource":               {Identity, `{"Resource": "arn:aws:sns:eu-central-1:123456789012:t"}`, "fits none of the resources"},
		"the name instead of the ARN":              {Identity, `{"Resource": "q"}`, "fits none of the resources"},
		"the log group without its streams":        {Identity, `{"Action": "logs:PutLogEvents", "Resource": "arn:aws:logs:eu-central-1:123456789012:log-group:g"}`, "fits none of the resources"},
		"a resource that the action does not know": {Identity, `{"Action": "ec2:DescribeInstances", "Resource": "arn:aws:ec2:eu-central-1:123456789012:instance/*"}`, "it knows only *"},
		"one resource of two":                      {Identity, `{"Resource": ["arn:aws:sqs:eu-central-1:123456789012:q", "arn:aws:sns:eu-central-1:123456789012:t"]}`, "fits none of the actions"},
		"another action's key":                     {Identity, `{"Condition": {"StringEquals": {"events:source": "x"}}}`, "never has the key events:source"},
		"an unknown key":                           {Identity, `{"Condition": {"StringEquals": {"aws:PrincipalArm": "x"}}}`, "never has the key aws:PrincipalArm"},
		"a tag's key where there are no tags":      {Identity, `{"Condition": {"ForAnyValue:StringEquals": {"aws:TagKeys": "x"}}}`, "never has the key aws:TagKeys"},
		"a plain operator on several values":       {Resource, `{` + bus + `, "Condition": {"StringEquals": {"events:detail-type": "x"}}}`, "want ForAllValues or ForAnyValue"},
		"a set that is not required":               {Resource, `{` + bus + `, "Condition": {"ForAllValues:StringEquals": {"events:detail-type": "x"}}}`, "want a Null of false too"},
		"a set operator on one value":              {Identity, `{"Condition": {"ForAnyValue:StringEquals": {"aws:PrincipalOrgID": "x"}}}`, "want an operator without a set"},
		"an operator of another type":              {Identity, `{"Condition": {"StringEquals": {"aws:SourceArn": "x"}}}`, "want one of"},
		"an operator that does not exist":          {Identity, `{"Condition": {"StringIs": {"aws:PrincipalOrgID": "x"}}}`, "want one of"},
		"no truth value":                           {Identity, `{"Condition": {"Bool": {"aws:SecureTransport": "no"}}}`, "want true or false"},
		"half an ARN":                              {Identity, `{"Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:*"}}}`, "no ARN of six parts"},
		"a wildcard as plain text":                 {Identity, `{"Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-*"}}}`, "want StringLike"},
		"a principal in a role's policy":           {Identity, `{"Principal": "*"}`, "other elements"},
		"no principal in a queue's policy":         {Resource, `{}`, "other elements"},
		"a resource in a trust policy":             {Trust, `{"Principal": "*", "Action": "sts:AssumeRole"}`, "other elements"},
	} {
		faults := reference(t).Faults(changed(t, row.elements), row.kind)
		if !strings.Contains(strings.Join(faults, "\n"), row.want) {
			t.Errorf("%s: want a fault with %q, got %q", name, row.want, faults)
		}
	}
}

func TestParse_RefusesWhatItDoesNotKnow(t *testing.T) {
	for name, document := range map[string]string{
		"another version":        `{"Version": "2008-10-17", "Statement": [{"Effect": "Allow", "Action": "a:b", "Resource": "*"}]}`,
		"no statement":           `{"Version": "2012-10-17", "Statement": []}`,
		"NotAction":              `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "NotAction": "a:b", "Resource": "*"}]}`,
		"no effect":              `{"Version": "2012-10-17", "Statement": [{"Action": "a:b", "Resource": "*"}]}`,
		"a policy variable":      `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "a:b", "Resource": "arn:${aws:username}"}]}`,
		"an intrinsic function":  `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "a:b", "Resource": {"Ref": "X"}}]}`,
		"an empty list":          `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": [], "Resource": "*"}]}`,
		"an empty value":         `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "a:b", "Resource": ""}]}`,
		"a federated principal":  `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Federated": "x"}, "Action": "a:b"}]}`,
		"a condition without it": `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "a:b", "Resource": "*", "Condition": {"Bool": "true"}}]}`,
	} {
		var parsed any
		if err := json.Unmarshal([]byte(document), &parsed); err != nil {
			t.Fatal(err)
		}
		if statements, err := Parse(parsed); err == nil {
			t.Errorf("%s: want an error, got %+v", name, statements)
		}
	}
}
