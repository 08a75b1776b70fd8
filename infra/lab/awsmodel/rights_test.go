package awsmodel

import (
	"context"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/access"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// asked are the action, the resource and the condition keys of a part of a call.
type asked struct {
	action, resource string
	keys             map[string][]string
}

// authorized returns what AWS authorizes for a call with an input. A role in another account is left out: its trust policy decides too
// (TestAssumeRole_StaysInTheOrganization).
func authorized(w *lab.World, c tap.Call, input map[string]any) []asked {
	arn := func(service, resource string) string {
		return "arn:aws:" + service + ":" + c.Region + ":" + w.AccountID + ":" + resource
	}
	operation := c.Service + ":" + c.Action
	text := func(of map[string]any, name string) string { s, _ := of[name].(string); return s }
	switch operation {
	case "sts:GetCallerIdentity", "sts:AssumeRole":
		return nil
	case "dynamodb:TransactWriteItems":
		var out []asked
		for _, item := range list(input["TransactItems"]) {
			for kind, part := range members(item) {
				action := map[string]string{"Put": "dynamodb:PutItem", "Delete": "dynamodb:DeleteItem"}[kind]
				out = append(out, asked{action, arn("dynamodb", "table/"+text(members(part), "TableName")), leading(members(part))})
			}
		}
		return out
	case "dynamodb:BatchGetItem":
		for table, part := range members(input["RequestItems"]) {
			var keys []string
			for _, key := range list(members(part)["Keys"]) {
				keys = append(keys, leading(map[string]any{"Key": key})["dynamodb:LeadingKeys"]...)
			}
			return []asked{{operation, arn("dynamodb", "table/"+table), map[string][]string{"dynamodb:LeadingKeys": keys}}}
		}
	case "ec2:CreateTags":
		var keys []string
		for _, tag := range list(input["Tags"]) {
			keys = append(keys, text(members(tag), "Key"))
		}
		var out []asked
		for _, id := range list(input["Resources"]) {
			out = append(out, asked{operation, arn("ec2", "instance/"+id.(string)), map[string][]string{"aws:TagKeys": keys}})
		}
		return out
	case "iam:GetInstanceProfile":
		return []asked{{operation, "arn:aws:iam::" + w.AccountID + ":instance-profile/" + text(input, "InstanceProfileName"), nil}}
	case "sqs:SendMessageBatch":
		url := text(input, "QueueUrl")
		return []asked{{"sqs:SendMessage", arn("sqs", url[strings.LastIndex(url, "/")+1:]), nil}}
	case "events:PutEvents":
		var out []asked
		for _, e := range list(input["Entries"]) {
			entry := members(e)
			out = append(out, asked{operation, arn("events", "event-bus/"+text(entry, "EventBusName")), map[string][]string{"events:source": {text(entry, "Source")}}})
		}
		return out
	case "secretsmanager:GetSecretValue":
		return []asked{{operation, text(input, "SecretId"), nil}}
	case "autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat":
		return []asked{{operation, arn("autoscaling", "autoScalingGroup:3f1a7a60-0000-11ee-be56-0242ac120002:autoScalingGroupName/"+text(input, "AutoScalingGroupName")), nil}}
	}
	if table := text(input, "TableName"); table != "" {
		return []asked{{operation, arn("dynamodb", "table/"+table), leading(input)}}
	}
	return []asked{{operation, "*", nil}}
}

func list(value any) []any {
	l, _ := value.([]any)
	return l
}

// leading returns the condition key for the partition key of an item; nil if the input names none.
func leading(input map[string]any) map[string][]string {
	for _, name := range []string{"Key", "Item"} {
		if pk, ok := members(members(input[name])["pk"])["S"].(string); ok {
			return map[string][]string{"dynamodb:LeadingKeys": {pk}}
		}
	}
	return nil
}

// statementsOf returns the statements of the policies of a function's role as they are deployed.
func statementsOf(ctx context.Context, t *testing.T, w *lab.World, caller string) []access.Statement {
	t.Helper()
	role := w.Stack.Functions[caller].RoleARN
	interpreter := partstest.Python(t)
	client, name := iam.NewFromConfig(w.AWS), role[strings.LastIndex(role, "/")+1:]
	var documents []string
	inline, err := client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: &name})
	if err != nil {
		t.Fatal(err)
	}
	for _, policy := range inline.PolicyNames {
		out, err := client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &name, PolicyName: &policy})
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, aws.ToString(out.PolicyDocument))
	}
	// moto makes the managed policies of a stack, and attaches none.
	properties := members(members(members(w.Stack.Deployed["Resources"])[caller+"Role"])["Properties"])
	for _, managed := range list(properties["ManagedPolicyArns"]) {
		id, _ := members(managed)["Ref"].(string)
		out, err := client.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: aws.String(w.Stack.Resources[id]), VersionId: aws.String("v1")})
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, aws.ToString(out.PolicyVersion.Document))
	}
	var all []access.Statement
	for _, d := range documents {
		// moto keeps the inline policies of a stack as Python prints them.
		convert := exec.CommandContext(ctx, interpreter, "-c", "import ast, json, sys, urllib.parse; print(json.dumps(ast.literal_eval(urllib.parse.unquote(sys.stdin.read()))))")
		convert.Stdin = strings.NewReader(d)
		text, err := convert.Output()
		if err != nil {
			t.Fatalf("reading a policy of %s: %v\n%s", role, err, d)
		}
		var document any
		if err := json.Unmarshal(text, &document); err != nil {
			t.Fatalf("a policy of %s: %v\n%s", role, err, text)
		}
		statements, err := access.Parse(document)
		if err != nil {
			t.Fatalf("a policy of %s: %v\n%s", role, err, text)
		}
		all = append(all, statements...)
	}
	return all
}

// wantAllowed fails unless the policies of the functions' roles allow each of their recorded calls.
func wantAllowed(t *testing.T, w *lab.World, models *Models, calls []tap.Call) {
	t.Helper()
	roles, checked := map[string][]access.Statement{}, 0
	for _, c := range calls {
		caller := w.Caller(c)
		if caller == "" {
			continue // with a member role, or by the command
		}
		role := w.Stack.Functions[caller].RoleARN
		if roles[caller] == nil {
			roles[caller] = statementsOf(t.Context(), t, w, caller)
		}
		model, err := models.Of(c.Service)
		if err != nil {
			t.Fatal(err)
		}
		input, err := model.decode(model.Operations[c.Action].Input, c.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range authorized(w, c, members(input)) {
			q := access.Request{Caller: access.Caller{Role: role}, Action: a.action, Resource: a.resource, Account: w.AccountID, Context: a.keys}
			if ok, err := access.Allowed(q, access.Policies{Identity: roles[caller]}); err != nil || !ok {
				t.Errorf("%s: its role does not allow its own call %s of %s with %v (%v): AWS would refuse it", caller, a.action, a.resource, a.keys, err)
			}
			checked++
		}
	}
	if len(roles) != 3 || checked < 20 {
		t.Errorf("want the calls of three functions checked, seen %d of %d functions", checked, len(roles))
	}
}
