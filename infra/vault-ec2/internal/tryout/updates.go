package tryout

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
)

// update is a set of parameters that is set, and then has its former values again.
type update struct {
	name         string
	set, unset   map[string]string
	needsSetup   bool // Vault's roles are bound to what changes
	replacesRole bool
}

// plannedUpdates are all optional parameters that an account without other use can have. Parameters that need a network, an organization
// or a secret of the account's owner are named by untriedParameters.
func (t *tryout) plannedUpdates() []update {
	out, p := t.home().stack.Outputs, partition(t.home())
	same := func(names ...string) map[string]string {
		all := map[string]string{}
		for _, n := range names {
			all[n] = ""
		}
		return all
	}
	return []update{
		{
			name: "a KMS key for table, queues and logs", set: map[string]string{"KmsKeyArn": out["KeyArn"]}, unset: same("KmsKeyArn"),
		},
		{
			name: "another path and a boundary for the roles", needsSetup: true, replacesRole: true,
			set:   map[string]string{"RolePath": "/" + t.o.Name + "/", "PermissionsBoundaryArn": "arn:" + p + ":iam::aws:policy/AdministratorAccess"},
			unset: same("RolePath", "PermissionsBoundaryArn"),
		},
		{
			name: "dual-stack endpoints", set: map[string]string{"UseDualStackEndpoints": "true"}, unset: map[string]string{"UseDualStackEndpoints": "false"},
		},
		{
			name: "the other parameters", needsSetup: true,
			set: map[string]string{
				"AlarmTopicArn": out["TopicArn"], "AlarmOKTopicArn": out["TopicArn"], "AuditEventBusName": "", "ConflictMode": "adopt", "DeleteLimitPercent": "50",
				"DeprovisionMaxConcurrency": "6", "DeprovisionOn": "shutting-down", "HookOnRefusal": "continue", "LogLevel": "debug", "LogRetentionDays": "30",
				"MaxCertificateTTL": "720h", "NameWait": "5m", "ProvisionMaxConcurrency": "6", "QuarantineSeverity": "high", "ReadyTag": "vault-ready", "ReconcileMemorySize": "1024",
				"ReconcileMode": "detect", "ReconcileOverdueSeconds": "3600", "ReconcileRepairs": "queue", "ReconcileSchedule": "rate(30 minutes)",
				"RevokeCertificates": "true", "RunbookUrl": "https://example.com/runbook", "Tracing": "Active", "VaultSTSRegion": t.home().aws.Region,
			},
			unset: map[string]string{
				"AlarmTopicArn": "", "AlarmOKTopicArn": "", "AuditEventBusName": "default", "ConflictMode": "refuse", "DeleteLimitPercent": "20",
				"DeprovisionMaxConcurrency": "4", "DeprovisionOn": "terminated", "HookOnRefusal": "abandon", "LogLevel": "info", "LogRetentionDays": "90",
				"MaxCertificateTTL": "8760h", "NameWait": "10m", "ProvisionMaxConcurrency": "4", "QuarantineSeverity": "off", "ReadyTag": "", "ReconcileMemorySize": "512",
				"ReconcileMode": "correct", "ReconcileOverdueSeconds": "7200", "ReconcileRepairs": "in-place", "ReconcileSchedule": "rate(1 hour)",
				"RevokeCertificates": "false", "RunbookUrl": "https://github.com/vault-ec2-provisioner/vault-ec2-provisioner/blob/main/infra/RUNBOOK.md", "Tracing": "PassThrough", "VaultSTSRegion": "",
			},
		},
	}
}

// untriedParameters are the parameters that no update changes, with the reason.
var untriedParameters = map[string]string{
	"Architecture":   "needs the package of the other processor",
	"HookPrefix":     "the groups' hooks have the default one",
	"VaultAddr":      "the deployment's own",
	"VaultAuthMount": "needs another set-up of Vault", "VaultCASecretArn": "the deployment's own", "VaultIAMServerId": "the deployment's own",
	"VaultLoginMethod": "needs a secret", "VaultLoginMount": "needs another set-up of Vault", "VaultLoginRole": "needs another set-up of Vault",
	"VaultLoginSecretArn": "needs a secret", "VaultNamespace": "needs Vault Enterprise or OpenBao", "VaultSTSEndpoint": "needs an endpoint of your own",
	"Profiles": "active from the start", "MemberRoleName": "set from the start with --member-profile", "MemberRoleExternalId": "bound in the member's roles",
	"MemberAccountIds": "changed in the part on members", "OrganizationId": "needs an organization", "AllowedAccounts": "set from the start by ReconcileAccounts",
	"ReconcileAccounts": "set from the start with --member-profile", "ReconcileRegions": "set from the start with --second-region",
	"UseFIPSEndpoints": "few regions have them", "VpcSubnetIds": "needs a network with NAT or endpoints", "VpcSecurityGroupIds": "needs a network with NAT or endpoints",
}

