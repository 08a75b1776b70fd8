package stack

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

var memberTemplate = filepath.Join(root, "infra", "member-account", "template.yaml")

// member returns the parameters for an account with its roles in the lab's region. The central stack is in another account.
func member() map[string]string {
	return map[string]string{
		"CentralEventBusArn": "arn:aws:events:eu-central-1:210987654321:event-bus/default",
		"FunctionRoleArns":   "arn:aws:iam::210987654321:role/p,arn:aws:iam::210987654321:role/d,arn:aws:iam::210987654321:role/r",
		"ExternalId":         "the-central-stack", "RolesRegion": region,
	}
}

// Missing events never arrive, and extra ones cost money. A stack that removes at shutting-down needs the most events, and a
// member account does not know the stack's choice. GuardDuty itself sends findings to its administrator's account.
func TestMemberAccount_ForwardsExactlyTheRulesEvents(t *testing.T) {
	rows, _ := corpus(t)
	for central, elsewhere := range map[string]string{"early": "member", "full": "member full"} {
		for _, row := range rows {
			matched := slices.DeleteFunc(slices.Clone(row.rules[central]), func(rule string) bool { return rule == "FindingRule" })
			if forwarded := row.rules[elsewhere]; len(matched) != len(forwarded) {
				t.Errorf("%s: the central rules %q match, the forwarding rules %q", row.name, matched, forwarded)
			}
		}
	}
	if got := grants(t, resolve(t, shared(t, memberTemplate), member()), "ForwardRole"); !maps.EqualFunc(got, map[string][]string{"events:PutEvents": {`{"Ref":"CentralEventBusArn"}`}}, slices.Equal[[]string]) {
		t.Errorf("the rule may do %v, want only events:PutEvents on that one bus", got)
	}
}

// EventBridge does not try a refused event again.
func TestCentralBus_AcceptsEachForwardedEvent(t *testing.T) {
	rows, _ := corpus(t)
	for id, policy := range each(t, resolved(t, full), "AWS::Events::EventBusPolicy") {
		allowed := object(object(object(policy["Statement"])["Condition"])["ForAllValues:StringEquals"])
		used := map[string]bool{}
		for _, row := range rows {
			if len(row.rules["member"])+len(row.rules["member full"]) == 0 {
				continue
			}
			for key, field := range map[string]string{"events:source": "source", "events:detail-type": "detail-type"} {
				value, _ := row.event[field].(string)
				if used[value] = true; !slices.Contains(list(allowed[key]), value) {
					t.Errorf("%s: %s is forwarded, and the bus refuses its %s %q", id, row.name, field, value)
				}
			}
		}
		for key, values := range allowed {
			for _, value := range list(values) {
				if !used[value] {
					t.Errorf("%s: %s allows %q, which no member forwards", id, key, value)
				}
			}
		}
	}
}

func TestMemberRole_IsMinimalAndNeedsExternalID(t *testing.T) {
	parameters := member()
	parameters["VaultPrincipalArns"], parameters["ReadyTag"] = "arn:aws:iam::999999999999:role/vault", full["ReadyTag"]
	resources := resolve(t, shared(t, memberTemplate), parameters)
	central := grants(t, resolved(t, full), "DeprovisionFunctionRole")
	looks := []string{"ec2:DescribeInstances", "iam:GetInstanceProfile"}
	may := map[string][]string{
		"VaultRole":  looks,
		"MemberRole": append([]string{"autoscaling:CompleteLifecycleAction", "autoscaling:DescribeAutoScalingInstances", "autoscaling:RecordLifecycleActionHeartbeat", "ec2:CreateTags"}, looks...),
	}
	for role, principals := range map[string]string{"MemberRole": "FunctionRoleArns", "VaultRole": "VaultPrincipalArns"} {
		got := grants(t, resources, role)
		if want := may[role]; !slices.Equal(slices.Sorted(maps.Keys(got)), want) {
			t.Errorf("%s may do %v, want %q: every call to EC2, IAM and Auto Scaling", role, got, want)
		}
		for action, on := range got {
			if !slices.Equal(on, central[action]) {
				t.Errorf("%s may do %s on %q, a function in its own account on %q", role, action, on, central[action])
			}
		}
		trust := text(t, object(object(resources[role])["Properties"])["AssumeRolePolicyDocument"])
		want := `{"Statement":[{"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":{"Ref":"ExternalId"}}},` +
			`"Effect":"Allow","Principal":{"AWS":{"Ref":"` + principals + `"}}}],"Version":"2012-10-17"}`
		if trust != want {
			t.Errorf("%s trusts\n%s, want\n%s", role, trust, want)
		}
	}
}

