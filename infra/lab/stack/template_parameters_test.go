package stack

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts"
)

// refusal returns CloudFormation's error for some parameters; nil if it accepts them.
func refusal(t *testing.T, parameters map[string]string) error {
	t.Helper()
	d, err := newDecider(product(t), parameters, map[string]string{
		"AWS::Region": region, "AWS::AccountId": parts.AccountID, "AWS::Partition": "aws",
	})
	if err != nil {
		t.Fatal(err)
	}
	return d.rules(object(product(t)["Rules"]))
}

// Parameters that are each valid but do not fit together would deploy, and fail or have no effect later.
func TestParameters_BadCombinationsAreRefused(t *testing.T) {
	secret := full["VaultLoginSecretArn"]
	for name, row := range map[string]struct {
		change  map[string]string
		refused string // empty: accepted
	}{
		"the least":                                    {nil, ""},
		"approle without its secret":                   {map[string]string{"VaultLoginMethod": "approle"}, "VaultLoginSecretArn"},
		"approle with it":                              {map[string]string{"VaultLoginMethod": "approle", "VaultLoginSecretArn": secret}, ""},
		"subnets without security groups":              {map[string]string{"VpcSubnetIds": "subnet-1,subnet-2"}, "VpcSecurityGroupIds"},
		"security groups without subnets":              {map[string]string{"VpcSecurityGroupIds": "sg-1"}, "VpcSubnetIds"},
		"both":                                         {map[string]string{"VpcSubnetIds": "subnet-1", "VpcSecurityGroupIds": "sg-1,sg-2"}, ""},
		"accounts compared without a member role":      {map[string]string{"ReconcileAccounts": "111122223333"}, "MemberRoleName"},
		"accounts that forward without a member role":  {map[string]string{"MemberAccountIds": "111122223333,222233334444"}, "MemberRoleName"},
		"an organization that does without one":        {map[string]string{"OrganizationId": "o-abcdefghij"}, "MemberRoleName"},
		"an organization whose events are not allowed": {map[string]string{"OrganizationId": "o-abcdefghij", "MemberRoleName": "m"}, "AllowedAccounts"},
		"accounts that forward and are allowed":        {map[string]string{"MemberAccountIds": "111122223333", "MemberRoleName": "m", "AllowedAccounts": "111122223333"}, ""},
		"any account without an organization":          {map[string]string{"AllowedAccounts": "*"}, "OrganizationId"},
		"any account of an organization":               {map[string]string{"AllowedAccounts": "*", "OrganizationId": "o-abcdefghij", "MemberRoleName": "m"}, ""},
		"all of them with a member role":               {map[string]string{"ReconcileAccounts": "111122223333", "MemberAccountIds": "111122223333", "OrganizationId": "o-abcdefghij", "MemberRoleName": "m"}, ""},
		"one region of an account":                     {map[string]string{"ReconcileAccounts": "111122223333:eu-west-1, 222233334444", "MemberRoleName": "m"}, ""},
		"six hours, watched as if it were one":         {map[string]string{"ReconcileSchedule": "rate(6 hours)"}, "43200"},
		"six hours, watched as such":                   {map[string]string{"ReconcileSchedule": "rate(6 hours)", "ReconcileOverdueSeconds": "43200"}, ""},
		"every hour, and an alarm after one":           {map[string]string{"ReconcileOverdueSeconds": "3600"}, "7200"},
		"by hand, whatever the alarms' period":         {map[string]string{"ReconcileSchedule": "off", "ReconcileOverdueSeconds": "3600"}, ""},
		"a cron expression, whose rate is not known":   {map[string]string{"ReconcileSchedule": "cron(0 */6 * * ? *)", "ReconcileOverdueSeconds": "43200"}, ""},
	} {
		parameters := maps.Clone(bare)
		maps.Copy(parameters, row.change)
		err := refusal(t, parameters)
		if (row.refused == "" && err != nil) || (row.refused != "" && (err == nil || !strings.Contains(err.Error(), row.refused))) {
			t.Errorf("%s: seen %v, want a refusal that names %q", name, err, row.refused)
		}
	}
	if err := refusal(t, full); err != nil {
		t.Errorf("the fullest parameters of these tests are refused: %v", err)
	}
}

