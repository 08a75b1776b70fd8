package grant

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// lockedFields returns the fields of a PKI role that decide which names a certificate can have. The program sets all of them at
// every write: a write of a PKI role resets a missing field to its default, and the defaults are open.
// https://developer.hashicorp.com/vault/api-docs/secret/pki#create-update-role
func lockedFields(id identity) map[string]any {
	domains := slices.Compact(slices.Sorted(slices.Values(append([]string{id.commonName}, id.dnsNames...))))
	return map[string]any{
		"allowed_domains":             domains,
		"allowed_domains_template":    false,
		"allow_bare_domains":          true,
		"allow_subdomains":            false,
		"allow_glob_domains":          false,
		"allow_wildcard_certificates": false,
		"allow_any_name":              false,
		"allow_localhost":             false,
		// A common name such as system:node:… is not a host name. allowed_domains still has it exactly.
		"enforce_hostnames":         CheckFQDN(id.commonName) == nil,
		"require_cn":                true,
		"cn_validations":            []string{"hostname"},
		"allow_ip_sans":             len(id.addresses) > 0,
		"use_csr_common_name":       false,
		"use_csr_sans":              false,
		"allowed_uri_sans":          append([]string{}, id.uris...),
		"allowed_uri_sans_template": false,
		"allowed_other_sans":        []string{},
		"allowed_user_ids":          []string{},
		// This closes the subject's serial number, in a request and in a CSR. serial_number_source, the choice between the
		// two, is not sent: Vault before 1.19 does not know it, and warns.
		"allowed_serial_numbers": []string{},
		"not_after":              "",
	}
}

// optionalLocks returns the fields of the lock that only OpenBao has: a second lock, beside the closed parameter list, on
// addresses and on an expiry beyond max_ttl.
// https://openbao.org/api-docs/secret/pki/#create-update-role
func optionalLocks(id identity) map[string]any {
	networks := make([]string, len(id.addresses))
	for i, a := range id.addresses {
		networks[i] = a + "/32"
		if strings.Contains(a, ":") {
			networks[i] = a + "/128"
		}
	}
	return map[string]any{"allowed_ip_sans_cidr": networks, "not_after_bound": "forbid"}
}

// freeFields returns the fields that a template may set, with their default values.
func freeFields() map[string]any {
	return map[string]any{
		"ttl":                                int64(0),
		"max_ttl":                            int64(0),
		"not_before_duration":                int64(30),
		"key_type":                           "rsa",
		"key_bits":                           int64(0),
		"signature_bits":                     int64(0),
		"use_pss":                            false,
		"key_usage":                          []string{"DigitalSignature", "KeyAgreement", "KeyEncipherment"},
		"ext_key_usage":                      []string{},
		"ext_key_usage_oids":                 []string{},
		"server_flag":                        true,
		"client_flag":                        true,
		"code_signing_flag":                  false,
		"email_protection_flag":              false,
		"organization":                       []string{},
		"ou":                                 []string{},
		"country":                            []string{},
		"locality":                           []string{},
		"province":                           []string{},
		"street_address":                     []string{},
		"postal_code":                        []string{},
		"generate_lease":                     false,
		"no_store":                           false,
		"policy_identifiers":                 []string{},
		"basic_constraints_valid_for_non_ca": false,
		"issuer_ref":                         "default",
	}
}

// vaultChooses reports whether Vault chose the value of a field of a PKI role that it answers: the wanted one is 0, or Vault dropped
// signature_bits and answers 0. It drops them for key_type any and ed25519 before 1.21, and for an ed25519 issuer from 1.21 on.
// With 0 it signs by SHA-256, or by the hash that belongs to the issuer's key. No name and no right depends on it.
// https://github.com/hashicorp/vault/blob/sdk/v0.21.0/sdk/helper/certutil/helpers.go
func vaultChooses(field string, want, got any) bool {
	isDropped := field == "signature_bits" && got != nil && equal(int64(0), got)
	return isDropped || ((field == "key_bits" || field == "signature_bits") && want == int64(0))
}

// locked returns the free fields with the locked ones, which take precedence.
func locked(free, lock map[string]any) map[string]any {
	fields := maps.Clone(free)
	maps.Copy(fields, lock)
	return fields
}

// freeRoleFields returns all free fields of a role, with the values of a rendered template. It fails for an unknown field, a locked
// field, a value of another type than Vault's, and the faults of the fields' values. Each fault has its line.
func freeRoleFields(kind Kind, text string, rules Rules) (map[string]any, error) {
	given, err := decodeObject(text)
	if err != nil {
		return nil, err
	}
	fields, locked, check := freeFields(), lockedFields(identity{}), checkRoleFields
	maps.Copy(locked, optionalLocks(identity{}))
	if kind == KindSSHRole {
		fields, locked, check = freeSSHFields(), lockedSSHFields(identity{}), checkSSHFields
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if _, ours := locked[name]; ours {
			return nil, atLine(fieldLine(text, name), fmt.Errorf("the field %q is set by the program from the profile's common_name, dns_names, ip_addresses and uri_sans: remove it", name))
		}
		standard, known := fields[name]
		if !known {
			return nil, atLine(fieldLine(text, name), fmt.Errorf("unknown field %q", name))
		}
		value, err := sameType(standard, given[name])
		if err != nil {
			return nil, atLine(fieldLine(text, name), fmt.Errorf("field %q: %w", name, err))
		}
		fields[name] = value
	}
	faults := checkDoubled(text)
	for _, f := range check(fields, rules.MaxTTL) {
		faults = append(faults, atLine(fieldLine(text, f.field), f.err))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return fields, nil
}

// decodeObject decodes a text of exactly one JSON object.
func decodeObject(text string) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, atSyntaxError(text, err)
	}
	if object == nil {
		return nil, fmt.Errorf("not a JSON object: null")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("there is text behind the JSON object")
	}
	return object, nil
}

// sameType returns a JSON value in the type of the field's standard value: numbers and durations as whole seconds, a string for a
// list as a list of one.
func sameType(standard, given any) (any, error) {
	switch standard.(type) {
	case keyLengths:
		return asKeyLengths(given)
	case int64:
		switch v := given.(type) {
		case float64:
			if v == math.Trunc(v) && v >= 0 && v < 1<<53 {
				return int64(v), nil
			}
		case string:
			if d, err := time.ParseDuration(v); err == nil && d >= 0 && d%time.Second == 0 {
				return int64(d / time.Second), nil
			}
		}
		return nil, fmt.Errorf(`%v is neither a whole number of at least 0 nor a duration such as "24h"`, given)
	case bool:
		if v, ok := given.(bool); ok {
			return v, nil
		}
		return nil, fmt.Errorf("%v is not true or false", given)
	case string:
		if v, ok := given.(string); ok {
			return v, nil
		}
		return nil, fmt.Errorf("%v is not a string", given)
	}
	list, ok := given.([]any)
	if s, isString := given.(string); isString {
		list, ok = []any{s}, true
	}
	if !ok {
		return nil, fmt.Errorf("%v is not a list of strings", given)
	}
	out := []string{}
	for _, e := range list {
		s, isString := e.(string)
		if !isString || s == "" || strings.Contains(s, ",") {
			return nil, fmt.Errorf("%v is not a list of strings without commas", given)
		}
		out = append(out, s)
	}
	return out, nil
}
