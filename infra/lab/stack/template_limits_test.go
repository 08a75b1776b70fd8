package stack

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Limits of AWS in bytes.
const (
	// For all variables of a function together. https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
	environmentLimit = 4096
	// https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutPermission.html
	busPolicyLimit = 10240
	// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
	parameterLimit = 4096
)

// promised returns the number that docs/accounts.md promises in a sentence of this form, whose (\\d+) is the number.
func promised(t *testing.T, sentence string) int {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root, "docs", "accounts.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(sentence).FindStringSubmatch(strings.Join(strings.Fields(string(page)), " "))
	if found == nil {
		t.Fatalf("docs/accounts.md says nothing of the form %q", sentence)
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// accounts returns n account IDs with commas between them.
func accounts(n int) string { return strings.TrimSuffix(strings.Repeat("111122223333,", n), ",") }

// longest are long values of the parameters that reach the environment. Other values are as long as a parameter allows.
var longest = map[string]string{
	"VaultAddr":            "https://vault.internal.a-long-name-of-a-team.example.com:8200",
	"VaultNamespace":       "a-long-name-of-a-team/production",
	"VaultCASecretArn":     "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:a-long-name-of-a-team/vault-ca-AbCdEf",
	"VaultLoginMethod":     "approle",
	"VaultLoginSecretArn":  "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:a-long-name-of-a-team/vault-login-AbCdEf",
	"VaultLoginRole":       "a-long-name-of-a-team-ec2-provisioner",
	"VaultIAMServerId":     "vault.internal.a-long-name-of-a-team.example.com",
	"VaultSTSRegion":       "us-gov-west-1",
	"VaultSTSEndpoint":     "https://sts.us-gov-west-1.amazonaws.com",
	"MemberRoleName":       "a-long-path/vault-ec2-provisioner-member",
	"MemberRoleExternalId": "a-long-name-of-a-team-vault-ec2-provisioner",
	"ReconcileRegions":     "eu-central-1,eu-west-1,us-east-1,us-west-2,ap-southeast-2",
	"ReadyTag":             "vault-identity", "ReconcileRepairs": "queue",
}

// environmentSize returns the bytes of a function's variables, with two for each pair. A resource's name or address is taken
// as 100 bytes, the stack's name as 40.
func environmentSize(t *testing.T, variables, parameters map[string]any, values map[string]string) int {
	t.Helper()
	size := 0
	for name, v := range variables {
		value := fmt.Sprint(v)
		if function, argument, ok := intrinsic(v); ok {
			value = strings.Repeat("x", 100)
			parameter := fmt.Sprint(argument)
			switch {
			case function == "Ref" && parameters[parameter] != nil:
				value = fmt.Sprint(object(parameters[parameter])["Default"])
				if given, ok := values[parameter]; ok {
					value = given
				}
			case parameter == "AWS::StackName":
				value = strings.Repeat("x", 40)
			}
		}
		size += len(name) + len(value) + 2
	}
	return size
}

func TestEnvironments_HoldThePromisedAccounts(t *testing.T) {
	n := promised(t, `(\d+) accounts in .ReconcileAccounts. and .AllowedAccounts. together`)
	values := maps.Clone(longest)
	values["ReconcileAccounts"], values["AllowedAccounts"] = accounts(n-1), accounts(1)
	parameters := object(product(t)["Parameters"])
	for id, f := range each(t, resolved(t, values), "AWS::Lambda::Function") {
		size := environmentSize(t, object(object(f["Environment"])["Variables"]), parameters, values)
		if size > environmentLimit {
			t.Errorf("%s: its environment has %d bytes with %d accounts, Lambda takes %d: the stack's update would fail", id, size, n, environmentLimit)
		}
		if room := environmentLimit - size; id == "ReconcileFunction" && room > 40*13 {
			t.Errorf("%s: there is room for %d accounts more than the %d that docs/accounts.md promises", id, room/13, n)
		}
	}
	if len(accounts(n)) > parameterLimit {
		t.Errorf("%d accounts are longer than a parameter's value may be", n)
	}
}

func TestBusPolicies_HoldThePromisedAccounts(t *testing.T) {
	n := promised(t, `(\d+) accounts in .MemberAccountIds.`)
	size := 0
	for _, policy := range each(t, resolved(t, full), "AWS::Events::EventBusPolicy") {
		size += len(text(t, policy["Statement"])) + len(text(t, policy["StatementId"])) + 60 // the ARN of the bus, resolved
	}
	// EventBridge keeps an account as the ARN of its root.
	size += n * len(`"arn:aws-us-gov:iam::111122223333:root",`)
	if size > busPolicyLimit || len(accounts(n)) > parameterLimit {
		t.Errorf("the bus policy has %d bytes with %d accounts, EventBridge takes %d", size, n, busPolicyLimit)
	}
}

// With * the functions take every account that trusts them, so IAM must bound these to the organization.
func TestAnyAccount_IsAssumedOnlyInTheOrganization(t *testing.T) {
	list := maps.Clone(full)
	anyAccount := maps.Clone(full)
	anyAccount["AllowedAccounts"] = "*"
	for name, row := range map[string]struct {
		parameters map[string]string
		want       string
	}{
		"a list": {list, "null"},
		"*":      {anyAccount, `{"StringEquals":{"aws:ResourceOrgID":{"Ref":"OrganizationId"}}}`},
	} {
		for _, s := range statements(t, resolved(t, row.parameters), "ProvisionFunctionRole") {
			if s["Action"] == "sts:AssumeRole" && text(t, s["Condition"]) != row.want {
				t.Errorf("%s: roles are assumed under %s, want %s", name, text(t, s["Condition"]), row.want)
			}
		}
	}
}