// IAM compares with a secret's complete ARN, so a partial one would be denied when the first function reads it.
func TestSecretParameters_TakeOnlyCompleteARNs(t *testing.T) {
	const prefix = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:"
	for _, name := range []string{"VaultCASecretArn", "VaultLoginSecretArn"} {
		pattern := regexp.MustCompile(fmt.Sprint(object(object(product(t)["Parameters"])[name])["AllowedPattern"]))
		for value, want := range map[string]bool{
			"": true, prefix + "vault-AbCdEf": true, prefix + "team/vault-ca-x1Y2z3": true,
			prefix + "vault": false, prefix + "vault-ca": false, prefix + "-AbCdEf": false, prefix + "vault-??????": false, prefix + "vault-AbCdEf*": false, "vault-AbCdEf": false,
		} {
			if got := pattern.MatchString(value); got != want {
				t.Errorf("%s accepts %q: %v, want %v", name, value, got, want)
			}
		}
	}
}

// An alarm's period of at least twice the schedule's always contains the end of a run. With a shorter one, reconcile-not-run
// fires between two runs and drift-stays never fires.
func TestAlarmPeriod_HoldsTwoRunsOfEachSchedule(t *testing.T) {
	parameters := object(product(t)["Parameters"])
	pattern := regexp.MustCompile(fmt.Sprint(object(parameters["ReconcileSchedule"])["AllowedPattern"]))
	periods := map[string]int{}
	for _, text := range list(object(parameters["ReconcileOverdueSeconds"])["AllowedValues"]) {
		seconds, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		periods[text] = seconds
	}
	for hours := 1; hours <= 48; hours++ {
		schedule := fmt.Sprintf("rate(%d hours)", hours)
		if hours == 1 {
			schedule = "rate(1 hour)"
		}
		if taken := pattern.MatchString(schedule); taken != (hours <= 12) {
			t.Errorf("%s is accepted: %v; no alarm can cover two periods of more than 12 hours", schedule, taken)
		}
		if hours > 12 {
			continue
		}
		fits := 0
		for period, seconds := range periods {
			values := maps.Clone(bare)
			values["ReconcileSchedule"], values["ReconcileOverdueSeconds"] = schedule, period
			enough := seconds >= 2*3600*hours
			if err := refusal(t, values); (err == nil) != enough {
				t.Errorf("%s with periods of %s s: %v, want it accepted: %v", schedule, period, err, enough)
			}
			if enough {
				fits++
			}
		}
		if fits == 0 {
			t.Errorf("%s is accepted, but no period fits", schedule)
		}
	}
	for schedule, want := range map[string]bool{
		"off": true, "rate(1 minute)": true, "rate(30 minutes)": true, "cron(0 2 * * ? *)": true,
		"rate(1 day)": false, "rate(7 days)": false, "rate(0 hours)": false, "rate(1 hours)": false, "hourly": false, "at(2030-01-01T00:00:00)": false,
	} {
		if pattern.MatchString(schedule) != want {
			t.Errorf("%s is accepted: %v, want %v", schedule, !want, want)
		}
	}
	for period, seconds := range periods {
		values := maps.Clone(full)
		values["ReconcileOverdueSeconds"], values["ReconcileSchedule"] = period, "rate(30 minutes)"
		for id, alarm := range each(t, resolved(t, values), "AWS::CloudWatch::Alarm") {
			looksBack(t, id, alarm)
			if follows := []string{"BlockedAlarm", "DriftStaysAlarm", "ProfilesRefusedAlarm"}; slices.Contains(follows, id) && periodOf(alarm) != seconds {
				t.Errorf("%s has periods of %d s, want %d, so that each contains at least one run", id, periodOf(alarm), seconds)
			}
			if covered := periodOf(alarm) * number(alarm["EvaluationPeriods"]); id == "ReconcileNotRunAlarm" && covered != seconds {
				t.Errorf("%s covers %d s, want %d, so that they contain at least one run", id, covered, seconds)
			}
		}
	}
}
