package grant_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

func TestMatch_OfTwoProfilesIsRefused(t *testing.T) {
	fs := files()
	for name, f := range files() {
		fs[strings.Replace(name, "worker/", "other/", 1)] = f
	}
	replace("other/profile.yaml", "alice_cluster-worker", "alice_cluster-other")(fs)
	_, err := loaded(t, fs).Match(baseline())
	if fault.KindOf(err) != fault.Refuse || !strings.Contains(fmt.Sprint(err), "alice_cluster-worker") || !strings.Contains(fmt.Sprint(err), "alice_cluster-other") {
		t.Errorf("want a refusal that names both profiles, got %v", err)
	}
}

func TestMatch_NeedsEveryField(t *testing.T) {
	for name, row := range map[string]struct {
		match  string
		change func(*facts.Instance)
		want   bool
	}{
		"the role by a glob":                   {`iam_role_arn: "arn:aws:iam::*:role/alice-worker"`, nil, true},
		"another role":                         {`iam_role_arn: "arn:aws:iam::*:role/alice-work"`, nil, false},
		"a role that only ends alike":          {`iam_role_arn: "role/alice-worker"`, nil, false},
		"an instance without a role":           {`iam_role_arn: "*"`, func(f *facts.Instance) { f.IAMRoleARN = "" }, false},
		"a role by the second pattern":         {`iam_role_arn: ["arn:aws:iam::*:role/other", "arn:aws*:iam::*:role/alice-worker"]`, nil, true},
		"a role by no pattern of a list":       {`iam_role_arn: ["arn:aws:iam::*:role/other", "arn:aws-cn:iam::*:role/alice-worker"]`, nil, false},
		"the instance profile":                 {`iam_instance_profile_arn: "*:instance-profile/alice-*"`, nil, true},
		"an account in the list":               {`iam_role_arn: "*", account_ids: ["123456789012", "000000000000"]`, nil, true},
		"an account not in the list":           {`iam_role_arn: "*", account_ids: ["000000000000"]`, nil, false},
		"an account by a glob":                 {`iam_role_arn: "*", account_ids: ["1234*"]`, nil, true},
		"an account that no glob fits":         {`iam_role_arn: "*", account_ids: ["1235*", "*13"]`, nil, false},
		"a region by a glob":                   {`iam_role_arn: "*", regions: ["eu-*", "us-*"]`, nil, true},
		"a region not in the list":             {`iam_role_arn: "*", regions: ["eu-*"]`, nil, false},
		"a VPC not in the list":                {`iam_role_arn: "*", vpc_ids: [vpc-00000000]`, nil, false},
		"a tag":                                {`iam_role_arn: "*", tags: {team: stor*}`, nil, true},
		"a tag that is missing":                {`iam_role_arn: "*", tags: {owner: "*"}`, nil, false},
		"a tag with an empty value":            {`iam_role_arn: "*", tags: {enabled: "*"}`, func(f *facts.Instance) { f.Tags["enabled"] = "" }, true},
		"an empty value against some text":     {`iam_role_arn: "*", tags: {enabled: "t*"}`, func(f *facts.Instance) { f.Tags["enabled"] = "" }, false},
		"a VPC that the instance lacks":        {`iam_role_arn: "*", vpc_ids: ["*"]`, func(f *facts.Instance) { f.VPCID = "" }, false},
		"an instance profile that it lacks":    {`iam_instance_profile_arn: "*"`, func(f *facts.Instance) { f.IAMInstanceProfileARN = "" }, false},
		"a tag of another value":               {`iam_role_arn: "*", tags: {team: compute}`, nil, false},
		"a dot that would match any character": {`iam_role_arn: "arn:aws:iam::123456789012:role/alice.worker"`, nil, false},
		"a newline after the value":            {`iam_role_arn: "*", tags: {team: storage}`, func(f *facts.Instance) { f.Tags["team"] = "storage\nx" }, false},
		"two conditions, one not met":          {`iam_role_arn: "*", iam_instance_profile_arn: "other"`, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			set := loaded(t, filesWith(replace("worker/profile.yaml", `iam_role_arn: "arn:aws:iam::*:role/alice-worker"`, row.match)))
			f := baseline()
			if row.change != nil {
				row.change(&f)
			}
			p, err := set.Match(f)
			if err != nil || (p != nil) != row.want {
				t.Errorf("match {%s}: got %v, %v, want %v", row.match, p != nil, err, row.want)
			}
		})
	}
}

func TestProfile_NamesTheTagsItUses(t *testing.T) {
	for name, row := range map[string]struct {
		change func(fstest.MapFS)
		want   bool
	}{
		"no tag":                {both(), false},
		"another tag":           {replace("worker/profile.yaml", "match: {", "match: {tags: {role: worker}, "), false},
		"match has it":          {replace("worker/profile.yaml", "match: {", "match: {tags: {identity: ready}, "), true},
		"fqdn uses it":          {replace("worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, `fqdn: '{{ .Tag "identity" }}'`+"\nfqdn_suffixes: [alice.example]"), true},
		"a template uses it":    {replace("worker/policy.hcl.tmpl", "{{ .InstanceID }}", `{{ .InstanceID }}-{{ .Tag "identity" }}`), true},
		"a template can use it": {replace("worker/policy.hcl.tmpl", "{{ .InstanceID }}", `{{ .InstanceID }}-{{ .Tag .Region }}`), true},
	} {
		if got := loaded(t, filesWith(row.change)).Profiles[0].UsesTag("identity"); got != row.want {
			t.Errorf("%s: the profile uses the tag: %v, want %v", name, got, row.want)
		}
	}
}

func TestNeedsRole_OnlyWhereItCanDecide(t *testing.T) {
	const byProfile = `iam_instance_profile_arn: "*:instance-profile/alice-*"`
	role := replace("worker/profile.yaml", `iam_role_arn: "arn:aws:iam::*:role/alice-worker"`, byProfile)
	for name, row := range map[string]struct {
		edits []func(fstest.MapFS)
		want  bool
	}{
		"a profile that matches by role":                      {nil, true},
		"one by role, for another VPC":                        {[]func(fstest.MapFS){replace("worker/profile.yaml", "role/alice-worker\"", "role/alice-worker\", vpc_ids: [vpc-00000000]")}, false},
		"one by another role: only IAM can tell":              {[]func(fstest.MapFS){replace("worker/profile.yaml", "role/alice-worker", "role/other")}, true},
		"one by instance profile":                             {[]func(fstest.MapFS){role}, false},
		"one by instance profile whose template has the role": {[]func(fstest.MapFS){role, replace("worker/profile.yaml", "{{ .PrivateDNSName }}", "{{ if .IAMRoleARN }}{{ .PrivateDNSName }}{{ end }}")}, true},
		"one by instance profile of auth.type iam":            {[]func(fstest.MapFS){role, replace("worker/profile.yaml", "{token_ttl:", "{type: iam, token_ttl:")}, true},
	} {
		f := baseline()
		for _, arn := range []string{f.IAMRoleARN, ""} { // the answer decides whether the role is looked up
			f.IAMRoleARN = arn
			if got := loaded(t, filesWith(row.edits...)).NeedsRole(f); got != row.want {
				t.Errorf("%s, with the role %q: got %v, want %v", name, arn, got, row.want)
			}
		}
	}
}
