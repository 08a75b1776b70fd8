package stack

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// quota is a bound of AWS on one thing that a template makes.
type quota struct {
	what   string
	seen   int
	atMost int
}

// check fails the test for each quota that is exceeded.
func check(t *testing.T, where string, quotas ...quota) {
	t.Helper()
	for _, q := range quotas {
		if q.seen > q.atMost {
			t.Errorf("%s has %d %s, AWS takes %d: the deployment would fail", where, q.seen, q.what, q.atMost)
		}
	}
}

// times returns a text of n characters.
func times(n int) string { return strings.Repeat("x", n) }

// widest are the longest values of the parameters that reach a bounded text: as long as a parameter allows, or plausible.
var widest = with(longest, map[string]string{
	"ReadyTag": times(128), "HookPrefix": times(200), "AuditEventBusName": times(256), "RunbookUrl": "https://" + times(504),
	"AlarmTopicArn": "arn:aws-us-gov:sns:us-gov-west-1:123456789012:" + times(256), "AlarmOKTopicArn": "arn:aws-us-gov:sns:us-gov-west-1:123456789012:" + times(256),
	"KmsKeyArn": "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/mrk-" + times(32), "RolePath": "/" + times(64) + "/", "MemberRoleName": times(64) + "/" + times(64),
	"PermissionsBoundaryArn": "arn:aws-us-gov:iam::123456789012:policy/" + times(128), "OrganizationId": "o-" + times(32), "MemberAccountIds": "111122223333", "AllowedAccounts": "*",
	"VpcSubnetIds": "subnet-1", "VpcSecurityGroupIds": "sg-1", "Tracing": "Active", "DeprovisionOn": "shutting-down",
})

// widestMember are those of a member stack: three functions, and five servers of Vault with a role each.
var widestMember = map[string]string{
	"CentralEventBusArn": "arn:aws-us-gov:events:us-gov-west-1:210987654321:event-bus/default", "FunctionRoleArns": roles(3), "VaultPrincipalArns": roles(5),
	"ExternalId": times(128), "RolesRegion": region, "MemberRoleName": times(64), "VaultRoleName": times(64), "HookPrefix": times(200), "ReadyTag": times(128),
	"RolePath": "/" + times(64) + "/", "RunbookUrl": "https://" + times(504),
}

// roles returns the ARNs of n roles with long names, with commas between them.
func roles(n int) string {
	return strings.TrimSuffix(strings.Repeat("arn:aws-us-gov:iam::210987654321:role/"+times(66)+times(64)+",", n), ",")
}

// wide resolves references to the longest text that each can become.
type wide struct {
	template map[string]any
	values   map[string]string // parameters and pseudo parameters
}

// widestStack returns the template's resources with the longest texts, by logical ID.
func widestStack(t *testing.T, path string) map[string]any {
	t.Helper()
	template, given := shared(t, path), widest
	if path == memberTemplate {
		given = widestMember
	}
	w := wide{template: template, values: map[string]string{
		"AWS::Partition": "aws-us-gov", "AWS::Region": "ap-southeast-1", "AWS::AccountId": "123456789012", "AWS::URLSuffix": "amazonaws.com.cn",
		"AWS::StackName": times(128), // https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html
		"AWS::StackId":   "arn:aws-us-gov:cloudformation:ap-southeast-1:123456789012:stack/" + times(128) + "/" + times(36),
	}}
	for name, p := range object(template["Parameters"]) {
		w.values[name] = fmt.Sprint(object(p)["Default"])
	}
	maps.Copy(w.values, given)
	return object(w.fill(t, resolve(t, template, given)))
}

// names are the longest names that CloudFormation generates for a type of resource, and the beginning of its ARN.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-name.html
var names = map[string]struct {
	length int
	arn    string
}{
	"AWS::SQS::Queue":         {80, "sqs:ap-southeast-1:123456789012:"},
	"AWS::Lambda::Function":   {64, "lambda:ap-southeast-1:123456789012:function:"},
	"AWS::Events::Rule":       {64, "events:ap-southeast-1:123456789012:rule/"},
	"AWS::IAM::Role":          {64, "iam::123456789012:role/" + times(66)},
	"AWS::IAM::ManagedPolicy": {128, "iam::123456789012:policy/" + times(66)},
	"AWS::DynamoDB::Table":    {255, "dynamodb:ap-southeast-1:123456789012:table/"},
	"AWS::Logs::LogGroup":     {255, "logs:ap-southeast-1:123456789012:log-group:"},
}

