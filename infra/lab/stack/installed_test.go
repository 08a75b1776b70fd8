package stack

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/access"
)

// stackName is the name of each stack in these tests.
const stackName = "lab"

// installation is a template's stack in an account, with the names and ARNs that CloudFormation would choose.
type installation struct {
	t          *testing.T
	account    string
	path       string // of the IAM roles and policies
	parameters map[string]any
	resources  map[string]any
	pseudo     map[string]string
}

// install evaluates a template's conditions for these parameters in an account.
func install(t *testing.T, template map[string]any, parameters map[string]string, account string) installation {
	t.Helper()
	i := installation{t: t, account: account, path: "/", parameters: map[string]any{}, pseudo: map[string]string{
		"AWS::Region": region, "AWS::AccountId": account, "AWS::Partition": "aws", "AWS::StackName": stackName, "AWS::URLSuffix": "amazonaws.com",
		"AWS::StackId": "arn:aws:cloudformation:" + region + ":" + account + ":stack/" + stackName + "/3f1a7a60-0000-11ee-be56-0242ac120002",
	}}
	d, err := newDecider(template, parameters, i.pseudo)
	if err != nil {
		t.Fatal(err)
	}
	if i.resources, err = d.prune(object(template["Resources"])); err != nil {
		t.Fatal(err)
	}
	for name, p := range object(template["Parameters"]) {
		value := fmt.Sprint(d.values[name])
		if i.parameters[name] = value; object(p)["Type"] != "CommaDelimitedList" {
			continue
		}
		var values []any
		for _, one := range strings.Split(value, ",") {
			values = append(values, one)
		}
		i.parameters[name] = values
	}
	if path, _ := i.parameters["RolePath"].(string); path != "" {
		i.path = path
	}
	return i
}

// value replaces the intrinsic functions in v.
func (i installation) value(v any) any {
	i.t.Helper()
	if function, argument, ok := intrinsic(v); ok {
		return i.intrinsic(function, argument)
	}
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, entry := range v {
			out[key] = i.value(entry)
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, entry := range v {
			out = append(out, i.value(entry))
		}
		return out
	}
	return v
}

func (i installation) intrinsic(function string, argument any) any {
	i.t.Helper()
	operands, _ := argument.([]any)
	switch function {
	case "Ref":
		return i.ref(fmt.Sprint(argument))
	case "Fn::GetAtt":
		if len(operands) == 2 && operands[1] == "Arn" {
			return i.arn(fmt.Sprint(operands[0]))
		}
	case "Fn::Sub":
		if text, ok := argument.(string); ok {
			return i.substitute(text)
		}
	case "Fn::Join":
		var parts []string
		entries, _ := i.value(operands[1]).([]any)
		for _, entry := range entries {
			parts = append(parts, fmt.Sprint(entry))
		}
		return strings.Join(parts, fmt.Sprint(operands[0]))
	case "Fn::Select":
		entries, _ := i.value(operands[1]).([]any)
		if index, err := strconv.Atoi(fmt.Sprint(operands[0])); err == nil && index < len(entries) {
			return entries[index]
		}
	case "Fn::Split":
		var parts []any
		for _, part := range strings.Split(fmt.Sprint(i.value(operands[1])), fmt.Sprint(operands[0])) {
			parts = append(parts, part)
		}
		return parts
	}
	i.t.Fatalf("the test cannot evaluate %s of %v; add it in installed_test.go", function, argument)
	return nil
}

func (i installation) ref(name string) any {
	i.t.Helper()
	if value, ok := i.parameters[name]; ok {
		return value
	}
	if value, ok := i.pseudo[name]; ok {
		return value
	}
	switch object(i.resources[name])["Type"] {
	case "AWS::IAM::ManagedPolicy", "AWS::SecretsManager::Secret":
		return i.arn(name)
	case "AWS::SQS::Queue":
		return "https://sqs." + region + ".amazonaws.com/" + i.account + "/" + i.physical(name)
	case nil:
		i.t.Fatalf("the template has no %s", name)
	}
	return i.physical(name)
}

func (i installation) substitute(text string) string {
	i.t.Helper()
	for {
		before, rest, found := strings.Cut(text, "${")
		if !found {
			return text
		}
		name, after, _ := strings.Cut(rest, "}")
		value := ""
		if id, ok := strings.CutSuffix(name, ".Arn"); ok {
			value = i.arn(id)
		} else {
			value = fmt.Sprint(i.ref(name))
		}
		text = before + value + after
	}
}

// physical is the name that CloudFormation chooses, or the template.
func (i installation) physical(id string) string {
	if name, ok := object(object(i.resources[id])["Properties"])["RoleName"]; ok {
		return fmt.Sprint(i.value(name))
	}
	return stackName + "-" + id + "-1A2B3C4D5E6F"
}