// Vault 1.16 and OpenBao cannot store an external ID, and the functions' role keeps its condition with them too.
func TestVaultRole_ExternalIDCanBeLeftOut(t *testing.T) {
	parameters := member()
	parameters["VaultPrincipalArns"], parameters["VaultExternalId"] = "arn:aws:iam::999999999999:role/vault", "none"
	resources := resolve(t, shared(t, memberTemplate), parameters)
	for role, conditional := range map[string]bool{"VaultRole": false, "MemberRole": true} {
		trust := text(t, object(object(resources[role])["Properties"])["AssumeRolePolicyDocument"])
		if strings.Contains(trust, "sts:ExternalId") != conditional {
			t.Errorf("%s: want an external ID required: %v, got the trust %s", role, conditional, trust)
		}
	}
}

// With an auth role that binds an IAM role, Vault reads the role in the instance profile at each login. Without that right no
// instance of the account could log in. An operator who writes the role by hand follows the pages.
func TestVaultRole_AllowsTheDocumentedActions(t *testing.T) {
	parameters := member()
	parameters["VaultPrincipalArns"] = "arn:aws:iam::999999999999:role/vault"
	got := grants(t, resolve(t, shared(t, memberTemplate), parameters), "VaultRole")
	for action, on := range map[string]string{
		"ec2:DescribeInstances":  `"*"`,
		"iam:GetInstanceProfile": `{"Fn::Sub":"arn:${AWS::Partition}:iam::${AWS::AccountId}:instance-profile/*"}`,
	} {
		if !slices.Equal(got[action], []string{on}) {
			t.Errorf("Vault may %s on %q, want %s", action, got[action], on)
		}
	}
	for _, page := range []string{"deploying.md", "accounts.md"} {
		said, err := os.ReadFile(filepath.Join(root, "docs", page))
		if err != nil {
			t.Fatal(err)
		}
		for action := range got {
			if !strings.Contains(string(said), "`"+action+"`") {
				t.Errorf("docs/%s does not name %s, which Vault's role allows", page, action)
			}
		}
	}
}

// A Vault in another account than the functions asks for the unique IDs of their roles, in their account only.
func TestVaultRole_MayReadTheFunctionsRolesInTheirAccount(t *testing.T) {
	for bus, want := range map[string][]string{
		"arn:aws:events:eu-west-1:" + parts.AccountID + ":event-bus/default": {`{"Ref":"FunctionRoleArns"}`},
		"arn:aws:events:eu-west-1:999999999999:event-bus/default":            nil,
	} {
		parameters := member()
		parameters["CentralEventBusArn"], parameters["VaultPrincipalArns"] = bus, "arn:aws:iam::999999999999:role/vault"
		got := grants(t, resolve(t, shared(t, memberTemplate), parameters), "VaultRole")
		if !slices.Equal(got["iam:GetRole"], want) {
			t.Errorf("%s: Vault may read the IAM roles %q, want %q", bus, got["iam:GetRole"], want)
		}
	}
}

