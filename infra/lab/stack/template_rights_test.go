package stack

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// throughLibraries are the actions of calls that the SDK makes itself, with the code that causes them.
var throughLibraries = map[string]string{"sts:AssumeRole": "stscreds.NewAssumeRoleProvider"}

// byServices are the actions that AWS's services use with a function's role, and its code does not.
var byServices = map[string]string{
	"logs:CreateLogStream":          "Lambda writes the log",
	"logs:PutLogEvents":             "Lambda writes the log",
	"sqs:ReceiveMessage":            "Lambda polls the queue",
	"sqs:DeleteMessage":             "Lambda polls the queue",
	"sqs:GetQueueAttributes":        "Lambda polls the queue",
	"xray:PutTraceSegments":         "Lambda traces",
	"xray:PutTelemetryRecords":      "Lambda traces",
	"kms:Decrypt":                   "SQS and DynamoDB decrypt with the caller's right to the key",
	"kms:GenerateDataKey":           "SQS encrypts what reconcile sends with the caller's right to the key",
	"ec2:CreateNetworkInterface":    "Lambda's way into the VPC",
	"ec2:DescribeNetworkInterfaces": "Lambda's way into the VPC",
	"ec2:DescribeSubnets":           "Lambda's way into the VPC",
	"ec2:DeleteNetworkInterface":    "Lambda's way into the VPC",
	"ec2:AssignPrivateIpAddresses":  "Lambda's way into the VPC", "ec2:UnassignPrivateIpAddresses": "Lambda's way into the VPC",
}

// statements returns the statements of a role's policies, managed ones included.
func statements(t *testing.T, resources map[string]any, role string) []map[string]any {
	t.Helper()
	properties := object(object(resources[role])["Properties"])
	var documents []any
	inline, _ := properties["Policies"].([]any)
	for _, p := range inline {
		documents = append(documents, object(p)["PolicyDocument"])
	}
	managed, _ := properties["ManagedPolicyArns"].([]any)
	for _, m := range managed {
		id, ok := LogicalID(m)
		if !ok {
			t.Errorf("%s has the policy %v, which is not in this template", role, m)
		}
		documents = append(documents, object(object(resources[id])["Properties"])["PolicyDocument"])
	}
	var out []map[string]any
	for _, d := range documents {
		all, _ := object(d)["Statement"].([]any)
		for _, s := range all {
			out = append(out, object(s))
		}
	}
	return out
}

func actionsOf(statement map[string]any) []string {
	if one, ok := statement["Action"].(string); ok {
		return []string{one}
	}
	return list(statement["Action"])
}

// grants returns the actions that a role is allowed, with the resources of each.
func grants(t *testing.T, resources map[string]any, role string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, s := range statements(t, resources, role) {
		if s["Effect"] == "Deny" {
			continue
		}
		for _, action := range actionsOf(s) {
			if s["Effect"] != "Allow" || strings.Contains(action, "*") {
				t.Errorf("%s: %s: want an Allow of named actions", role, text(t, s))
			}
			out[action] = append(out[action], text(t, s["Resource"]))
		}
	}
	return out
}

func TestFunctionRole_AllowsExactlyItsActions(t *testing.T) {
	common := []string{
		"dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "ec2:DescribeInstances", "events:PutEvents", "iam:GetInstanceProfile",
		"kms:Decrypt", "kms:GenerateDataKey", "logs:CreateLogStream", "logs:PutLogEvents", "secretsmanager:GetSecretValue",
		"sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:SendMessage", "sts:AssumeRole", "xray:PutTelemetryRecords", "xray:PutTraceSegments",
		"ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces",
		"ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
	}
	reconciles := []string{"dynamodb:Scan", "dynamodb:DescribeTable", "dynamodb:DescribeContinuousBackups", "dynamodb:DescribeTimeToLive"}
	ofEvents := []string{"autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat", "dynamodb:BatchGetItem"}
	optional := []string{"kms:", "xray:", "sts:", "secretsmanager:", "ec2:Assign", "ec2:Create", "ec2:Delete", "ec2:DescribeN", "ec2:DescribeS", "ec2:Unassign"}
	// These actions have no resource-level permissions, or Lambda uses them on all resources.
	everywhere := regexp.MustCompile(`^(ec2:(Describe|AssignP|CreateN|DeleteN|UnassignP)|xray|autoscaling:Describe)`)
	for name, parameters := range map[string]map[string]string{"full": full, "bare": bare} {
		resources := resolved(t, parameters)
		for _, function := range []string{"Provision", "Deprovision", "Reconcile"} {
			want := slices.Clone(common)
			switch function {
			case "Reconcile":
				want = append(want, reconciles...)
				want = append(want, "autoscaling:DescribeAutoScalingInstances")
			case "Deprovision":
				want = append(want, "autoscaling:DescribeAutoScalingInstances")
				fallthrough
			default:
				want = append(want, ofEvents...)
			}
			want = append(want, "ec2:CreateTags")
			if name == "bare" {
				want = slices.DeleteFunc(want, func(a string) bool {
					return slices.ContainsFunc(optional, func(prefix string) bool { return strings.HasPrefix(a, prefix) })
				})
			}
			slices.Sort(want)
			got := grants(t, resources, function+"FunctionRole")
			if actions := slices.Sorted(maps.Keys(got)); !slices.Equal(actions, want) {
				t.Errorf("%s, %s may do\n%q, want\n%q", name, function, actions, want)
			}
			for action, on := range got {
				if slices.Contains(on, `"*"`) && !everywhere.MatchString(action) {
					t.Errorf("%s, %s may do %s everywhere", name, function, action)
				}
			}
		}
		roles := map[string]string{}
		for id, f := range each(t, resources, "AWS::Lambda::Function") {
			role, _ := LogicalID(f["Role"])
			if other, taken := roles[role]; taken || role == "" {
				t.Errorf("%s and %s share the role %q: each would have the other's rights", id, other, role)
			}
			roles[role] = id
		}
	}
}