// updates changes each parameter there and back, while the instances use their identities.
func (t *tryout) updates(ctx context.Context) bool {
	before, err := t.stateful(ctx)
	if !t.j.check("The stack's resources can be listed", time.Now(), err) {
		return false
	}
	for _, u := range t.plannedUpdates() {
		for _, way := range []struct {
			verb   string
			values map[string]string
		}{{"set", u.set}, {"unset", u.unset}} {
			names := strings.Join(slices.Sorted(maps.Keys(way.values)), ", ")
			t.update(ctx, fmt.Sprintf("%s %s (%s)", u.name, way.verb, names), u, way.values)
		}
	}
	since := time.Now()
	after, err := t.stateful(ctx)
	if err == nil && !maps.Equal(before, after) {
		err = fmt.Errorf("the table and the queues were %v, and are %v", before, after)
	}
	t.j.check("No update replaced the table or a queue", since, err)
	for _, name := range slices.Sorted(maps.Keys(untriedParameters)) {
		t.j.skip("Parameter "+name, untriedParameters[name])
	}
	return true
}

// update makes one update. Afterwards the doctor finds nothing, the instances go on, and a new one is granted.
func (t *tryout) update(ctx context.Context, name string, u update, values map[string]string) {
	since := time.Now()
	err := t.samDeploy(ctx, values)
	if err != nil {
		err = fmt.Errorf("%w%s", err, firstFailure(ctx, cloudformation.NewFromConfig(t.home().aws), t.o.Name))
	}
	if err == nil && u.replacesRole {
		err = t.renewMember(ctx)
	}
	if err == nil && u.needsSetup {
		err = t.setUp(ctx)
	}
	if err == nil {
		// Functions read a changed variable at their next start, and Vault's caches of IAM's answers end after a moment.
		t.j.doing("vault-ec2 doctor --stack %s", t.o.Name)
		err = t.await(ctx, stayPatience, func() error { return t.quietly(ctx, "doctor", "--stack", t.o.Name) })
	}
	if !t.j.check("Update: "+name+", and the doctor finds nothing", since, err) {
		return
	}
	since = time.Now()
	more, err := t.launch(ctx, kind{name: "after an update", place: home, count: 1})
	if err == nil {
		err = errors.Join(t.awaitGrants(ctx, more), t.awaitUses(ctx, t.reported()))
	}
	t.j.check("After it a new instance is granted, and no other was refused", since, err)
	if len(more) == 0 {
		return
	}
	// It ends now: a new account may run few instances at a time.
	since = time.Now()
	t.hosts = slices.DeleteFunc(t.hosts, func(h *host) bool { return h == more[0] })
	err = t.terminateIDs(ctx, t.home(), []string{more[0].id})
	if err == nil {
		err = t.await(ctx, endPatience, func() error { return t.isCut(ctx, more[0]) })
	}
	t.j.check("It ends, and is cut off", since, err)
}

// stateful returns the physical IDs of the table and the queues.
func (t *tryout) stateful(ctx context.Context) (map[string]string, error) {
	ids := map[string]string{}
	err := t.eachResource(ctx, t.home(), t.o.Name, func(r types.StackResourceSummary) {
		switch aws.ToString(r.ResourceType) {
		case "AWS::DynamoDB::Table", "AWS::SQS::Queue":
			ids[aws.ToString(r.LogicalResourceId)] = aws.ToString(r.PhysicalResourceId)
		}
	})
	if err == nil && len(ids) == 0 {
		err = fmt.Errorf("stack %s has no table and no queue", t.o.Name)
	}
	return ids, err
}

// eachResource calls do with each resource of a stack, by name or, if it was deleted, by ID.
func (t *tryout) eachResource(ctx context.Context, p *place, stack string, do func(types.StackResourceSummary)) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client, in := cloudformation.NewFromConfig(p.aws), &cloudformation.ListStackResourcesInput{StackName: &stack}
	for isFirst := true; isFirst || in.NextToken != nil; isFirst = false {
		page, err := client.ListStackResources(ctx, in)
		if err != nil {
			return fmt.Errorf("listing the resources of stack %s in %s: %w", stack, p, err)
		}
		for _, r := range page.StackResourceSummaries {
			do(r)
		}
		in.NextToken = page.NextToken
	}
	return nil
}
