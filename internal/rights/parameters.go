package rights

// authRoleParameters are the parameters that an instance's auth role is written with, and the values of those that have
// one value, or one of few, always. Each other parameter is refused by Vault, its deprecated names (policies, ttl,
// period) among them.
//
// Lists stay open. Before 1.21 Vault compares a list as a whole, so it cannot be bounded element by element; the same
// list as one string, separated by commas, would pass a pattern such as ec2-i-* as "ec2-i-0,root". The times that
// profiles choose stay open as well.
//
// Numbers are strings here. Vault decodes a number of a request and one of a policy into different types and never
// finds them equal (valueInParameterList, in its vault/acl.go), so internal/vault writes the numbers of an auth role as
// strings of digits, which Vault's fields take for numbers.
func authRoleParameters() map[string][]any {
	var open []any
	return map[string][]any{
		"auth_type":                      {"ec2", "iam"},
		"bound_account_id":               open,
		"bound_ami_id":                   open,
		"bound_ec2_instance_id":          open,
		"bound_iam_instance_profile_arn": open,
		"bound_iam_principal_arn":        open,
		"bound_iam_role_arn":             open,
		"bound_region":                   open,
		"bound_subnet_id":                open,
		"bound_vpc_id":                   open,
		"resolve_aws_unique_ids":         open,
		"inferred_entity_type":           {"", "ec2_instance"},
		"inferred_aws_region":            open,
		"role_tag":                       {""},
		"allow_instance_migration":       {false},
		"disallow_reauthentication":      {false},
		"token_policies":                 open,
		"token_bound_cidrs":              open,
		"token_ttl":                      open,
		"token_max_ttl":                  open,
		"token_explicit_max_ttl":         {"0"},
		"token_period":                   {"0"},
		"token_num_uses":                 {"0"},
		"token_type":                     {"default"},
		"token_no_default_policy":        {true},
	}
}
