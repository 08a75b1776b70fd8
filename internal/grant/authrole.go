package grant

import (
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// authRole returns the auth role of an instance. If the profile needs the IAM role, it binds the role that the grant is made for, so
// that Vault asks AWS for that role at each login. Otherwise the functions need not know it, and neither they nor Vault ask IAM
// (docs/decisions/iam.md). It has every list, the empty ones too: a write of an AWS auth role merges, and only an empty list
// clears an old binding.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#create-update-role
func authRole(f facts.Instance, p *Profile, authMount string, policies []string) Object {
	policies = append(slices.Clone(policies), p.Auth.ExtraPolicies...)
	slices.Sort(policies)
	roles := []string{}
	if p.NeedsRole() {
		roles = present(f.IAMRoleARN)
	}
	fields := map[string]any{
		"auth_type":                      p.Auth.Type,
		"bound_ec2_instance_id":          []string{f.ID},
		"bound_account_id":               []string{f.Account},
		"bound_vpc_id":                   present(f.VPCID),
		"bound_iam_instance_profile_arn": present(f.IAMInstanceProfileARN),
		"bound_iam_role_arn":             roles,
		"bound_iam_principal_arn":        []string{},
		"bound_ami_id":                   []string{},
		"bound_subnet_id":                []string{},
		"resolve_aws_unique_ids":         true,
		"token_policies":                 slices.Compact(policies),
		"token_ttl":                      int64(p.Auth.TokenTTL / time.Second),
		"token_max_ttl":                  int64(p.Auth.TokenMaxTTL / time.Second),
		"token_explicit_max_ttl":         int64(0),
		"token_period":                   int64(0),
		"token_num_uses":                 int64(0),
		"token_type":                     "default",
		"token_bound_cidrs":              []string{},
		// An instance has its own policies and the profile's extra ones only. The default policy is templated, and would
		// also double Vault's work for each request.
		"token_no_default_policy": true,
	}
	if p.Auth.BindTokenToInstanceIP {
		fields["token_bound_cidrs"] = f.Addresses()
	}
	if p.Auth.Type == "iam" {
		// Vault reads the instance's ID from the session's name, which every caller that assumes any role of the account can
		// choose. So the session must be of the instance's own role. Resolving the unique ID would need the right iam:GetRole.
		fields["bound_iam_principal_arn"] = []string{principalARN(f.IAMRoleARN)}
		fields["resolve_aws_unique_ids"] = false
		fields["bound_region"] = []string{} // only the ec2 type has it; inferred_aws_region takes its place
		fields["inferred_entity_type"] = "ec2_instance"
		fields["inferred_aws_region"] = f.Region
	} else {
		fields["bound_region"] = []string{f.Region}
		fields["inferred_entity_type"] = ""
		fields["inferred_aws_region"] = ""
		fields["role_tag"] = ""
		fields["allow_instance_migration"] = false
		fields["disallow_reauthentication"] = false
	}
	return Object{Kind: KindAuthRole, Path: AuthRolePath(authMount, f.ID), Fields: fields}
}

// principalARN returns the ARN of an IAM role without its path, the form in which Vault has the principal of a session.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#bound_iam_principal_arn
func principalARN(roleARN string) string {
	account, name, _ := strings.Cut(roleARN, ":role/")
	return account + ":role/" + name[strings.LastIndexByte(name, '/')+1:]
}

// MustReplace reports whether an auth role, as Vault answers it, must be deleted before want can be written. Vault does not
// change auth_type of an existing role, nor resolve_aws_unique_ids from true to false.
// https://developer.hashicorp.com/vault/api-docs/auth/aws#resolve_aws_unique_ids
func MustReplace(current map[string]any, want Object) bool {
	if current == nil {
		return false
	}
	stopsResolving := current["resolve_aws_unique_ids"] == true && want.Fields["resolve_aws_unique_ids"] == false
	return stopsResolving || current["auth_type"] != want.Fields["auth_type"]
}

// Admits reports whether an auth role, as Vault answers it, admits the instance and no other.
func Admits(role map[string]any, instanceID string) bool {
	return slices.Equal(asList(role["bound_ec2_instance_id"]), []string{instanceID})
}

// TokenPolicies returns the policies of an auth role, as Vault answers it.
func TokenPolicies(role map[string]any) []string { return asList(role["token_policies"]) }

// HasTokenPolicy reports whether an auth role, as Vault answers it, has one of the policies.
func HasTokenPolicy(role map[string]any, policies []string) bool {
	return slices.ContainsFunc(TokenPolicies(role), func(p string) bool { return slices.Contains(policies, p) })
}

// present returns a list of s, or an empty list if s is empty.
func present(s string) []string {
	if s == "" {
		return []string{}
	}
	return []string{s}
}
