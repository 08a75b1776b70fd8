package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// wholeLife runs both functions through all that they do: a grant, a changed name, another account, a removal. It returns
// their logs.
func wholeLife(t *testing.T) string {
	t.Helper()
	byTag := changed(t, "worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, "fqdn: '{{ .Tag \"Name\" }}'\nfqdn_suffixes: [example]")
	provisioning := variant(t, provision, map[string]string{"TEMPLATES_DIR": byTag})
	removing := variant(t, deprovision, nil)
	unique := strings.ToLower(fmt.Sprintf("life-%d", time.Now().UnixNano()))
	here := launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": unique + "-a.example"}})
	there := launch(t, fleet.Spec{Role: "alice-worker", AccountID: "222233334444", Tags: map[string]string{"Name": unique + "-b.example"}})
	for _, i := range []fleet.Instance{here, there} {
		mustBy(t, provisioning, i, "running", "provisioned")
	}
	if again, result := labtest.Deliver(t, provisioning, fleet.Event(here, "running", time.Now()), fleet.Event(there, "running", time.Now())); len(again) > 0 {
		t.Fatalf("want both events of a batch handled, got %v back, %v", again, result.Err())
	}
	setTags(t, here, map[string]string{"Name": unique + "-c.example"})
	mustBy(t, provisioning, here, "running", "provisioned")
	login(t, here)
	heir := launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": unique + "-c.example"}})
	if a := bare(t, provisioning, fleet.Event(heir, "running", time.Now())); a.Kind != "refuse" || !strings.Contains(a.Error, here.ID) {
		t.Fatalf("want a second instance refused the name, got %+v", a)
	}
	terminate(t, here, there)
	if again, result := labtest.Deliver(t, removing, fleet.Event(here, "terminated", time.Now()), fleet.Event(there, "terminated", time.Now())); len(again) > 0 {
		t.Fatalf("want both ends of a batch handled, got %v back, %v", again, result.Err())
	}
	handled(t, provision, heir, "Instance Differs") // the release woke it
	mustBy(t, provisioning, heir, "running", "provisioned")
	terminate(t, heir)
	mustBy(t, removing, heir, "terminated", "deprovisioned")
	return provisioning.Logs() + removing.Logs()
}

// lambdaActions are the actions that Lambda itself, and not the function, uses with a function's role.
var lambdaActions = []string{
	"logs:CreateLogStream", "logs:PutLogEvents", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes",
	"ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets", "ec2:DeleteNetworkInterface",
	"ec2:AssignPrivateIpAddresses", "ec2:UnassignPrivateIpAddresses",
	"xray:PutTraceSegments", "xray:PutTelemetryRecords", "kms:Decrypt", "kms:GenerateDataKey",
}

// hookActions are the actions for groups with a lifecycle hook, which moto cannot make. The tests of the hooks cover them.
var hookActions = []string{
	"autoscaling:DescribeAutoScalingInstances", "autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat",
}

// tagActions are the actions of the readiness tag, which a setting enables. The test of the tag covers them.
var tagActions = []string{"ec2:CreateTags"}

func TestTemplate_GrantsExactlyTheActionsUsed(t *testing.T) {
	resetTaps()
	wholeLife(t)
	used, granted := actionsUsed(t), actionsGranted(t, "FunctionsPolicy", "ProvisionFunctionRole", "DeprovisionFunctionRole")
	delete(granted, "sts:AssumeRole") // in the trust policies of the functions' own roles; the member role's is checked below
	delete(used, "sts:AssumeRole")
	for _, action := range slices.Concat(lambdaActions, hookActions, tagActions) {
		if !granted[action] {
			t.Errorf("%s is needed and not granted", action)
		}
		delete(granted, action)
	}
	got, want := slices.Sorted(maps.Keys(granted)), slices.Sorted(maps.Keys(used))
	if !slices.Equal(got, want) {
		t.Errorf("the template grants %v\nthe functions used  %v\na missing action fails in an account, an extra one serves a stolen function", got, want)
	}
	if !actionsGranted(t, "FunctionsPolicy")["sts:AssumeRole"] {
		t.Error("the member role cannot be assumed")
	}
}

// actionsUsed returns the IAM actions that the calls since the last reset of the taps need.
func actionsUsed(t *testing.T) map[string]bool {
	t.Helper()
	used := map[string]bool{}
	for _, c := range slices.Concat(world.Taps.AWS.Calls(), world.Taps.Dynamo.Calls()) {
		for _, action := range actionsOf(t, c) {
			used[action] = true
		}
	}
	return used
}

// actionsGranted returns the actions that the template's resources allow.
func actionsGranted(t *testing.T, ids ...string) map[string]bool {
	t.Helper()
	granted := map[string]bool{}
	resources, _ := world.Stack.Expanded["Resources"].(map[string]any)
	for _, id := range ids {
		if resources[id] == nil {
			t.Fatalf("the template has no %s", id)
		}
		collectActions(resources[id], granted)
	}
	return granted
}

// actionsOf returns the IAM actions that a call needs.
func actionsOf(t *testing.T, c tap.Call) []string {
	t.Helper()
	switch {
	case c.Action == "GetCallerIdentity", c.Action == "GET /": // they need no permission; the doctor only reaches an endpoint by the second
		return nil
	// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html
	case c.Action == "SendMessageBatch":
		return []string{"sqs:SendMessage"}
	case c.Action != "TransactWriteItems":
		return []string{c.Service + ":" + c.Action}
	}
	// A transaction needs the permission for each of its parts,
	// https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/transaction-apis-iam.html
	var body struct{ TransactItems []map[string]any }
	if err := json.Unmarshal(c.Body, &body); err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, item := range body.TransactItems {
		for part := range item {
			actions = append(actions, "dynamodb:"+part+"Item")
		}
	}
	return actions
}

// collectActions adds the actions that v's statements allow.
func collectActions(v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		if v["Effect"] == "Deny" {
			return
		}
		for key, e := range v {
			if key != "Action" {
				collectActions(e, into)
				continue
			}
			if one, ok := e.(string); ok {
				into[one] = true
			}
			list, _ := e.([]any)
			for _, a := range list {
				into[fmt.Sprint(a)] = true
			}
		}
	case []any:
		for _, e := range v {
			collectActions(e, into)
		}
	}
}

