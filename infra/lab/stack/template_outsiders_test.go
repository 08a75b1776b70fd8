package stack

import (
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/access"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// outsiderRequests are calls by others than the functions: AWS's services, other roles of this account, and other accounts. A role
// with the mark admin may do everything by its own policy.
func (a realm) outsiderRequests() []request {
	c, m := a.central, a.member
	service := func(name string) access.Caller { return access.Caller{Service: name + ".amazonaws.com"} }
	role := func(arn string) access.Caller { return access.Caller{Role: arn} }
	events, admin := service("events"), role(adminARN)
	provision, reconcile := c.arn("ProvisionQueue"), c.arn("ReconcileQueue")
	plain := having("aws:SecureTransport", "false")
	from := func(rule string) requestKeys {
		return requestKeys{"aws:SourceArn": {rule}, "aws:SourceAccount": {parts.AccountID}}
	}
	bus := "arn:aws:events:us-east-1:123456789012:event-bus/default"
	put := func(organization string, sources []string, kinds ...string) requestKeys {
		return requestKeys{"events:source": sources, "events:detail-type": kinds, "aws:PrincipalOrgID": {organization}}
	}
	state, hook, ec2 := "EC2 Instance State-change Notification", "EC2 Instance-launch Lifecycle Action", []string{"aws.ec2"}
	forward := role(m.arn("ForwardRole"))
	reconcileRole, memberRole, vaultRole := c.arn("ReconcileFunctionRole"), m.arn("MemberRole"), m.arn("VaultRole")
	id := having("sts:ExternalId", stackName)
	logs := func(group string) requestKeys {
		return having("kms:EncryptionContext:aws:logs:arn", "arn:aws:logs:us-east-1:123456789012:log-group:"+group)
	}
	rows := []request{
		// The queues.
		{events, false, "sqs:SendMessage", provision, from(c.arn("ProvisionRule")), true},
		{events, false, "sqs:SendMessage", provision, from("arn:aws:events:us-east-1:123456789012:rule/another"), false},
		{events, false, "sqs:SendMessage", provision, from("arn:aws:events:us-east-1:444455556666:rule/" + c.physical("ProvisionRule")), false},
		{events, false, "sqs:SendMessage", provision, nil, false},
		{events, false, "sqs:ReceiveMessage", provision, from(c.arn("ProvisionRule")), false},
		{events, false, "sqs:SendMessage", provision, requestKeys{"aws:SourceArn": {c.arn("ProvisionRule")}, "aws:SecureTransport": {"false"}}, false},
		{events, false, "sqs:SendMessage", c.arn("DeprovisionQueue"), requestKeys{"aws:SourceArn": {c.arn("DeprovisionRule")}, "aws:SecureTransport": {"false"}}, false},
		{service("sns"), false, "sqs:SendMessage", provision, from(c.arn("ProvisionRule")), false},
		{admin, true, "sqs:SendMessage", provision, nil, true}, // an operator puts dead letters back
		{admin, true, "sqs:SendMessage", reconcile, nil, false},
		{admin, true, "sqs:PurgeQueue", reconcile, nil, true}, // infra/RUNBOOK.md
		{admin, true, "sqs:ReceiveMessage", provision, plain, false},
		{admin, true, "sqs:ReceiveMessage", c.arn("DeprovisionQueue"), plain, false},
		{admin, true, "sqs:PurgeQueue", reconcile, plain, false},
		{admin, false, "sqs:SendMessage", provision, nil, false},
		{role(outsider), true, "sqs:SendMessage", provision, nil, false},
		{role(memberRole), true, "sqs:SendMessage", provision, nil, false},
		// The schedule.
		{events, false, "lambda:InvokeFunction", c.arn("ReconcileFunction"), from(c.arn("ReconcileRule")), true},
		{events, false, "lambda:InvokeFunction", c.arn("ReconcileFunction"), from(c.arn("ProvisionRule")), false},
		{events, false, "lambda:InvokeFunction", c.arn("ProvisionFunction"), from(c.arn("ReconcileRule")), false},
		{role(outsider), true, "lambda:InvokeFunction", c.arn("ReconcileFunction"), nil, false},
		// The bus. A member's rule delivers one event; a call may carry ten.
		{forward, false, "events:PutEvents", bus, put("o-other00000", ec2, state), true},
		{forward, false, "events:PutEvents", bus, put("o-other00000", []string{"aws.ec2", "aws.autoscaling"}, state, hook), true},
		{forward, false, "events:PutEvents", bus, put("o-other00000", []string{"aws.tag"}, "Tag Change on Resource"), true},
		{forward, false, "events:PutEvents", bus, put("o-other00000", []string{"aws.s3"}, state), false},
		{forward, false, "events:PutEvents", bus, put("o-other00000", []string{"aws.ec2", "aws.s3"}, state), false},
		{forward, false, "events:PutEvents", bus, put("o-other00000", ec2, "AWS API Call via CloudTrail"), false},
		{forward, false, "events:PutEvents", bus, put("o-other00000", ec2, state, "AWS API Call via CloudTrail"), false},
		{forward, false, "events:PutEvents", bus, put("o-other00000", nil, state), false},
		{forward, false, "events:PutEvents", bus, put("o-other00000", ec2), false},
		{forward, false, "events:PutEvents", bus + "-of-others", put(organization, ec2, state), false},
		{forward, false, "events:PutRule", "arn:aws:events:us-east-1:123456789012:rule/a", nil, false},
		{role(memberRole), false, "events:PutEvents", bus, put(organization, ec2, state), false},
		{role(insider), true, "events:PutEvents", bus, put(organization, ec2, state), true},
		{role(insider), false, "events:PutEvents", bus, put(organization, ec2, state), false},
		{role(insider), true, "events:PutEvents", bus, put(organization, []string{"aws.s3"}, state), false},
		{role(insider), true, "events:PutEvents", bus, put(organization, ec2, "AWS API Call via CloudTrail"), false},
		{role(insider), true, "events:PutEvents", bus, put(organization, nil, state), false},
		{role(insider), true, "events:PutEvents", bus, put(organization, ec2), false},
		{role(insider), true, "events:PutEvents", bus, put("o-other00000", ec2, state), false},
		{role(outsider), true, "events:PutEvents", bus, put("o-other00000", ec2, state), false},
		{role(outsider), true, "events:PutEvents", bus, requestKeys{"events:source": ec2, "events:detail-type": {state}}, false}, // of no organization
		{role(outsider), true, "events:PutRule", c.arn("ProvisionRule"), nil, false},
		// The roles.
		{service("lambda"), false, "sts:AssumeRole", reconcileRole, nil, true},
		{service("lambda"), false, "sts:AssumeRole", c.arn("ProvisionFunctionRole"), nil, true},
		{service("lambda"), false, "sts:AssumeRole", c.arn("DeprovisionFunctionRole"), nil, true},
		{service("ec2"), false, "sts:AssumeRole", reconcileRole, nil, false},
		{admin, true, "sts:AssumeRole", reconcileRole, nil, false},
		{role(outsider), true, "sts:AssumeRole", reconcileRole, nil, false},
		{service("lambda"), false, "sts:AssumeRole", memberRole, nil, false},
		{admin, true, "sts:AssumeRole", memberRole, id, false},
		{role(outsider), true, "sts:AssumeRole", memberRole, id, false},
		{role("arn:aws:iam::111122223333:role/admin"), true, "sts:AssumeRole", memberRole, id, false},
		{role(vaultARN), true, "sts:AssumeRole", vaultRole, id, true},
		{role(vaultARN), true, "sts:AssumeRole", vaultRole, nil, false},
		{role(vaultARN), true, "sts:AssumeRole", vaultRole, having("sts:ExternalId", "another"), false},
		{role(vaultARN), false, "sts:AssumeRole", vaultRole, id, false},
		{role(vaultARN), true, "sts:AssumeRole", memberRole, id, false},
		{events, false, "sts:AssumeRole", m.arn("ForwardRole"), having("aws:SourceAccount", memberAccount), true},
		{events, false, "sts:AssumeRole", m.arn("ForwardRole"), having("aws:SourceAccount", "444455556666"), false},
		{events, false, "sts:AssumeRole", m.arn("ForwardRole"), nil, false},
		{service("lambda"), false, "sts:AssumeRole", m.arn("ForwardRole"), having("aws:SourceAccount", memberAccount), false},
		// The key, by the policy that docs/deploying.md shows.
		{events, false, "kms:GenerateDataKey", keyARN, nil, true},
		{events, false, "kms:Decrypt", keyARN, nil, true},
		{events, false, "kms:Encrypt", keyARN, nil, false},
		{service("logs.us-east-1"), false, "kms:Decrypt", keyARN, logs(c.physical("ProvisionLogGroup")), true},
		{service("logs.us-east-1"), false, "kms:Decrypt", keyARN, logs("others"), false},
		{service("logs.us-east-1"), false, "kms:Decrypt", keyARN, nil, false},
		{role(outsider), true, "kms:Decrypt", keyARN, nil, false},
	}
	for _, queue := range []string{"ProvisionDeadLetterQueue", "DeprovisionDeadLetterQueue", "ReconcileDeadLetterQueue"} {
		rows = append(rows, request{admin, true, "sqs:ReceiveMessage", c.arn(queue), nil, true}, request{admin, true, "sqs:ReceiveMessage", c.arn(queue), plain, false})
	}
	return slices.Concat(rows, a.ruleRequests(), a.memberRequests())
}

// ruleRequests are deliveries by each rule to each queue. Those to its targets are to be allowed.
func (a realm) ruleRequests() []request {
	var rows []request
	queues := each(a.t, a.central.resources, "AWS::SQS::Queue")
	for rule, properties := range each(a.t, a.central.resources, "AWS::Events::Rule") {
		targets := text(a.t, properties["Targets"])
		for queue := range queues {
			rows = append(rows, request{
				access.Caller{Service: "events.amazonaws.com"}, false, "sqs:SendMessage", a.central.arn(queue),
				requestKeys{"aws:SourceArn": {a.central.arn(rule)}, "aws:SourceAccount": {parts.AccountID}}, strings.Contains(targets, `"`+queue+`"`),
			})
		}
	}
	return rows
}

// memberRequests are calls by the roles of the member account. Functions and Vault call with sessions of these roles.
func (a realm) memberRequests() []request {
	var rows []request
	own := func(service, rest string) string {
		return "arn:aws:" + service + ":eu-west-1:" + memberAccount + ":" + rest
	}
	hooks := own("autoscaling", "autoScalingGroup:3f1a7a60-0000-11ee-be56-0242ac120002:autoScalingGroupName/workers")
	for _, c := range []struct {
		member, vault, forward bool
		action, resource       string
		context                requestKeys
	}{
		{true, true, false, "ec2:DescribeInstances", "*", nil},
		{true, true, false, "iam:GetInstanceProfile", "arn:aws:iam::111122223333:instance-profile/teams/worker", nil},
		{false, false, false, "iam:GetInstanceProfile", profileOf + "worker", nil},
		{false, false, false, "iam:GetRole", a.member.arn("MemberRole"), nil},
		{false, false, false, "iam:PassRole", a.member.arn("MemberRole"), nil},
		{true, false, false, "ec2:CreateTags", own("ec2", "instance/i-0a"), having("aws:TagKeys", "vault-identity")},
		{false, false, false, "ec2:CreateTags", own("ec2", "instance/i-0a"), having("aws:TagKeys", "vault-identity", "Name")},
		{false, false, false, "ec2:CreateTags", own("ec2", "instance/i-0a"), nil},
		{false, false, false, "ec2:CreateTags", machine, having("aws:TagKeys", "vault-identity")},
		{false, false, false, "ec2:TerminateInstances", own("ec2", "instance/i-0a"), nil},
		{true, false, false, "autoscaling:DescribeAutoScalingInstances", "*", nil},
		{true, false, false, "autoscaling:CompleteLifecycleAction", hooks, nil},
		{true, false, false, "autoscaling:RecordLifecycleActionHeartbeat", hooks, nil},
		{false, false, false, "autoscaling:CompleteLifecycleAction", group, nil},
		{false, false, false, "autoscaling:SetDesiredCapacity", hooks, nil},
		{false, false, false, "sts:AssumeRole", a.member.arn("MemberRole"), having("sts:ExternalId", stackName)},
		{false, false, false, "dynamodb:GetItem", a.central.arn("Table"), keys("instance#i-0a")},
	} {
		for id, want := range map[string]bool{"MemberRole": c.member, "VaultRole": c.vault, "ForwardRole": c.forward} {
			rows = append(rows, request{access.Caller{Role: a.member.arn(id)}, false, c.action, c.resource, c.context, want})
		}
	}
	return rows
}

// The queues', the bus's and the roles' own policies decide on other callers.
func TestOutsiders_ReachOnlyWhatIsMeant(t *testing.T) {
	a := newRealm(t, full)
	for _, r := range a.outsiderRequests() {
		possible(t, r)
		if got := a.allowed(r, a.policies); got != r.want {
			t.Errorf("%v: allowed is %v, want %v", r, got, r.want)
		}
	}
}

// Without accounts and organization, the bus takes nothing from elsewhere.
func TestBus_IsClosedByDefault(t *testing.T) {
	a := newRealm(t, bare)
	for _, r := range a.outsiderRequests() {
		if r.action == "events:PutEvents" && a.allowed(r, a.policies) {
			t.Errorf("%v: allowed, want it denied without MemberAccountIds and OrganizationId", r)
		}
	}
}

// A rule without its queue's statement loses its events.
func TestRules_ReachExactlyTheirTargets(t *testing.T) {
	a := newRealm(t, full)
	sent := 0
	for _, r := range a.ruleRequests() {
		if got := a.allowed(r, a.policies); got != r.want {
			t.Errorf("%v: allowed is %v, want %v", r, got, r.want)
		}
		if r.want {
			sent++
		}
	}
	if sent != 6 {
		t.Errorf("%d rules send to a queue, want 6", sent)
	}
}

// With AllowedAccounts of *, only the organization bounds the accounts whose role the functions assume.
func TestAssumeRole_StaysInTheOrganization(t *testing.T) {
	a := newRealm(t, with(full, map[string]string{"AllowedAccounts": "*"}))
	for of, want := range map[string]bool{organization: true, "o-other00000": false} {
		given := requestKeys{"sts:ExternalId": {stackName}, "aws:ResourceOrgID": {of}}
		for _, function := range []string{"Provision", "Deprovision", "Reconcile"} {
			r := a.code(function, "sts:AssumeRole", a.member.arn("MemberRole"), given, want)
			if got := a.allowed(r, a.policies); got != want {
				t.Errorf("%v: allowed is %v, want %v", r, got, want)
			}
		}
	}
}

// Each statement and each condition decides a request of the tables: without it, the result of one changes.
func TestPolicies_EachPartDecidesARequest(t *testing.T) {
	a := newRealm(t, full)
	rows := append(a.functionRequests(true), a.outsiderRequests()...)
	a.without(func(what string, policies []placed) {
		decides := slices.ContainsFunc(rows, func(r request) bool { return a.allowed(r, policies) != r.want })
		if !decides {
			t.Errorf("without %s the same requests are allowed: it does nothing, or the tables lack the request that it decides", what)
		}
	})
	allowed := 0
	for _, r := range rows {
		if r.want {
			allowed++
		}
	}
	t.Logf("%d requests: %d allowed, %d denied", len(rows), allowed, len(rows)-allowed)
}
