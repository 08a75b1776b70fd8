package rights

// authRoleParameters returns the parameters of a write of an instance's auth role. A parameter with one or few possible values
// has these values; an open one has none. Vault refuses all other parameters, the deprecated ones (policies, ttl, period) among
// them.
//
// Lists are open. Before 1.21 Vault compares a list as a whole, so its elements cannot be bounded, and a pattern such as
// ec2-i-* would match the list "ec2-i-0,root" in the form of one string. The times that profiles set are open too.
//
// Numbers are strings here. Vault decodes a number of a request and a number of a policy into different types, which are never
// equal (valueInParameterList in its vault/acl.go). So internal/vault writes the numbers of an auth role as strings of digits,
// which Vault's fields accept.
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
