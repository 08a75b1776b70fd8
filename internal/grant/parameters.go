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
// Vault up to 1.20 and OpenBao let a value through that equals an allowed value, and a list only if it equals an allowed list. Vault
// from 1.21 on also lets a list or a comma string through if each element is an allowed value. So the rules name the same forms for
// every version, and each named form works on all of them: see textForms and listForms. Vault compares values as text. No value has
// a glob.
func accessRules(mount, role string, id identity, style ClientStyle) []rule {
	issue := map[string][]any{
		"common_name":        {id.commonName},
		"alt_names":          textForms(id.dnsNames),
		"ip_sans":            slices.Concat(textForms(id.addresses), listForms(id.addresses)),
		"uri_sans":           slices.Concat(textForms(id.uris), listForms(id.uris)),
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
		for _, k := range []string{"alt_names", "ip_sans", "uri_sans"} {
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
	// The PKI engine reads these as lists, so that a client can send an empty one.
	for _, k := range []string{"ip_sans", "uri_sans", "other_sans", "user_ids"} {
		parameters[k] = append(parameters[k], []any{})
	}
	// With either value the common name is the instance's own.
	parameters["exclude_cn_from_sans"] = []any{true, false, "true", "false"}
	parameters["remove_roots_from_chain"] = []any{}
}

// textForms returns the forms of values that a client sends as a string: each value alone and, for more than one, a comma string of
// all of them in the given order.
//
// Of the n! orders and 2^n subsets only these are named, so that a policy grows in proportion to its values.
func textForms(values []string) []any {
	forms := make([]any, 0, len(values)+1)
	for _, v := range values {
		forms = append(forms, v)
	}
	if len(values) > 1 {
		forms = append(forms, strings.Join(values, ","))
	}
	return forms
}

// listForms returns the same forms as JSON lists: each value in a list of one and, for more than one, a list of all of them in the
// given order. A parameter needs them only if the PKI engine reads it as a list, as ip_sans and uri_sans. It reads alt_names as a string and
// refuses a list there, whatever the policy allows.
func listForms(values []string) []any {
	forms := make([]any, 0, len(values)+1)
	all := make([]any, 0, len(values))
	for _, v := range values {
		forms = append(forms, []any{v})
		all = append(all, v)
	}
	if len(values) > 1 {
		forms = append(forms, all)
	}
	return forms
}
