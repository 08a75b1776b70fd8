package stack

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

var root = filepath.Join("..", "..", "..")

// templates are all deployed templates.
var templates = []string{filepath.Join(root, "template.yaml"), memberTemplate}

var expansions sync.Map // by path, since each costs the start of a Python

// product returns the product's expanded template. It is shared and must not be changed.
func product(t *testing.T) map[string]any {
	t.Helper()
	return shared(t, filepath.Join(root, "template.yaml"))
}

func shared(t *testing.T, template string) map[string]any {
	t.Helper()
	if known, ok := expansions.Load(template); ok {
		return object(known)
	}
	expanded := expand(t, template)
	expansions.Store(template, expanded)
	return expanded
}

// bare and full are the fewest and the most parameters that the template accepts.
var (
	bare = map[string]string{"VaultAddr": "https://vault.example:8200"}
	full = map[string]string{
		"VaultAddr": "https://vault.example:8200", "VaultCASecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:ca-AbCdEf",
		"VaultLoginMethod": "approle", "VaultLoginSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:login-AbCdEf",
		"VpcSubnetIds": "subnet-1,subnet-2", "VpcSecurityGroupIds": "sg-1", "MemberRoleName": "member", "MemberAccountIds": "111122223333",
		"OrganizationId": "o-abcdefghij", "AllowedAccounts": "111122223333,123456789012", "DeprovisionOn": "shutting-down", "ReconcileRepairs": "queue", "Tracing": "Active", "ReconcileOverdueSeconds": "86400",
		"AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:t", "AlarmOKTopicArn": "arn:aws:sns:us-east-1:123456789012:ok", "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/k", "ReadyTag": "vault-identity", "QuarantineSeverity": "high",
		"PermissionsBoundaryArn": "arn:aws:iam::123456789012:policy/boundary", "RolePath": "/teams/vault/",
	}
)

// resolved returns the resources of the product's template for these parameters.
func resolved(t *testing.T, parameters map[string]string) map[string]any {
	t.Helper()
	return resolve(t, product(t), parameters)
}

func resolve(t *testing.T, template map[string]any, parameters map[string]string) map[string]any {
	t.Helper()
	resources, err := Resolve(template, parameters, map[string]string{
		"AWS::Region": region, "AWS::AccountId": parts.AccountID, "AWS::Partition": "aws",
	})
	if err != nil {
		t.Fatal(err)
	}
	return resources
}

// each returns the properties of the resources of a type, by logical ID. The test fails if there is none.
func each(t *testing.T, resources map[string]any, kind string) map[string]map[string]any {
	t.Helper()
	found := map[string]map[string]any{}
	for id, r := range resources {
		if object(r)["Type"] == kind {
			found[id] = object(object(r)["Properties"])
		}
	}
	if len(found) == 0 {
		t.Fatalf("the template has no %s: nothing would be tested", kind)
	}
	return found
}

