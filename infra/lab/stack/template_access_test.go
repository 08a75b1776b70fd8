package stack

import (
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

const (
	vaultARN  = "arn:aws:iam::999999999999:role/vault"
	adminARN  = "arn:aws:iam::123456789012:role/admin"
	insider   = "arn:aws:iam::555566667777:role/forward" // of an account of the organization that MemberAccountIds does not name
	outsider  = "arn:aws:iam::444455556666:role/forward"
	machine   = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"
	group     = "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:3f1a7a60-0000-11ee-be56-0242ac120002:autoScalingGroupName/workers"
	profileOf = "arn:aws:iam::123456789012:instance-profile/"
)

// call is a call that some functions may make: P, D and R are provision, deprovision and reconcile. With a "?" they may only
// where the stack has the option.
type call struct {
	may, action, resource string
	context               requestKeys
}

// codeCalls are calls of the functions' code, and calls that it must not be able to make.
func (a realm) codeCalls() []call {
	c := a.central
	table, bus := c.arn("Table"), "arn:aws:events:us-east-1:123456789012:event-bus/default"
	provision, deprovision, reconcile := c.arn("ProvisionQueue"), c.arn("DeprovisionQueue"), c.arn("ReconcileQueue")
	stream := func(id string) string {
		return strings.TrimSuffix(c.arn(id), "*") + "log-stream:2026/11/26/[$LATEST]0a"
	}
	record, claim, waiting, version := "instance#i-0123456789abcdef0", "claim#pki/web-1", "waiting#pki/web-1", "profiles#0a1b"
	certificates := "certificates#i-0123456789abcdef0"
	inTransaction := func(key string) requestKeys {
		return requestKeys{"dynamodb:LeadingKeys": {key}, "dynamodb:EnclosingOperation": {"TransactWriteItems"}}
	}
	role := "arn:aws:iam::123456789012:role/teams/vault/" + c.physical("ReconcileFunctionRole")
	member := a.member.arn("MemberRole")
	return []call{
		// The ledger: records, claims, waiting instances, profiles, teardown.
		{"PDR", "dynamodb:GetItem", table, keys(record)},
		{"PDR", "dynamodb:GetItem", table, keys(claim)},
		{"PDR", "dynamodb:GetItem", table, keys(waiting)},
		{"PDR", "dynamodb:GetItem", table, keys(certificates)},
		{"PDR", "dynamodb:GetItem", table, keys("profiles")},
		{"PDR", "dynamodb:GetItem", table, keys(version)},
		{"PDR", "dynamodb:GetItem", table, keys("teardown")},
		{"", "dynamodb:GetItem", table, keys("other")},
		{"", "dynamodb:GetItem", table, nil},
		{"", "dynamodb:GetItem", table + "-of-others", keys(record)},
		{"PD", "dynamodb:BatchGetItem", table, keys(record, "instance#i-0b")},
		{"", "dynamodb:BatchGetItem", table, keys(record, claim)},
		{"", "dynamodb:BatchGetItem", table, nil},
		{"PDR", "dynamodb:PutItem", table, keys(record)},
		{"PDR", "dynamodb:PutItem", table, inTransaction(record)},
		{"PR", "dynamodb:PutItem", table, keys(claim)},
		{"PR", "dynamodb:PutItem", table, inTransaction(claim)},
		{"PR", "dynamodb:PutItem", table, keys(waiting)},
		{"DR", "dynamodb:PutItem", table, keys(certificates)},
		{"", "dynamodb:DeleteItem", table, keys(certificates)},
		{"R", "dynamodb:PutItem", table, keys("teardown")},
		{"", "dynamodb:PutItem", table, keys("profiles")},
		{"", "dynamodb:PutItem", table, keys(version)},
		{"", "dynamodb:PutItem", table, inTransaction(version)},
		{"", "dynamodb:PutItem", table, keys(record, "profiles")},
		{"", "dynamodb:PutItem", table, nil},
		{"PDR", "dynamodb:DeleteItem", table, keys(claim)},
		{"PDR", "dynamodb:DeleteItem", table, inTransaction(claim)},
		{"", "dynamodb:DeleteItem", table, keys(record)},
		{"", "dynamodb:DeleteItem", table, keys(claim, record)},
		{"", "dynamodb:DeleteItem", table, keys("profiles")},
		{"", "dynamodb:DeleteItem", table, keys("teardown")},
		{"", "dynamodb:DeleteItem", table, nil},
		{"", "dynamodb:UpdateItem", table, keys(record)},
		{"", "dynamodb:BatchWriteItem", table, keys(claim)},
		{"", "dynamodb:PartiQLUpdate", table, keys(record)},
		{"", "dynamodb:Query", table, keys(record)},
		{"R", "dynamodb:Scan", table, nil},
		{"", "dynamodb:Scan", table + "-of-others", nil},
		{"R", "dynamodb:DescribeTable", table, nil},
		{"R", "dynamodb:DescribeContinuousBackups", table, nil},
		{"R", "dynamodb:DescribeTimeToLive", table, nil},
		{"", "dynamodb:UpdateTimeToLive", table, nil},
		{"", "dynamodb:UpdateContinuousBackups", table, nil},
		{"", "dynamodb:DeleteTable", table, nil},
		{"", "dynamodb:PutResourcePolicy", table, nil},
		// The queues.
		{"PDR", "sqs:SendMessage", provision, nil},
		{"", "sqs:SendMessage", provision, having("aws:SecureTransport", "false")},
		{"", "sqs:SendMessage", deprovision, nil},
		{"R", "sqs:SendMessage", reconcile, nil},
		{"", "sqs:SendMessage", reconcile, having("aws:SecureTransport", "false")},
		{"", "sqs:SendMessage", c.arn("ProvisionDeadLetterQueue"), nil},
		{"", "sqs:SendMessage", c.arn("ReconcileDeadLetterQueue"), nil},
		{"", "sqs:PurgeQueue", provision, nil},
		{"", "sqs:SetQueueAttributes", reconcile, nil},
		{"", "sqs:AddPermission", reconcile, nil},
		// EC2: instances, and the one tag.
		{"PDR", "ec2:DescribeInstances", "*", nil},
		{"PDR?", "ec2:CreateTags", machine, having("aws:TagKeys", "vault-identity")},
		{"", "ec2:CreateTags", machine, having("aws:TagKeys", "Name")},
		{"", "ec2:CreateTags", machine, having("aws:TagKeys", "vault-identity", "Name")},
		{"", "ec2:CreateTags", machine, nil},
		{"", "ec2:CreateTags", "arn:aws:ec2:us-east-1:123456789012:volume/vol-0a", having("aws:TagKeys", "vault-identity")},
		{"", "ec2:CreateTags", "arn:aws:ec2:us-east-1:111122223333:instance/i-0a", having("aws:TagKeys", "vault-identity")},
		{"", "ec2:DeleteTags", machine, having("aws:TagKeys", "vault-identity")},
		{"", "ec2:TerminateInstances", machine, nil},
		{"", "ec2:RunInstances", machine, nil},
		{"", "ec2:AssociateIamInstanceProfile", machine, nil},
		{"", "ec2:AttachNetworkInterface", machine, nil},
		// IAM: the role in an instance profile, and nothing that gives rights.
		{"PDR", "iam:GetInstanceProfile", profileOf + "worker", nil},
		{"PDR", "iam:GetInstanceProfile", profileOf + "teams/k8s/worker", nil},
		{"", "iam:GetInstanceProfile", "arn:aws:iam::111122223333:instance-profile/worker", nil},
		{"", "iam:GetRole", role, nil},
		{"", "iam:PassRole", role, having("iam:PassedToService", "lambda.amazonaws.com")},
		{"", "iam:PassRole", member, having("iam:PassedToService", "ec2.amazonaws.com")},
		{"", "iam:PutRolePolicy", role, nil},
		{"", "iam:AttachRolePolicy", role, nil},
		{"", "iam:UpdateAssumeRolePolicy", role, nil},
		{"", "iam:CreateRole", role, nil},
		{"", "iam:CreatePolicyVersion", c.arn("FunctionsPolicy"), nil},
		{"", "iam:AddRoleToInstanceProfile", profileOf + "worker", nil},
		// Other accounts: the member role with the external ID, and no other role.
		{"PDR?", "sts:AssumeRole", member, having("sts:ExternalId", stackName)},
		{"", "sts:AssumeRole", member, having("sts:ExternalId", "another")},
		{"", "sts:AssumeRole", member, nil},
		{"", "sts:AssumeRole", a.member.arn("VaultRole"), having("sts:ExternalId", stackName)},
		{"", "sts:AssumeRole", a.member.arn("ForwardRole"), having("sts:ExternalId", stackName)},
		{"", "sts:AssumeRole", "arn:aws:iam::444455556666:role/member", having("sts:ExternalId", stackName)},
		{"", "sts:AssumeRole", role, nil},
		{"", "sts:AssumeRole", adminARN, nil},
		{"", "sts:TagSession", member, nil},
		// Secrets.
		{"PDR?", "secretsmanager:GetSecretValue", full["VaultCASecretArn"], nil},
		{"PDR?", "secretsmanager:GetSecretValue", full["VaultLoginSecretArn"], nil},
		{"", "secretsmanager:GetSecretValue", "arn:aws:secretsmanager:us-east-1:123456789012:secret:other-AbCdEf", nil},
		{"", "secretsmanager:PutSecretValue", full["VaultLoginSecretArn"], nil},
		// Audit events, with the program's own source.
		{"PDR", "events:PutEvents", bus, having("events:source", "vault-ec2-provisioner")},
		{"PDR", "events:PutEvents", bus, having("events:source", "vault-ec2-provisioner", "vault-ec2-provisioner")},
		{"", "events:PutEvents", bus, having("events:source", "vault-ec2-provisioner", "aws.ec2")},
		{"", "events:PutEvents", bus, having("events:source", "another.program")},
		{"", "events:PutEvents", bus, nil},
		{"", "events:PutEvents", bus + "-of-others", having("events:source", "vault-ec2-provisioner")},
		{"", "events:PutRule", c.arn("ProvisionRule"), nil},
		{"", "events:PutTargets", c.arn("ProvisionRule"), nil},
		{"", "events:DisableRule", c.arn("DeprovisionRule"), nil},
		{"", "events:PutPermission", "*", nil},
		// Lifecycle hooks.
		{"PD", "autoscaling:CompleteLifecycleAction", group, nil},
		{"PD", "autoscaling:RecordLifecycleActionHeartbeat", group, nil},
		{"", "autoscaling:CompleteLifecycleAction", strings.Replace(group, parts.AccountID, memberAccount, 1), nil},
		{"DR", "autoscaling:DescribeAutoScalingInstances", "*", nil},
		{"", "autoscaling:SetDesiredCapacity", group, nil},
		{"", "autoscaling:TerminateInstanceInAutoScalingGroup", group, nil},
		{"", "autoscaling:DeleteLifecycleHook", group, nil},
		// The key, as far as SQS and DynamoDB use it for the caller.
		{"PDR?", "kms:Decrypt", keyARN, nil},
		{"PDR?", "kms:GenerateDataKey", keyARN, nil},
		{"", "kms:Decrypt", keyARN + "-other", nil},
		{"", "kms:Encrypt", keyARN, nil},
		{"", "kms:CreateGrant", keyARN, nil},
		{"", "kms:PutKeyPolicy", keyARN, nil},
		{"", "kms:ScheduleKeyDeletion", keyARN, nil},
		// The network interfaces of other instances.
		{"", "ec2:CreateNetworkInterface", interfaceARN, nil},
		{"", "ec2:DescribeNetworkInterfaces", "*", nil},
		{"", "ec2:DescribeSubnets", "*", nil},
		{"", "ec2:DeleteNetworkInterface", interfaceARN, nil},
		{"", "ec2:AssignPrivateIpAddresses", interfaceARN, nil},
		{"", "ec2:UnassignPrivateIpAddresses", interfaceARN, nil},
		// Logs: their own is Lambda's to write. No function reads any.
		{"P", "logs:PutLogEvents", stream("ProvisionLogGroup"), nil},
		{"", "logs:GetLogEvents", stream("ProvisionLogGroup"), nil},
		{"", "logs:DeleteLogStream", stream("ProvisionLogGroup"), nil},
		{"", "logs:PutLogEvents", "arn:aws:logs:us-east-1:123456789012:log-group:others:log-stream:0a", nil},
		// The functions themselves.
		{"", "lambda:InvokeFunction", c.arn("ReconcileFunction"), nil},
		{"", "lambda:UpdateFunctionCode", c.arn("ReconcileFunction"), nil},
		{"", "lambda:UpdateFunctionConfiguration", c.arn("ProvisionFunction"), nil},
		{"", "lambda:AddPermission", c.arn("ReconcileFunction"), nil},
	}
}

const interfaceARN = "arn:aws:ec2:us-east-1:123456789012:network-interface/eni-0a"

// lambdaCalls are Lambda's calls with the functions' roles.
func (a realm) lambdaCalls() []call {
	c := a.central
	var calls []call
	for may, function := range map[string]string{"P": "Provision", "D": "Deprovision", "R": "Reconcile"} {
		stream := strings.TrimSuffix(c.arn(function+"LogGroup"), "*") + "log-stream:2026/11/26/[$LATEST]0a"
		calls = append(calls,
			call{may, "logs:CreateLogStream", stream, nil}, call{may, "logs:PutLogEvents", stream, nil},
			call{may, "sqs:ReceiveMessage", c.arn(function + "Queue"), nil}, call{may, "sqs:DeleteMessage", c.arn(function + "Queue"), nil},
			call{may, "sqs:GetQueueAttributes", c.arn(function + "Queue"), nil},
			call{"", "sqs:ReceiveMessage", c.arn(function + "Queue"), having("aws:SecureTransport", "false")},
			call{"", "sqs:ReceiveMessage", c.arn(function + "DeadLetterQueue"), nil})
	}
	return append(calls,
		call{"PDR?", "ec2:CreateNetworkInterface", interfaceARN, nil},
		call{"PDR?", "ec2:DescribeNetworkInterfaces", "*", nil},
		call{"PDR?", "ec2:DescribeSubnets", "*", nil},
		call{"PDR?", "ec2:DeleteNetworkInterface", interfaceARN, nil},
		call{"PDR?", "ec2:AssignPrivateIpAddresses", interfaceARN, nil},
		call{"PDR?", "ec2:UnassignPrivateIpAddresses", interfaceARN, nil},
		call{"", "ec2:AttachNetworkInterface", interfaceARN, nil},
		call{"PDR?", "xray:PutTraceSegments", "*", nil},
		call{"PDR?", "xray:PutTelemetryRecords", "*", nil},
		call{"", "xray:GetTraceSummaries", "*", nil})
}

// functionRequests are the calls of both lists by each function.
func (a realm) functionRequests(hasOptions bool) []request {
	return slices.Concat(a.perFunction(a.codeCalls(), a.code, hasOptions), a.perFunction(a.lambdaCalls(), a.lambda, hasOptions))
}

// The functions' calls, and those of a thief of their credentials, are evaluated as AWS does. Neither DynamoDB Local nor moto
// evaluates resources and conditions.
func TestFunctions_MayDoExactlyTheirCalls(t *testing.T) {
	for name, parameters := range map[string]map[string]string{"full": full, "bare": bare} {
		a := newRealm(t, parameters)
		used := map[string]bool{}
		for _, r := range a.functionRequests(name == "full") {
			possible(t, r)
			if got := a.allowed(r, a.policies); got != r.want {
				t.Errorf("%s: %v: allowed is %v, want %v", name, r, got, r.want)
			}
			used[r.by.Role+r.action] = used[r.by.Role+r.action] || r.want
		}
		for _, function := range []string{"Provision", "Deprovision", "Reconcile"} {
			for action := range grants(t, a.central.resources, function+"FunctionRole") {
				if !used[a.central.arn(function+"FunctionRole")+action] {
					t.Errorf("%s: %s is granted %s, and no call in the table uses it", name, function, action)
				}
			}
		}
	}
}

// A stolen credential of a function can do none of AWS's other actions, even if its policies' resources and conditions were open.
func TestFunctions_MayDoNoOtherActionOfAWS(t *testing.T) {
	a := newRealm(t, full)
	open := slices.DeleteFunc(slices.Clone(a.policies), func(p placed) bool { return !p.identity || p.statement.Effect != "Allow" })
	for n := range open {
		open[n].statement.Resources, open[n].statement.Conditions = []string{"*"}, nil
	}
	refused := 0
	for _, function := range []string{"Provision", "Deprovision", "Reconcile"} {
		granted := grants(t, a.central.resources, function+"FunctionRole")
		for _, action := range reference(t).All() {
			if granted[action.String()] != nil {
				continue
			}
			refused++
			if a.allowed(a.lambda(function, action.String(), "*", nil, false), open) {
				t.Errorf("%s may do %s", function, action)
			}
		}
	}
	t.Logf("%d actions refused", refused)
}
