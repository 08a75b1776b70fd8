package grant

import (
	"maps"
	"slices"
	"strings"
)

// accessRules returns the rules that lock the issue and sign paths of a PKI role by closed parameter lists. A PKI role can only
// allow all addresses or none, so the parameter list has to name the addresses.
// https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
//
// Vault up to 1.20 compares a list as a whole, and from 1.21 each element. So the parameter list has each value, and all of them
// together in canonical order. Vault compares values as text. No value has a glob.
func accessRules(mount, role string, id identity, style ClientStyle) []rule {
	issue := map[string][]any{
		"common_name":        anyList([]string{id.commonName}),
		"alt_names":          anyList(withJoined(id.dnsNames)),
		"ip_sans":            anyList(withJoined(id.addresses)),
		"ttl":                {},
		"format":             {},
		"private_key_format": {},
	}
	sign := maps.Clone(issue)
	delete(sign, "private_key_format")
	sign["csr"] = []any{}
	for _, parameters := range []map[string][]any{issue, sign} {
		if style == ClientComplete {
			allowEmpty(parameters)
		}
		// An empty list would allow any value: a role without addresses must not have the parameter.
		for _, k := range []string{"alt_names", "ip_sans"} {
			if len(parameters[k]) == 0 {
				delete(parameters, k)
			}
		}
	}
	return []rule{
		{Path: IssuePath(mount, role), Capabilities: []string{"update"}, Allowed: issue},
		{Path: SignPath(mount, role), Capabilities: []string{"update"}, Allowed: sign},
	}
}

// allowEmpty allows the fields that complete clients send although they have no value for them. A field whose value would name
// something is allowed only empty.
func allowEmpty(parameters map[string][]any) {
	for _, k := range []string{"alt_names", "ip_sans", "uri_sans", "other_sans", "user_ids", "serial_number", "not_after"} {
		parameters[k] = append(slices.Clone(parameters[k]), "")
	}
	// With either value the common name is the instance's own.
	parameters["exclude_cn_from_sans"] = []any{true, false, "true", "false"}
	parameters["remove_roots_from_chain"] = []any{}
}

// withJoined returns the values and, for more than one, a comma string of all of them.
func withJoined(list []string) []string {
	if len(list) < 2 {
		return list
	}
	return append(slices.Clone(list), strings.Join(list, ","))
}

// anyList returns a list of strings as a list of values.
func anyList(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}