func text(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestTemplates_NameNoPartition(t *testing.T) {
	for _, template := range templates {
		resources := text(t, shared(t, template)["Resources"])
		for _, fixed := range []string{"arn:aws", "amazonaws.com/", "amazonaws.com.cn"} {
			if strings.Contains(resources, fixed) {
				t.Errorf("a resource of %s contains %q, which is different in China and GovCloud", template, fixed)
			}
		}
	}
}

func TestParameters_AreExplainedAndGrouped(t *testing.T) {
	for _, path := range templates {
		template := shared(t, path)
		var grouped []string
		groups, _ := object(object(template["Metadata"])["AWS::CloudFormation::Interface"])["ParameterGroups"].([]any)
		for _, g := range groups {
			names, _ := object(g)["Parameters"].([]any)
			for _, name := range names {
				grouped = append(grouped, fmt.Sprint(name))
			}
		}
		slices.Sort(grouped)
		if declared := slices.Sorted(maps.Keys(object(template["Parameters"]))); !slices.Equal(grouped, declared) {
			t.Errorf("%s: the groups contain %q, declared are %q: a parameter in no group is shown last, without a label", path, grouped, declared)
		}
		for name, p := range object(template["Parameters"]) {
			p := object(p)
			bounded := p["AllowedPattern"] != nil || p["AllowedValues"] != nil || (p["MinValue"] != nil && p["MaxValue"] != nil)
			if !bounded && !strings.HasPrefix(name, "Vpc") { // EC2 checks those itself
				t.Errorf("%s: parameter %s accepts any value: a mistake would show only when a function starts", path, name)
			}
			if p["Description"] == nil && p["AllowedValues"] == nil {
				t.Errorf("%s: parameter %s has neither a description nor allowed values", path, name)
			}
			pattern, _ := p["AllowedPattern"].(string)
			standard, given := p["Default"].(string)
			if pattern != "" && given && standard != "" && !regexp.MustCompile(pattern).MatchString(standard) {
				t.Errorf("%s: the default %q of %s does not match its own pattern %s", path, standard, name, pattern)
			}
		}
	}
}

// A message in the reconcile queue is an unfinished run, which may delete.
func TestReconcileQueue_TakesOnlyItsFunctionOverTLS(t *testing.T) {
	statements, _ := object(object(object(resolved(t, bare)["ReconcileQueuePolicy"])["Properties"])["PolicyDocument"])["Statement"].([]any)
	denied := map[string]string{}
	for _, s := range statements {
		statement := object(s)
		if statement["Effect"] != "Deny" || statement["Principal"] != "*" {
			t.Errorf("this queue's policy needs no Allow, since its function has its own: %v", statement)
		}
		action, _ := statement["Action"].(string)
		denied[action] = text(t, statement["Condition"])
	}
	for action, want := range map[string]string{
		"sqs:SendMessage": `{"ArnNotEquals":{"aws:PrincipalArn":{"Fn::GetAtt":["ReconcileFunctionRole","Arn"]}}}`,
		"sqs:*":           `{"Bool":{"aws:SecureTransport":"false"}}`,
	} {
		if denied[action] != want {
			t.Errorf("%s is denied under %q, want %q", action, denied[action], want)
		}
	}
}

func TestQueues_TakeOnlyTheStacksRulesOverTLS(t *testing.T) {
	resources := resolved(t, full)
	guarded := map[string]bool{}
	for id, policy := range each(t, resources, "AWS::SQS::QueuePolicy") {
		statements, _ := object(policy["PolicyDocument"])["Statement"].([]any)
		tls := false
		for _, s := range statements {
			s := object(s)
			if s["Effect"] == "Deny" && s["Action"] == "sqs:*" && text(t, s["Condition"]) == `{"Bool":{"aws:SecureTransport":"false"}}` {
				tls = true
			}
			if s["Effect"] != "Allow" {
				continue
			}
			rule, _ := LogicalID(object(object(s["Condition"])["ArnEquals"])["aws:SourceArn"])
			if s["Action"] != "sqs:SendMessage" || text(t, s["Principal"]) != `{"Service":"events.amazonaws.com"}` || object(resources[rule])["Type"] != "AWS::Events::Rule" {
				t.Errorf("%s allows %s: a queue's policy may allow only a rule of this stack to send", id, text(t, s))
			}
		}
		queues, _ := policy["Queues"].([]any)
		for _, q := range queues {
			queue, _ := LogicalID(q)
			guarded[queue] = tls
		}
	}
	for id := range each(t, resources, "AWS::SQS::Queue") {
		if !guarded[id] {
			t.Errorf("queue %s accepts plain HTTP", id)
		}
	}
}

func TestStorage_IsEncryptedWithTheConfiguredKey(t *testing.T) {
	key := map[string]any{"Ref": "KmsKeyArn"}
	for name, row := range map[string]struct {
		parameters map[string]string
		key        any
		managed    any
	}{
		"AWS's keys": {bare, nil, true},
		"one's own":  {full, key, nil},
	} {
		resources := resolved(t, row.parameters)
		for id, queue := range each(t, resources, "AWS::SQS::Queue") {
			if text(t, queue["KmsMasterKeyId"]) != text(t, row.key) || queue["SqsManagedSseEnabled"] != row.managed {
				t.Errorf("%s: queue %s has the key %v, and SSE-SQS is %v", name, id, queue["KmsMasterKeyId"], queue["SqsManagedSseEnabled"])
			}
		}
		for id, group := range each(t, resources, "AWS::Logs::LogGroup") {
			if text(t, group["KmsKeyId"]) != text(t, row.key) || number(group["RetentionInDays"]) != 90 {
				t.Errorf("%s: log group %s has the key %v and keeps %v days", name, id, group["KmsKeyId"], group["RetentionInDays"])
			}
		}
		for id, table := range each(t, resources, "AWS::DynamoDB::Table") {
			if sse := object(table["SSESpecification"]); sse["SSEEnabled"] != true || text(t, sse["KMSMasterKeyId"]) != text(t, row.key) {
				t.Errorf("%s: table %s has %v", name, id, sse)
			}
		}
	}
}

func TestLedgerTable_OutlivesStackAndMistakes(t *testing.T) {
	table := object(resolved(t, bare)["Table"])
	properties := object(table["Properties"])
	for what, seen := range map[string]any{
		"deletion protection":    properties["DeletionProtectionEnabled"],
		"point-in-time recovery": object(properties["PointInTimeRecoverySpecification"])["PointInTimeRecoveryEnabled"],
		"expiry":                 object(properties["TimeToLiveSpecification"])["Enabled"],
	} {
		if seen != true {
			t.Errorf("the table has no %s: %v", what, seen)
		}
	}
	if object(properties["TimeToLiveSpecification"])["AttributeName"] != "expires_at" || properties["BillingMode"] != "PAY_PER_REQUEST" {
		t.Errorf("want items to expire by expires_at and pay by request: %v", properties)
	}
	if table["DeletionPolicy"] != "Retain" || table["UpdateReplacePolicy"] != "Retain" {
		t.Errorf("without the ledger it is not known what to remove from Vault: %v, %v", table["DeletionPolicy"], table["UpdateReplacePolicy"])
	}
	for id, r := range resolved(t, bare) {
		kind := object(r)["Type"]
		holdsData := kind == "AWS::SQS::Queue" || kind == "AWS::Logs::LogGroup" || kind == "AWS::DynamoDB::Table"
		if holdsData && (object(r)["DeletionPolicy"] == nil || object(r)["UpdateReplacePolicy"] == nil) {
			t.Errorf("%s has no deletion policy for the stack's deletion", id)
		}
	}
}

func TestQueues_BoundConcurrencyAndRedelivery(t *testing.T) {
	parameters := maps.Clone(bare)
	parameters["ProvisionMaxConcurrency"], parameters["DeprovisionMaxConcurrency"] = "7", "9"
	resources := resolved(t, parameters)
	functions := each(t, resources, "AWS::Lambda::Function")
	queues := each(t, resources, "AWS::SQS::Queue")
	limits := map[string]int{"ProvisionFunction": 7, "DeprovisionFunction": 9, "ReconcileFunction": 2}
	for id, mapping := range each(t, resources, "AWS::Lambda::EventSourceMapping") {
		function, _ := LogicalID(mapping["FunctionName"])
		queueID, _ := LogicalID(mapping["EventSourceArn"])
		queue := queues[queueID]
		if got := number(object(mapping["ScalingConfig"])["MaximumConcurrency"]); got != limits[function] {
			t.Errorf("%s: %s runs %d times side by side, want %d", id, function, got, limits[function])
		}
		delete(limits, function)
		timeout, window := number(functions[function]["Timeout"]), number(mapping["MaximumBatchingWindowInSeconds"])
		if visible := number(queue["VisibilityTimeout"]); visible < 2*timeout || visible < timeout+window+30 {
			t.Errorf("%s: a message returns after %d s, but %s may work on it for %d s and Lambda may hold it for %d s more", queueID, visible, function, timeout, window)
		}
		redrive := object(queue["RedrivePolicy"])
		dead, _ := LogicalID(redrive["deadLetterTargetArn"])
		tries := number(redrive["maxReceiveCount"])
		if queues[dead] == nil || tries < 3 {
			t.Errorf("%s: %d tries, then %q; want at least 3 and a dead-letter queue", queueID, tries, dead)
		}
		if kept, lasts := number(queue["MessageRetentionPeriod"]), tries*number(queue["VisibilityTimeout"]); kept < 2*lasts {
			t.Errorf("%s keeps messages for %d s and tries for %d s: some would expire before they reach the dead-letter queue", queueID, kept, lasts)
		}
		if number(queues[dead]["MessageRetentionPeriod"]) != 1209600 {
			t.Errorf("%s keeps messages for less than SQS allows: a message's age counts from when it was first sent", dead)
		}
		partial := slices.Contains(list(mapping["FunctionResponseTypes"]), "ReportBatchItemFailures")
		if many := number(mapping["BatchSize"]) > 1; many != partial {
			t.Errorf("%s: batches of %v and partial failures %v: one bad message would return the whole batch", id, mapping["BatchSize"], partial)
		}
		if number(mapping["BatchSize"]) > 10 && window == 0 {
			t.Errorf("%s: AWS accepts batches over 10 only with a batching window", id)
		}
	}
	if len(limits) > 0 {
		t.Errorf("these have no queue: %v", limits)
	}
	for id, f := range functions {
		if number(f["Timeout"]) > 900 || text(t, f["Architectures"]) != `[{"Ref":"Architecture"}]` || f["Runtime"] != "provided.al2023" || f["LoggingConfig"] == nil {
			t.Errorf("%s: timeout %v, %v, %v, log %v", id, f["Timeout"], f["Architectures"], f["Runtime"], f["LoggingConfig"])
		}
	}
}

func list(v any) []string {
	entries, _ := v.([]any)
	var out []string
	for _, e := range entries {
		out = append(out, fmt.Sprint(e))
	}
	return out
}

// A variable that the settings read and the template does not set would always be the default. A variable that the settings
// do not read would be a parameter without effect.
func TestSettings_ReachEachFunctionThatReadsThem(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(root, "internal", "settings", "settings.go"))
	if err != nil {
		t.Fatal(err)
	}
	read := map[string]bool{}
	for _, m := range regexp.MustCompile(`r\.\w+\("([A-Z][A-Z_]+)"`).FindAllSubmatch(source, -1) {
		read[string(m[1])] = true
	}
	if len(read) < 20 {
		t.Fatalf("the test found only %d variables of the settings", len(read))
	}
	onlyReconcile := []string{"RECONCILE_MODE", "RECONCILE_REGIONS", "RECONCILE_QUEUE_URL", "DELETE_LIMIT_PERCENT", "CONVERGE_QUEUE_URL"}
	for id, f := range each(t, resolved(t, full), "AWS::Lambda::Function") {
		set := object(object(f["Environment"])["Variables"])
		for name := range read {
			wanted := name != "TEMPLATES_DIR" && (id == "ReconcileFunction" || !slices.Contains(onlyReconcile, name))
			if name == "QUARANTINE_SEVERITY" {
				wanted = id == "DeprovisionFunction" // the only one to whose queue findings go
			}
			if _, is := set[name]; is != wanted {
				t.Errorf("%s: %s is set: %v, want %v", id, name, is, wanted)
			}
		}
		for name, value := range set {
			isGos := slices.Contains([]string{"GOMEMLIMIT", "GOGC", "GOMAXPROCS"}, name)
			if !read[name] && !isGos && !strings.HasPrefix(name, "AWS_USE_") {
				t.Errorf("%s: no code reads %s", id, name)
			}
			if function, of, ok := intrinsic(value); ok && function == "Ref" && of == "AWS::NoValue" {
				t.Errorf("%s: %s has no value", id, name)
			}
		}
	}
	used := text(t, product(t)["Resources"]) + text(t, product(t)["Conditions"])
	for name := range object(product(t)["Parameters"]) {
		if !strings.Contains(used, `"`+name+`"`) && !strings.Contains(used, "${"+name+"}") {
			t.Errorf("parameter %s has no effect", name)
		}
	}
}