// arn returns the ARN of a resource.
func (i installation) arn(id string) string {
	i.t.Helper()
	name := i.physical(id)
	service := func(prefix, rest string) string {
		return "arn:aws:" + prefix + ":" + region + ":" + i.account + ":" + rest
	}
	switch kind := object(i.resources[id])["Type"]; kind {
	case "AWS::DynamoDB::Table":
		return service("dynamodb", "table/"+name)
	case "AWS::SecretsManager::Secret":
		return service("secretsmanager", "secret:"+name+"-AbCdEf")
	case "AWS::SQS::Queue":
		return service("sqs", name)
	case "AWS::Events::Rule":
		return service("events", "rule/"+name)
	case "AWS::Lambda::Function":
		return service("lambda", "function:"+name)
	case "AWS::Logs::LogGroup": // with the streams
		return service("logs", "log-group:"+name+":*")
	case "AWS::IAM::Role":
		return "arn:aws:iam::" + i.account + ":role" + i.path + name
	case "AWS::IAM::ManagedPolicy":
		return "arn:aws:iam::" + i.account + ":policy" + i.path + name
	default:
		i.t.Fatalf("the test knows no ARN of %s, a %v; add it in installed_test.go", id, kind)
		return ""
	}
}

// policy is a policy of a stack.
type policy struct {
	name       string // the resource's logical ID and the part of it
	owner      string // logical ID: the role of an identity or trust policy, or the resource with the policy
	kind       access.Kind
	statements []access.Statement
}

// policies returns all policies of the stack. The test fails for a statement in a resource that it does not know.
func (i installation) policies() []policy {
	i.t.Helper()
	var out []policy
	add := func(name string, kind access.Kind, document any, owners ...string) {
		i.t.Helper()
		statements, err := access.Parse(i.value(document))
		if err != nil {
			i.t.Fatalf("%s: %v", name, err)
		}
		for _, owner := range owners {
			out = append(out, policy{name, owner, kind, statements})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(i.resources)) {
		properties := object(object(i.resources[id])["Properties"])
		switch kind := object(i.resources[id])["Type"]; kind {
		case "AWS::IAM::Role":
			add(id+", trust", access.Trust, properties["AssumeRolePolicyDocument"], id)
			inline, _ := properties["Policies"].([]any)
			for _, p := range inline {
				add(id+", "+fmt.Sprint(object(p)["PolicyName"]), access.Identity, object(p)["PolicyDocument"], id)
			}
		case "AWS::IAM::ManagedPolicy":
			add(id, access.Identity, properties["PolicyDocument"], i.holders(id)...)
		case "AWS::KMS::Key":
			add(id, access.Resource, properties["KeyPolicy"], id)
			// AWS's default statement: the account, whose IAM policies then decide.
			// https://docs.aws.amazon.com/kms/latest/developerguide/key-policy-default.html
			key := &out[len(out)-1]
			key.statements = slices.DeleteFunc(key.statements, func(s access.Statement) bool {
				return len(s.Principals) == 1 && s.Principals[0].Value == "arn:aws:iam::"+i.account+":root"
			})
		case "AWS::SQS::QueuePolicy":
			var queues []string
			entries, _ := properties["Queues"].([]any)
			for _, q := range entries {
				queue, _ := LogicalID(q)
				queues = append(queues, queue)
			}
			add(id, access.Resource, properties["PolicyDocument"], queues...)
		case "AWS::Events::EventBusPolicy":
			document := map[string]any{"Version": "2012-10-17", "Statement": []any{properties["Statement"]}}
			add(id, access.Resource, document, fmt.Sprint(properties["EventBusName"]))
		case "AWS::Lambda::Permission":
			function, _ := LogicalID(properties["FunctionName"])
			add(id, access.Resource, i.permission(properties, function), function)
		default:
			if strings.Contains(text(i.t, properties), `"Effect"`) {
				i.t.Fatalf("%s, a %v, has a policy that the test does not read", id, kind)
			}
		}
	}
	return out
}

// holders returns the roles with a managed policy.
func (i installation) holders(id string) []string {
	var roles []string
	for _, role := range slices.Sorted(maps.Keys(i.resources)) {
		attached, _ := object(object(i.resources[role])["Properties"])["ManagedPolicyArns"].([]any)
		if slices.ContainsFunc(attached, func(a any) bool { held, _ := LogicalID(a); return held == id }) {
			roles = append(roles, role)
		}
	}
	return roles
}

// permission returns the statement that Lambda adds to a function's policy.
// https://docs.aws.amazon.com/lambda/latest/dg/access-control-resource-based.html
func (i installation) permission(properties map[string]any, function string) map[string]any {
	return map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Effect": "Allow", "Principal": map[string]any{"Service": properties["Principal"]}, "Action": properties["Action"],
		"Resource":  i.arn(function),
		"Condition": map[string]any{"ArnLike": map[string]any{"aws:SourceArn": properties["SourceArn"]}},
	}}}
}