// name returns the longest text of a reference to a parameter or a resource.
func (w wide) name(t *testing.T, name, attribute string) string {
	t.Helper()
	if value, ok := w.values[name]; ok {
		return value
	}
	kind := fmt.Sprint(object(object(w.template["Resources"])[name])["Type"])
	n, known := names[kind]
	if !known {
		t.Fatalf("the longest name of %s, of type %s, is not known: add it to names", name, kind)
	}
	if attribute == "Arn" || kind == "AWS::IAM::ManagedPolicy" {
		return "arn:aws-us-gov:" + n.arn + times(n.length)
	}
	return times(n.length)
}

func (w wide) fill(t *testing.T, v any) any {
	t.Helper()
	function, argument, _ := intrinsic(v)
	operands, _ := argument.([]any)
	switch function {
	case "Ref":
		value := w.name(t, fmt.Sprint(argument), "")
		if object(object(w.template["Parameters"])[fmt.Sprint(argument)])["Type"] == "CommaDelimitedList" {
			return strings.Split(value, ",")
		}
		return value
	case "Fn::GetAtt":
		id, _ := LogicalID(v)
		return w.name(t, id, fmt.Sprint(operands[1]))
	case "Fn::Sub":
		return placeholder.ReplaceAllStringFunc(fmt.Sprint(argument), func(found string) string {
			name, attribute, _ := strings.Cut(strings.Trim(found, "${}"), ".")
			return w.name(t, name, attribute)
		})
	case "Fn::Join":
		return strings.Join(list(w.fill(t, operands[1])), fmt.Sprint(operands[0]))
	case "Fn::Select":
		_, split, _ := intrinsic(operands[1])
		of, _ := split.([]any)
		index, err := strconv.Atoi(fmt.Sprint(operands[0]))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(fmt.Sprint(w.fill(t, of[1])), fmt.Sprint(of[0]))[index]
	}
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, entry := range v {
			out[key] = w.fill(t, entry)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, entry := range v {
			out[i] = w.fill(t, entry)
		}
		return out
	}
	return v
}

// ofKind returns the properties of a type's resources by logical ID; none if there are none.
func ofKind(resources map[string]any, kind string) map[string]map[string]any {
	found := map[string]map[string]any{}
	for id, r := range resources {
		if object(r)["Type"] == kind {
			found[id] = object(object(r)["Properties"])
		}
	}
	return found
}

// many returns a value that may be a list as a list.
func many(v any) []any {
	if l, ok := v.([]any); ok {
		return l
	}
	if v == nil {
		return nil
	}
	return []any{v}
}

// IAM counts characters without white space, as text returns them.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
func TestRoles_FitIAM(t *testing.T) {
	for _, path := range templates {
		resources := widestStack(t, path)
		for id, role := range each(t, resources, "AWS::IAM::Role") {
			inline := 0
			for _, p := range many(role["Policies"]) {
				inline += len(text(t, object(p)["PolicyDocument"]))
			}
			check(t, id, quota{"characters in inline policies", inline, 10240}, quota{"characters in its trust policy", len(text(t, role["AssumeRolePolicyDocument"])), 2048},
				quota{"managed policies", len(many(role["ManagedPolicyArns"])), 10}, quota{"characters in its description", len(fmt.Sprint(role["Description"])), 1000},
				quota{"characters in its path", len(fmt.Sprint(role["Path"])), 512})
			t.Logf("%s: %d of 10240 in inline policies, %d of 2048 in its trust policy", id, inline, len(text(t, role["AssumeRolePolicyDocument"])))
		}
		for id, policy := range ofKind(resources, "AWS::IAM::ManagedPolicy") {
			check(t, id, quota{"characters", len(text(t, policy["PolicyDocument"])), 6144})
			t.Logf("%s: %d of 6144", id, len(text(t, policy["PolicyDocument"])))
		}
	}
}

// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-policies.html
func TestQueuePolicies_FitSQS(t *testing.T) {
	for id, policy := range each(t, widestStack(t, templates[0]), "AWS::SQS::QueuePolicy") {
		statements := many(object(policy["PolicyDocument"])["Statement"])
		conditions := 0
		for _, s := range statements {
			for _, keys := range object(object(s)["Condition"]) {
				conditions += len(object(keys))
			}
			check(t, id, quota{"actions in a statement", len(many(object(s)["Action"])), 7})
		}
		check(t, id, quota{"bytes", len(text(t, policy["PolicyDocument"])), 8192}, quota{"statements", len(statements), 20},
			quota{"conditions", conditions, 10}, quota{"principals", len(statements), 50}) // one for each statement
		t.Logf("%s: %d of 8192", id, len(text(t, policy["PolicyDocument"])))
	}
}