// IAM is global: in a second region the same role would already exist.
func TestStackSet_MakesRolesOnceAndNoBusLoop(t *testing.T) {
	for name, row := range map[string]struct {
		change  func(map[string]string)
		forward bool
		member  bool
		vault   bool
	}{
		"another account, the roles' region": {func(map[string]string) {}, true, true, false},
		"the same with a Vault":              {func(p map[string]string) { p["VaultPrincipalArns"] = "arn:aws:iam::9:role/v" }, true, true, true},
		"another account, another region":    {func(p map[string]string) { p["RolesRegion"] = "eu-west-1" }, true, false, false},
		"the central account, another region": {func(p map[string]string) {
			p["CentralEventBusArn"] = "arn:aws:events:eu-west-1:" + parts.AccountID + ":event-bus/default"
			p["RolesRegion"] = ""
		}, true, false, false},
		"the central account and region": {func(p map[string]string) {
			p["CentralEventBusArn"] = "arn:aws:events:" + region + ":" + parts.AccountID + ":event-bus/default"
			p["RolesRegion"] = ""
		}, false, false, false},
		"the central account and region, with a Vault elsewhere": {func(p map[string]string) {
			p["CentralEventBusArn"] = "arn:aws:events:" + region + ":" + parts.AccountID + ":event-bus/default"
			p["VaultPrincipalArns"] = "arn:aws:iam::9:role/v"
		}, false, false, true},
		"the central account, another region, with a Vault elsewhere": {func(p map[string]string) {
			p["CentralEventBusArn"] = "arn:aws:events:eu-west-1:" + parts.AccountID + ":event-bus/default"
			p["VaultPrincipalArns"] = "arn:aws:iam::9:role/v"
		}, true, false, true},
	} {
		parameters := member()
		row.change(parameters)
		resources := resolve(t, shared(t, memberTemplate), parameters)
		for id, want := range map[string]bool{"ForwardRule": row.forward, "ForwardHooksRule": row.forward, "ForwardTagsRule": row.forward, "ForwardRole": row.forward, "ForwardingFailedAlarm": row.forward, "MemberRole": row.member, "VaultRole": row.vault} {
			if _, is := resources[id]; is != want {
				t.Errorf("%s: %s exists: %v, want %v", name, id, is, want)
			}
		}
	}
}

func TestCentralBus_AcceptsOnlyMembersEvents(t *testing.T) {
	resources := resolved(t, full)
	const set = `"ForAllValues:StringEquals":{"events:detail-type":["EC2 Instance State-change Notification",` +
		`"EC2 Instance-launch Lifecycle Action","EC2 Instance-terminate Lifecycle Action","Tag Change on Resource"],` +
		`"events:source":["aws.ec2","aws.autoscaling","aws.tag"]},"Null":{"events:detail-type":"false","events:source":"false"}`
	conditions := map[string]string{
		"MemberAccountsBusPolicy": `{` + set + `}`,
		"OrganizationBusPolicy":   `{` + set + `,"StringEquals":{"aws:PrincipalOrgID":{"Ref":"OrganizationId"}}}`,
	}
	principals := map[string]string{"MemberAccountsBusPolicy": `{"AWS":{"Ref":"MemberAccountIds"}}`, "OrganizationBusPolicy": `"*"`}
	policies := each(t, resources, "AWS::Events::EventBusPolicy")
	for id, policy := range policies {
		s := object(policy["Statement"])
		if s["Action"] != "events:PutEvents" || s["Effect"] != "Allow" || text(t, s["Condition"]) != conditions[id] || text(t, s["Principal"]) != principals[id] {
			t.Errorf("%s: %s, want %s to put events under %s", id, text(t, s), principals[id], conditions[id])
		}
	}
	if len(policies) != 2 {
		t.Errorf("the bus has %d policies, want one for accounts and one for the organization", len(policies))
	}
	for id := range resolved(t, bare) {
		if policies[id] != nil {
			t.Errorf("%s exists although no account was named", id)
		}
	}
}

// One call puts up to ten events, so events:source has several values: a plain StringEquals refuses a call with two of them,
// and a set operator alone allows a call with none.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html
func TestFunctions_PutOnlyTheirOwnEvents(t *testing.T) {
	statements, _ := object(object(object(resolved(t, bare)["FunctionsPolicy"])["Properties"])["PolicyDocument"])["Statement"].([]any)
	found := 0
	for _, s := range statements {
		if object(s)["Action"] != "events:PutEvents" {
			continue
		}
		found++
		want := `{"ForAllValues:StringEquals":{"events:source":"vault-ec2-provisioner"},"Null":{"events:source":"false"}}`
		if got := text(t, object(s)["Condition"]); got != want {
			t.Errorf("events are put under %s, want %s: with another source they would be false evidence", got, want)
		}
	}
	if found != 1 {
		t.Errorf("%d statements let the functions put events, want one", found)
	}
}
