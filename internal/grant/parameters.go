package grant

import (
	"maps"
	"slices"
	"strings"
)

// accessRules is the lock on a PKI role's issue and sign paths. A PKI role can only allow all addresses or none, so
// the closed parameter list of the policy is what names the addresses.
// https://developer.hashicorp.com/vault/docs/concepts/policies#parameter-constraints
//
// Vault up to 1.20 compares a list as a whole and from 1.21 each element, so each value stands alone and once all
// together in canonical order. Values are compared as text and none holds a glob.
func accessRules(mount, role string, id identity, style ClientStyle) []rule {
	issue := map[string][]any{
		"common_name":        anyList([]string{id.commonName}),
		"alt_names":          anyList(withJoin(id.dnsNames)),
		"ip_sans":            anyList(withJoin(id.addresses)),
		"ttl":                {},
		"format":             {},
		"private_key_format": {},
	}
	sign := maps.Clone(issue)
	delete(sign, "private_key_format")
	sign["csr"] = []any{}
	for _, parameters := range []map[string][]any{issue, sign} {
		if style == ClientComplete {
			letEmptyIn(parameters)
		}
		// An empty list lets any value in; with no address of its own a role must not see the parameter at all.
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

// letEmptyIn lets the fields in that complete clients send without meaning anything by them: empty, and nothing but
// empty, where a value would name something.
func letEmptyIn(parameters map[string][]any) {
	for _, k := range []string{"alt_names", "ip_sans", "uri_sans", "other_sans", "user_ids", "serial_number", "not_after"} {
		parameters[k] = append(slices.Clone(parameters[k]), "")
	}
	// Either way the common name is the instance's own.
	parameters["exclude_cn_from_sans"] = []any{true, false, "true", "false"}
	parameters["remove_roots_from_chain"] = []any{}
}

// withJoin is each value alone and, for more than one, all of them as one comma string.
func withJoin(list []string) []string {
	if len(list) < 2 {
		return list
	}
	return append(slices.Clone(list), strings.Join(list, ","))
}

func anyList(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}