func TestRules_FitEventBridge(t *testing.T) {
	for _, path := range templates {
		resources := widestStack(t, path)
		for id, rule := range each(t, resources, "AWS::Events::Rule") {
			check(t, id,
				quota{"characters in its pattern", len(text(t, rule["EventPattern"])), 2048}, // https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-quota.html
				quota{"targets", len(many(rule["Targets"])), 5},
				quota{"characters in its description", len(fmt.Sprint(rule["Description"])), 512}) // https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutRule.html
		}
		for id, policy := range ofKind(resources, "AWS::Events::EventBusPolicy") {
			name := fmt.Sprint(policy["StatementId"])
			// https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutPermission.html
			check(t, id, quota{"characters in its StatementId", len(name), 64})
			if !regexp.MustCompile(`^[a-zA-Z0-9-_]+$`).MatchString(name) {
				t.Errorf("%s: EventBridge refuses the StatementId %s", id, name)
			}
		}
	}
}

// https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
func TestAlarms_FitCloudWatch(t *testing.T) {
	for _, path := range templates {
		for id, alarm := range each(t, widestStack(t, path), "AWS::CloudWatch::Alarm") {
			queries := many(alarm["Metrics"])
			check(t, id, quota{"characters in its name", len(fmt.Sprint(alarm["AlarmName"])), 255}, quota{"characters in its description", len(fmt.Sprint(alarm["AlarmDescription"])), 1024},
				quota{"actions", len(many(alarm["AlarmActions"])), 5}, quota{"actions", len(many(alarm["OKActions"])), 5},
				quota{"dimensions", len(many(alarm["Dimensions"])), 30},
				quota{"metrics and expressions", len(queries), 10}) // https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/Create-alarm-on-metric-math-expression.html
			for _, q := range queries {
				dimensions := many(object(object(object(q)["MetricStat"])["Metric"])["Dimensions"])
				check(t, id, quota{"dimensions", len(dimensions), 30})
				for _, d := range dimensions {
					// https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_Dimension.html
					check(t, id, quota{"characters in a dimension", len(fmt.Sprint(object(d)["Value"])), 1024})
				}
			}
		}
	}
}

// https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html
func TestDashboard_FitsCloudWatch(t *testing.T) {
	for id, properties := range each(t, widestStack(t, templates[0]), "AWS::CloudWatch::Dashboard") {
		var body struct {
			Widgets []struct{ Properties struct{ Metrics []any } }
		}
		if err := json.Unmarshal([]byte(fmt.Sprint(properties["DashboardBody"])), &body); err != nil {
			t.Fatal(err)
		}
		metrics := 0
		for _, w := range body.Widgets {
			metrics += len(w.Properties.Metrics)
			check(t, id, quota{"metrics in a widget", len(w.Properties.Metrics), 500})
		}
		check(t, id, quota{"widgets", len(body.Widgets), 500}, quota{"metrics", metrics, 2500},
			quota{"characters in its name", len(fmt.Sprint(properties["DashboardName"])), 255}) // https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutDashboard.html
	}
}

// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
func TestTemplates_FitCloudFormation(t *testing.T) {
	for _, path := range templates {
		written, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		template := shared(t, path)
		check(t, path, quota{"bytes as written", len(written), 1_000_000}, quota{"bytes as expanded", len(text(t, template)), 1_000_000},
			quota{"resources", len(object(template["Resources"])), 500}, quota{"parameters", len(object(template["Parameters"])), 200},
			quota{"outputs", len(object(template["Outputs"])), 200}, quota{"mappings", len(object(template["Mappings"])), 200},
			quota{"bytes in its description", len(fmt.Sprint(template["Description"])), 1024})
		for name, m := range object(template["Mappings"]) {
			check(t, path+": mapping "+name, quota{"attributes", len(object(m)), 200})
		}
		for name, p := range object(template["Parameters"]) {
			// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/parameters-section-structure.html
			check(t, path+": parameter "+name, quota{"characters in its description", len(fmt.Sprint(object(p)["Description"])), 4000},
				quota{"bytes in its value", len(widest[name]), parameterLimit})
		}
		for id, f := range ofKind(object(template["Resources"]), "AWS::Lambda::Function") {
			// https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
			check(t, id, quota{"characters in its description", len(fmt.Sprint(f["Description"])), 256})
		}
		if path == memberTemplate {
			// For --template-body, as docs/accounts.md passes it.
			check(t, path, quota{"bytes as written", len(written), 51_200})
		}
	}
}