// ledgerKeys are the ledger's keys on which each function may use each action; * ends a prefix.
var ledgerKeys = map[string]map[string][]string{
	"Provision": {
		"dynamodb:BatchGetItem": {"instance#*"},
		"dynamodb:GetItem":      {"instance#*", "claim#*", "waiting#*", "certificates#*", "profiles", "profiles#*", "teardown"},
		"dynamodb:PutItem":      {"instance#*", "claim#*", "waiting#*"},
		"dynamodb:DeleteItem":   {"claim#*"}, // a record is never deleted: its tombstone expires
	},
	"Deprovision": {
		"dynamodb:BatchGetItem": {"instance#*"},
		"dynamodb:GetItem":      {"instance#*", "claim#*", "waiting#*", "certificates#*", "profiles", "profiles#*", "teardown"},
		"dynamodb:PutItem":      {"instance#*", "certificates#*"},
		"dynamodb:DeleteItem":   {"claim#*"},
	},
	"Reconcile": {
		"dynamodb:GetItem":    {"instance#*", "claim#*", "waiting#*", "certificates#*", "profiles", "profiles#*", "teardown"},
		"dynamodb:PutItem":    {"instance#*", "claim#*", "waiting#*", "certificates#*", "teardown"},
		"dynamodb:DeleteItem": {"claim#*"},
	},
}

// byTable are the actions that cannot be limited to keys.
var byTable = []string{"dynamodb:Scan", "dynamodb:DescribeTable", "dynamodb:DescribeContinuousBackups", "dynamodb:DescribeTimeToLive"}

// The test compares the template with the list above. TestFunctions_MayDoExactlyTheirCalls evaluates the conditions, which
// DynamoDB Local and moto do not.
func TestLedgerRights_BoundEachRoleToItsKeys(t *testing.T) {
	for name, parameters := range map[string]map[string]string{"full": full, "bare": bare} {
		resources := resolved(t, parameters)
		for function, want := range ledgerKeys {
			got := map[string][]string{}
			for _, s := range statements(t, resources, function+"FunctionRole") {
				for _, action := range actionsOf(s) {
					if !strings.HasPrefix(action, "dynamodb:") || (function == "Reconcile" && slices.Contains(byTable, action)) {
						continue
					}
					keys := list(object(object(s["Condition"])["ForAllValues:StringLike"])["dynamodb:LeadingKeys"])
					only := text(t, map[string]any{
						"ForAllValues:StringLike": map[string]any{"dynamodb:LeadingKeys": keys},
						// ForAllValues is true for a call without keys.
						"Null": map[string]any{"dynamodb:LeadingKeys": "false"},
					})
					if condition := text(t, s["Condition"]); condition != only || text(t, s["Resource"]) != `{"Fn::GetAtt":["Table","Arn"]}` {
						t.Errorf("%s, %s may %s on %s under %s, want the ledger's table under %s", name, function, action, text(t, s["Resource"]), condition, only)
					}
					got[action] = append(got[action], keys...)
				}
			}
			if !maps.EqualFunc(got, want, slices.Equal[[]string]) {
				t.Errorf("%s, %s may do on the ledger\n%q, want\n%q", name, function, got, want)
			}
		}
	}
}

