package grant_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func TestAuthRole_IsAlwaysBoundToTheInstance(t *testing.T) {
	for _, kind := range []string{"ec2", "iam"} {
		g := rendered(t, filesWith(replace("worker/profile.yaml", "auth: {", "auth: {type: "+kind+", ")), baseline())
		for field, want := range map[string][]string{
			"bound_ec2_instance_id":          {"i-0123456789abcdef0"},
			"bound_account_id":               {"123456789012"},
			"bound_vpc_id":                   {"vpc-0a1b2c3d"},
			"bound_iam_instance_profile_arn": {"arn:aws:iam::123456789012:instance-profile/alice-worker"},
			"token_policies":                 {"ec2-i-0123456789abcdef0-node"},
			"token_bound_cidrs":              {"10.1.1.4"},
			"bound_ami_id":                   {}, // sent although empty: a write of an AWS auth role merges
		} {
			if got, _ := g.AuthRole.Fields[field].([]string); !slices.Equal(got, want) || g.AuthRole.Fields[field] == nil {
				t.Errorf("auth type %s: %s is %v, want %v", kind, field, g.AuthRole.Fields[field], want)
			}
		}
	}
}

func TestAuthRole_BindsTheInstancesIAMRole(t *testing.T) {
	f := baseline()
	f.IAMRoleARN = "arn:aws:iam::123456789012:role/path/to/alice-worker"
	for kind, want := range map[string]map[string]any{
		"ec2": {"bound_iam_role_arn": []string{f.IAMRoleARN}, "bound_iam_principal_arn": []string{}, "resolve_aws_unique_ids": true},
		"iam": {"bound_iam_role_arn": []string{f.IAMRoleARN}, "bound_iam_principal_arn": []string{"arn:aws:iam::123456789012:role/alice-worker"}, "resolve_aws_unique_ids": false},
	} {
		fs := filesWith(replace("worker/profile.yaml", "{token_ttl:", "{type: "+kind+", token_ttl:"),
			replace("worker/profile.yaml", "role/alice-worker", "role/*alice-worker"))
		g := rendered(t, fs, f)
		if differ := (grant.Object{Kind: grant.KindAuthRole, Fields: want}).Differences(g.AuthRole.Fields); len(differ) > 0 {
			t.Errorf("%s: %v differ, so that a session of another role, or an instance profile with another role, could log in: %v", kind, differ, g.AuthRole.Fields)
		}
	}
	fs := filesWith(replace("worker/profile.yaml", "{token_ttl:", "{type: iam, token_ttl:"),
		replace("worker/profile.yaml", `iam_role_arn: "arn:aws:iam::*:role/alice-worker"`, `iam_instance_profile_arn: "arn:aws:iam::*:instance-profile/alice-worker"`))
	f.IAMRoleARN = ""
	if _, err := render(t, fs, f); !errors.Is(err, grant.ErrNotYet) {
		t.Errorf("want no grant for auth.type iam before the instance has a role, since it has no principal to bind, got %v", err)
	}
}

// TestAuthRole_WithoutNeedBindsNoIAMRole has a profile by instance profile. If its auth role depended on the role, it would change
// with IAM's being reachable, and Vault would have to ask IAM at each login.
func TestAuthRole_WithoutNeedBindsNoIAMRole(t *testing.T) {
	fs := filesWith(replace("worker/profile.yaml", `iam_role_arn: "arn:aws:iam::*:role/alice-worker"`, `iam_instance_profile_arn: "arn:aws:iam::*:instance-profile/alice-worker"`))
	f := baseline()
	f.IAMInstanceProfileARN = "arn:aws:iam::123456789012:instance-profile/alice-worker"
	want := map[string]any{"bound_iam_role_arn": []string{}, "bound_iam_instance_profile_arn": []string{f.IAMInstanceProfileARN}}
	for _, role := range []string{"arn:aws:iam::123456789012:role/alice-worker", ""} {
		f.IAMRoleARN = role
		g := rendered(t, fs, f)
		if differ := (grant.Object{Kind: grant.KindAuthRole, Fields: want}).Differences(g.AuthRole.Fields); len(differ) > 0 {
			t.Errorf("the role is %q: %v differ from %v: %v", role, differ, want, g.AuthRole.Fields)
		}
	}
}
