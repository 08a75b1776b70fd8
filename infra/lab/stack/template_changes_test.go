package stack

import (
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// changedStacks are the updates that the tests try: each parameter of both templates with a likely second value.
var changedStacks = []struct {
	name, template string
	first          map[string]string // the fewest parameters
	most           map[string]string // as many as fit together
	changes        []change
}{
	{"central", filepath.Join(root, "template.yaml"), bare, full, centralChanges},
	{"member", memberTemplate, member(), with(member(), memberMost), memberChanges},
}

// others are the parameters that those for other accounts need.
var others = map[string]string{"MemberRoleName": "member", "AllowedAccounts": "111122223333"}

var centralChanges = []change{
	one("VaultAddr", "https://other.example:8200"),
	one("VaultNamespace", "team/app"),
	one("VaultCASecretArn", "arn:aws:secretsmanager:us-east-1:123456789012:secret:other-ca-AbCdEf"),
	one("VaultAuthMount", "aws-instances"),
	{to: map[string]string{"VaultLoginMethod": "token"}, given: map[string]string{"VaultLoginSecretArn": "arn:aws:secretsmanager:us-east-1:123456789012:secret:login-AbCdEf"}},
	one("VaultLoginMount", "aws-functions"),
	one("VaultLoginRole", "other-provisioner"),
	one("VaultLoginSecretArn", "arn:aws:secretsmanager:us-east-1:123456789012:secret:other-login-AbCdEf"),
	one("VaultIAMServerId", "vault.example"),
	one("VaultSTSRegion", "eu-west-1"),
	one("VaultSTSEndpoint", "https://sts.eu-west-1.amazonaws.com"),
	{to: map[string]string{"VpcSubnetIds": "subnet-3", "VpcSecurityGroupIds": "sg-2"}},
	{to: map[string]string{"VpcSubnetIds": "subnet-4"}, given: map[string]string{"VpcSubnetIds": "subnet-3", "VpcSecurityGroupIds": "sg-2"}},
	{to: map[string]string{"VpcSecurityGroupIds": "sg-3"}, given: map[string]string{"VpcSubnetIds": "subnet-3", "VpcSecurityGroupIds": "sg-2"}},
	one("UseFIPSEndpoints", "true"),
	one("UseDualStackEndpoints", "true"),
	one("PermissionsBoundaryArn", "arn:aws:iam::123456789012:policy/other-boundary"),
	{to: map[string]string{"RolePath": "/teams/other/"}, note: "Run `vault-ec2 setup` right after it, and set the member stacks' `FunctionRoleArns` to the new roles. Until then the functions cannot log in, and events wait in the queues"},
	one("Architecture", "x86_64"),
	one("MemberRoleName", "other-member"),
	one("MemberRoleExternalId", "another-id"),
	{to: map[string]string{"MemberAccountIds": "222233334444"}, given: others},
	{to: map[string]string{"OrganizationId": "o-klmnopqrst"}, given: others},
	one("AllowedAccounts", "222233334444"),
	one("ConflictMode", "adopt"),
	one("DeprovisionOn", "shutting-down"),
	one("RevokeCertificates", "true"),
	{to: map[string]string{"RevokeCertificates": "all"}, note: "Run `vault-ec2 setup` right before it, so that the functions have the rights"},
	one("MaxCertificateTTL", "720h"),
	one("Profiles", "active"),
	one("HookPrefix", "other-"),
	one("HookOnRefusal", "continue"),
	one("NameWait", "0s"),
	one("ReadyTag", "identity"),
	one("QuarantineSeverity", "high"),
	one("ProvisionMaxConcurrency", "10"),
	one("DeprovisionMaxConcurrency", "10"),
	one("LogLevel", "debug"),
	one("LogRetentionDays", "365"),
	one("Tracing", "Active"),
	one("AuditEventBusName", "audit"),
	one("AlarmTopicArn", "arn:aws:sns:us-east-1:123456789012:other"),
	one("AlarmOKTopicArn", "arn:aws:sns:us-east-1:123456789012:other-ok"),
	one("RunbookUrl", "https://wiki.example/runbook"),
	one("ReconcileOverdueSeconds", "43200"),
	{to: map[string]string{"KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/other"}, note: "CloudFormation's reference calls a new key of the table an update with some interruptions. Events that fail meanwhile come back"},
	{to: map[string]string{"ReconcileSchedule": "off"}, note: "Compare by hand: `vault-ec2 reconcile`"},
	one("ReconcileMode", "detect"),
	{to: map[string]string{"ReconcileAccounts": "222233334444"}, given: map[string]string{"MemberRoleName": "member"}},
	one("ReconcileRegions", "eu-west-1,us-east-1"),
	one("ReconcileRepairs", "queue"),
	one("DeleteLimitPercent", "5"),
	one("ReconcileMemorySize", "2048"),
}

// memberMost are parameters of a member stack with every role.
var memberMost = map[string]string{
	"VaultPrincipalArns": "arn:aws:iam::999999999999:role/vault", "ReadyTag": "vault-identity", "RolePath": "/teams/vault/",
	"PermissionsBoundaryArn": "arn:aws:iam::123456789012:policy/boundary", "AlarmTopicArn": "arn:aws:sns:us-east-1:123456789012:t",
}

// withVault has Vault's role too.
var withVault = map[string]string{"VaultPrincipalArns": "arn:aws:iam::999999999999:role/vault"}

var memberChanges = []change{
	{
		to:   map[string]string{"CentralEventBusArn": "arn:aws:events:" + region + ":" + parts.AccountID + ":event-bus/default"},
		note: "Only for the stack in the central account and region, which must not forward to itself",
	},
	{
		to:   map[string]string{"CentralEventBusArn": "arn:aws:events:eu-west-1:" + parts.AccountID + ":event-bus/default"},
		note: "Only for a stack in the central account, whose functions assume no role",
	},
	one("FunctionRoleArns", "arn:aws:iam::210987654321:role/teams/p,arn:aws:iam::210987654321:role/teams/d,arn:aws:iam::210987654321:role/teams/r"),
	{to: map[string]string{"MemberRoleName": "other-member"}, note: "Set the central stack's `MemberRoleName` right after it. Until then the account's events wait in the queues"},
	one("ExternalId", "another-id"),
	{to: map[string]string{"VaultPrincipalArns": "arn:aws:iam::999999999999:role/other-vault"}, note: "Run `vault-ec2 setup` with `--sts-role` for the account"},
	{to: map[string]string{"VaultRoleName": "other-vault"}, given: withVault, note: "Run `vault-ec2 setup` with the new `--sts-role` right after it. Until then no instance of the account can log in"},
	{to: map[string]string{"VaultExternalId": "none"}, given: withVault},
	{to: map[string]string{"RolesRegion": "eu-west-1"}, given: withVault, note: "Empty it in all stacks of the account first, and then set the new region: a role's name can exist once in an account. In between no instance of the account can log in"},
	one("HookPrefix", "other-"),
	one("ReadyTag", "identity"),
	one("PermissionsBoundaryArn", "arn:aws:iam::123456789012:policy/other-boundary"),
	{to: map[string]string{"RolePath": "/teams/other/"}, given: withVault, note: "Change `MemberRoleName` and `VaultRoleName` in the same update: CloudFormation makes a new role before it deletes the old one"},
	{
		to:    map[string]string{"RolePath": "/teams/other/", "MemberRoleName": "other-member", "VaultRoleName": "other-vault"},
		given: withVault,
		note:  "Set the central stack's `MemberRoleName`, with the path, and run `vault-ec2 setup` with the new `--sts-role`",
	},
	one("AlarmTopicArn", "arn:aws:sns:us-east-1:123456789012:other"),
	one("AlarmOKTopicArn", "arn:aws:sns:us-east-1:123456789012:other-ok"),
	one("RunbookUrl", "https://wiki.example/runbook"),
}

// accepts reports whether CloudFormation accepts a parameter's value.
func accepts(parameter map[string]any, value string) bool {
	if allowed := list(parameter["AllowedValues"]); len(allowed) > 0 && !slices.Contains(allowed, value) {
		return false
	}
	if parameter["Type"] == "Number" && parameter["MinValue"] != nil {
		n, err := strconv.Atoi(value)
		return err == nil && n >= number(parameter["MinValue"]) && n <= number(parameter["MaxValue"])
	}
	values := []string{value}
	if parameter["Type"] == "CommaDelimitedList" {
		values = strings.Split(value, ",")
	}
	pattern, ok := parameter["AllowedPattern"].(string)
	return !ok || !slices.ContainsFunc(values, func(v string) bool { return !regexp.MustCompile(pattern).MatchString(v) })
}