func TestSecrets_NeverReachLogsOrLedger(t *testing.T) {
	env, err := world.FunctionEnv(t.Context(), provision)
	if err != nil || env["LOG_LEVEL"] != "debug" {
		t.Fatalf("want the functions to log at debug level, got %q, %v", env["LOG_LEVEL"], err)
	}
	logs := wholeLife(t)
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	faultOn(t, world.Taps.Vault, tap.Fault{Status: 500, Body: []byte(`{"errors":["internal error"]}`)},
		func(c tap.Call) bool { return strings.Contains(c.Path, i.ID) && strings.HasPrefix(c.Action, "PUT ") })
	failed := sendEvent(t, provision, i, "running")
	world.Taps.Vault.SetFault(nil)
	if failed.Failure == "" {
		t.Fatalf("want a failure, got %+v", failed)
	}
	logged(t, world.Functions[provision], i.ID) // the log is complete
	texts := map[string]string{"a failed answer": failed.Failure, "the log of a whole life": logs}
	for name, f := range world.Functions {
		texts["the log of "+name] = f.Logs()
	}
	pages := dynamodb.NewScanPaginator(world.Dynamo, &dynamodb.ScanInput{TableName: aws.String(world.Stack.Tables["Table"])})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range page.Items {
			for name, value := range item {
				texts["the ledger's "+name] += fmt.Sprintf("%+v", value)
			}
		}
	}
	secrets := map[string]string{
		"the root token": world.VaultToken, "a key": "PRIVATE KEY",
		"a certificate": "BEGIN CERTIFICATE", "a signed request": "iam_request_headers", "an Authorization header": "AWS4-HMAC",
	}
	for _, name := range []string{"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
		secrets[name] = env[name]
	}
	// A service or a batch token, by the prefixes of Vault and of OpenBao.
	token := regexp.MustCompile(`\b(?:hvs|hvb|s|b)\.[A-Za-z0-9_-]{24,}`)
	if !token.MatchString("token=" + world.VaultToken + " ") {
		t.Fatalf("the pattern does not match the root token of %s, so it would find no other", serverOf(t))
	}
	for where, text := range texts {
		if found := token.FindString(text); found != "" {
			t.Errorf("%s contains a token: %.8s…", where, found)
		}
		for what, secret := range secrets {
			if secret != "" && strings.Contains(text, secret) {
				t.Errorf("%s contains %s", where, what)
			}
		}
	}
}

func TestClientStyle_GetsItsCertificate(t *testing.T) {
	complete := changed(t, "worker/profile.yaml", "base_path:", "client_style: complete\nbase_path:")
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, variant(t, provision, map[string]string{"TEMPLATES_DIR": complete}), i, "running", "provisioned")
	session := login(t, i)
	path := "alice_cluster/pki/k8s/issue/" + i.ID + "-kubelet"
	every := func(change map[string]any) map[string]any {
		fields := map[string]any{
			"common_name": "system:node:" + i.PrivateDNS, "alt_names": i.PrivateDNS, "ip_sans": i.PrivateIP, "uri_sans": "", "other_sans": "",
			"user_ids": "", "serial_number": "", "not_after": "", "ttl": "1h", "format": "pem", "private_key_format": "", "exclude_cn_from_sans": false,
		}
		if serverOf(t).Product == vault.OpenBao {
			delete(fields, "not_after") // which it refuses empty too
		}
		maps.Copy(fields, change)
		return fields
	}
	for name, change := range map[string]map[string]any{
		"every field, empty where there is nothing": nil,
		"as cert-manager requests it":               {"exclude_cn_from_sans": "true"},
		"no names beside the common name":           {"alt_names": "", "ip_sans": ""},
		"lists, empty where there is nothing":       {"ip_sans": []string{i.PrivateIP}, "uri_sans": []string{}, "other_sans": []string{}, "user_ids": []string{}},
		"empty lists beside the common name":        {"alt_names": "", "ip_sans": []string{}, "uri_sans": []string{}, "other_sans": []string{}, "user_ids": []string{}},
	} {
		if _, err := session.Logical().WriteWithContext(t.Context(), path, every(change)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]map[string]any{
		"a URI":               {"uri_sans": "spiffe://evil"},
		"an expiry":           {"not_after": "2099-01-01T00:00:00Z"},
		"a serial number":     {"serial_number": "1"},
		"another's address":   {"ip_sans": "10.9.9.9"},
		"another beside none": {"ip_sans": ",10.9.9.9"},
		"a user ID":           {"user_ids": "root"},
		"a URI in a list":     {"uri_sans": []string{"spiffe://evil"}},
		"a user ID in a list": {"user_ids": []string{"root"}},
		"another in a list":   {"ip_sans": []string{"", "10.9.9.9"}},
		"another by lists":    {"ip_sans": []any{[]string{}, []string{"10.9.9.9"}}},
	} {
		if _, err := session.Logical().WriteWithContext(t.Context(), path, every(change)); err == nil {
			t.Errorf("%s: want a field that may be empty refused with a value", name)
		}
	}
}