// Lambda makes the interfaces in a VPC with the function's role. Code with the same rights could move an address to another
// instance and get a certificate for it.
func TestNetworkRights_AreDeniedToFunctionCode(t *testing.T) {
	lambdas := []string{
		"ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface", "ec2:DeleteNetworkInterface",
		"ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses",
	}
	// A generated name is cut to 64 characters, including the stack's name, so a pattern of names could miss a function.
	const functions = `{"ArnLike":{"lambda:SourceFunctionArn":{"Fn::Sub":"arn:${AWS::Partition}:lambda:*:${AWS::AccountId}:function:*"}}}`
	for name, row := range map[string]struct {
		parameters map[string]string
		want       int
	}{"in a VPC": {full, 1}, "outside": {bare, 0}} {
		resources := resolved(t, row.parameters)
		for _, f := range each(t, resources, "AWS::Lambda::Function") {
			role, _ := LogicalID(f["Role"])
			found := 0
			for _, s := range statements(t, resources, role) {
				if s["Effect"] != "Deny" {
					continue
				}
				found++
				actions := slices.Sorted(slices.Values(actionsOf(s)))
				if !slices.Equal(actions, lambdas) || text(t, s["Condition"]) != functions || s["Resource"] != "*" {
					t.Errorf("%s, %s is denied %s, want %q on everything under %s", name, role, text(t, s), lambdas, functions)
				}
				for action := range grants(t, resources, role) {
					if byServices[action] != "Lambda's way into the VPC" && slices.Contains(actions, action) {
						t.Errorf("%s, %s is denied %s, which its code needs", name, role, action)
					}
				}
			}
			if found != row.want {
				t.Errorf("%s, %s has %d statements that deny, want %d", name, role, found, row.want)
			}
		}
	}
}

// A right to write any tag would be a right to choose an instance's grant.
func TestTagRights_AllowOnlyOneTag(t *testing.T) {
	const only = `{"ForAllValues:StringEquals":{"aws:TagKeys":{"Ref":"ReadyTag"}},"Null":{"aws:TagKeys":"false"}}`
	parameters := member()
	parameters["ReadyTag"] = full["ReadyTag"]
	for name, resources := range map[string]map[string]any{
		"the stack": resolved(t, full), "a member account": resolve(t, shared(t, memberTemplate), parameters),
	} {
		found := 0
		for id, r := range resources {
			properties := object(object(r)["Properties"])
			documents := []any{properties["PolicyDocument"]}
			policies, _ := properties["Policies"].([]any)
			for _, p := range policies {
				documents = append(documents, object(p)["PolicyDocument"])
			}
			for _, d := range documents {
				statements, _ := object(d)["Statement"].([]any)
				for _, s := range statements {
					if object(s)["Action"] != "ec2:CreateTags" {
						continue
					}
					found++
					if got := text(t, object(s)["Condition"]); got != only {
						t.Errorf("%s, %s may tag under the condition %s, want %s", name, id, got, only)
					}
				}
			}
		}
		if found != 1 {
			t.Errorf("%s: %d statements let tags be written, want one", name, found)
		}
	}
}

// Each granted action has a call in the code or a service that needs it, and each call has its action.
func TestActions_GrantedAreExactlyThoseCalled(t *testing.T) {
	source := productSource(t)
	needed := map[string]bool{}
	for _, m := range regexp.MustCompile(`\b(autoscaling|dynamodb|ec2|iam|sts|sqs|secretsmanager|eventbridge|lambda|sns|kms)\.([A-Z]\w+)Input\b`).FindAllStringSubmatch(source, -1) {
		call := m[1] + "." + m[2]
		actions, known := Operations[call]
		if !known && throughLibraries[m[1]+":"+m[2]] == "" {
			t.Errorf("the code calls %s, which operations does not list", call)
		}
		for _, a := range actions {
			needed[a] = true
		}
		needed[call] = true
	}
	for call := range Operations {
		if !needed[call] {
			t.Errorf("the code no longer calls %s", call)
		}
	}
	if strings.Contains(source, "types.ConditionCheck{") { // another part of a transaction, with its own action
		needed["dynamodb:ConditionCheckItem"] = true
	}
	for action, by := range throughLibraries {
		if needed[action] = strings.Contains(source, by); !needed[action] {
			t.Errorf("%s is listed for %s, which is not used", action, by)
		}
	}
	resources := resolved(t, full)
	granted := map[string]bool{}
	for _, function := range []string{"Provision", "Deprovision", "Reconcile"} {
		for action := range grants(t, resources, function+"FunctionRole") {
			granted[action] = true
			if !needed[action] && byServices[action] == "" {
				t.Errorf("%s may do %s, which no code calls", function, action)
			}
		}
	}
	for action := range needed {
		if strings.Contains(action, ":") && !granted[action] {
			t.Errorf("the code needs %s, which no function is allowed", action)
		}
	}
	for action := range byServices {
		if !granted[action] {
			t.Errorf("%s is not granted: %s", action, byServices[action])
		}
	}
}

// productSource returns the source text of the functions and their packages, without tests.
func productSource(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"functions", "internal"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			data, err := os.ReadFile(path)
			all.Write(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}
