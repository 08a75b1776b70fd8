package grant_test

import (
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// The set has a worker and an etcd node of one VPC, and a builder whose role alone counts.
func closestSet() *grant.Set {
	role := func(name string) grant.Patterns { return grant.Patterns{"arn:aws:iam::*:role/" + name} }
	return &grant.Set{Profiles: []*grant.Profile{
		{Name: "ci-builder", Match: grant.Match{IAMRoleARN: role("builder")}},
		{Name: "alice-etcd", Match: grant.Match{IAMRoleARN: role("alice-etcd"), VPCIDs: []string{"vpc-0a1b2c3d"}}},
		{Name: "alice-worker", Match: grant.Match{IAMRoleARN: role("alice-worker"), VPCIDs: []string{"vpc-0a1b2c3d"}, Tags: map[string]string{"team": "stor*", "env": "*"}}},
		{Name: "alice-profile", Match: grant.Match{IAMInstanceProfileARN: grant.Patterns{"*:instance-profile/alice-web", "*:instance-profile/alice-db"}, Regions: []string{"eu-*"}}},
	}}
}

func TestClosest_NamesProfileConditionAndValue(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*facts.Instance)
		want   string
	}{
		"another VPC": {
			func(f *facts.Instance) { f.VPCID = "vpc-00000001" },
			`alice-worker: match.vpc_ids: the instance has "vpc-00000001", wanted is "vpc-0a1b2c3d"`,
		},
		"no VPC": {func(f *facts.Instance) { f.VPCID = "" }, `alice-worker: match.vpc_ids: the instance has none, wanted is "vpc-0a1b2c3d"`},
		"another partition": {
			func(f *facts.Instance) { f.IAMRoleARN = "arn:aws-cn:iam::123456789012:role/alice-worker" },
			`alice-worker: match.iam_role_arn: the instance has "arn:aws-cn:iam::123456789012:role/alice-worker", wanted is "arn:aws:iam::*:role/alice-worker"`,
		},
		"a role with a path": {
			func(f *facts.Instance) {
				f.IAMRoleARN, f.IAMInstanceProfileARN = "arn:aws:iam::123456789012:role/team/alice-etcd", ""
			},
			`alice-etcd: match.iam_role_arn: the instance has "arn:aws:iam::123456789012:role/team/alice-etcd", wanted is "arn:aws:iam::*:role/alice-etcd"`,
		},
		"no role": {
			func(f *facts.Instance) { f.IAMRoleARN = "" },
			`alice-profile: match.iam_instance_profile_arn: the instance has "arn:aws:iam::123456789012:instance-profile/alice-worker", wanted is "*:instance-profile/alice-web" or "*:instance-profile/alice-db"; match.regions: the instance has "us-east-1", wanted is "eu-*"`,
		},
		"a tag that is missing": {func(f *facts.Instance) { delete(f.Tags, "env") }, `alice-worker: match.tags "env": the instance has none, wanted is "*"`},
		"a tag that is empty":   {func(f *facts.Instance) { f.Tags["team"] = "" }, `alice-worker: match.tags "team": the instance has "", wanted is "stor*"`},
		"two conditions, and a profile with one condition": {
			func(f *facts.Instance) { f.VPCID, f.Tags = "vpc-00000001", nil },
			`alice-worker: match.vpc_ids: the instance has "vpc-00000001", wanted is "vpc-0a1b2c3d"; match.tags "env": the instance has none, wanted is "*"; match.tags "team": the instance has none, wanted is "stor*"`,
		},
	} {
		f := baseline()
		f.Tags = map[string]string{"team": "storage", "env": ""}
		row.change(&f)
		if p, err := closestSet().Match(f); p != nil || err != nil {
			t.Fatalf("%s: want no profile to fit, got %v, %v", name, p, err)
		}
		if got := closestSet().Closest(f); got != row.want {
			t.Errorf("%s: want\n%s\ngot\n%s", name, row.want, got)
		}
	}
}

// IAM is asked for a role only where it can decide, so no role is not the reason then.
func TestClosest_LeavesOutARoleThatIAMWasNotAskedFor(t *testing.T) {
	f := baseline()
	f.IAMRoleARN, f.VPCID, f.ObservedAt, f.Tags = "", "vpc-00000001", f.LaunchTime, map[string]string{"team": "storage", "env": ""}
	if got, want := closestSet().Closest(f), `alice-worker: match.vpc_ids: the instance has "vpc-00000001", wanted is "vpc-0a1b2c3d"`; got != want {
		t.Errorf("want\n%s\ngot\n%s", want, got)
	}
	f.RoleObservedAt = f.ObservedAt
	if got := closestSet().Misses(f); !strings.Contains(got[len(got)-1].String(), "match.iam_role_arn: the instance has none") {
		t.Errorf("want an instance profile without a role named, got %v", got)
	}
}

func TestMisses_AreSortedAndLeaveOutFits(t *testing.T) {
	f := baseline()
	f.Tags = map[string]string{"team": "storage", "env": ""}
	order := func() string {
		var names []string
		for _, m := range closestSet().Misses(f) {
			names = append(names, m.Profile.Name)
		}
		return strings.Join(names, " ")
	}
	if got, want := order(), "alice-profile alice-etcd ci-builder"; got != want {
		t.Errorf("the worker fits: want %s, got %s", want, got)
	}
	f.IAMRoleARN = "arn:aws:iam::123456789012:role/alice-etcx"
	if got, want := order(), "alice-etcd alice-profile alice-worker ci-builder"; got != want {
		t.Errorf("one character from etcd's role: want %s, got %s", want, got)
	}
	if got := (&grant.Set{}).Closest(f); got != "" {
		t.Errorf("want nothing without a profile, got %q", got)
	}
}
