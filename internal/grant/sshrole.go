package grant

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// lockedSSHFields returns the fields of an SSH role that decide which certificates it signs: host certificates alone, with the names
// and addresses of the identity as principals and no others. The program sets all of them at every write, which resets a missing field
// to its default. https://developer.hashicorp.com/vault/api-docs/secret/ssh#create-update-role
func lockedSSHFields(id identity) map[string]any {
	return map[string]any{
		"key_type":                 "ca",
		"allow_host_certificates":  true,
		"allow_user_certificates":  false,
		"allowed_domains":          strings.Join(id.principals(), ","),
		"allowed_domains_template": false,
		"allow_bare_domains":       true,
		"allow_subdomains":         false,
		// A host certificate without principals is one for every host. Vault before 1.17.6 does not know the field and signs such a
		// certificate; it and Vault before 1.18.2 answer without the field, and get no grant: see Differences.
		"allow_empty_principals": false,
		"allowed_users":          "",
		"allowed_users_template": false,
		"default_user":           "",
		"default_user_template":  false,
		// Empty, Vault would allow every critical option. No option has this name, and OpenSSH refuses a certificate with it.
		"allowed_critical_options":    "none",
		"default_critical_options":    map[string]any{},
		"allowed_extensions":          "",
		"default_extensions":          map[string]any{},
		"default_extensions_template": false,
		"allow_user_key_ids":          false,
		// The role's name has the instance's ID: one line of a key revocation list revokes all certificates of the role.
		"key_id_format": "{{role_name}}",
	}
}

// freeSSHFields returns the fields that a template may set, with their default values: Vault's, but for the keys. Vault takes any key
// by default, also one that OpenSSH refuses.
func freeSSHFields() map[string]any {
	return map[string]any{
		"ttl":                 int64(0),
		"max_ttl":             int64(0),
		"not_before_duration": int64(30),
		"algorithm_signer":    "default",
		"allowed_user_key_lengths": keyLengths{
			"ecdsa": {256, 384, 521}, "ed25519": {0}, "rsa": {2048, 3072, 4096},
		},
	}
}

// keyLengths are the lengths of the keys that an SSH role signs, by type. A type without lengths in Vault has the length 0.
type keyLengths map[string][]int64

// sshKeyTypes are the types of keys in Vault's shorter and OpenSSH's longer names. DSA is left out: OpenSSH does not take it.
// https://developer.hashicorp.com/vault/api-docs/secret/ssh#allowed_user_key_lengths
var sshKeyTypes = []string{"ecdsa", "ec", "ed25519", "rsa", "ssh-rsa", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"}

// asKeyLengths returns a template's JSON value as key lengths. A number for a list is a list of one.
func asKeyLengths(given any) (keyLengths, error) {
	object, ok := given.(map[string]any)
	if !ok {
		return nil, fmt.Errorf(`%v is not an object of lists, as in {"ed25519": [0]}`, given)
	}
	out := keyLengths{}
	for kind, value := range object {
		list, isList := value.([]any)
		if !isList {
			list = []any{value}
		}
		for _, e := range list {
			n, isNumber := e.(float64)
			if !isNumber || n != math.Trunc(n) || n < 0 || n > 1<<16 {
				return nil, fmt.Errorf("%v is not a key's length in bits", e)
			}
			out[kind] = append(out[kind], int64(n))
		}
		if len(list) == 0 {
			return nil, fmt.Errorf("%q has no length: write one, or [0] for a type of one length", kind)
		}
	}
	return out, nil
}

// checkSSHFields returns the faults of the free fields of an SSH role.
func checkSSHFields(free map[string]any, longest time.Duration) []fieldFault {
	f := &fieldFaults{fields: free}
	f.times(longest)
	signers := []string{"default", "rsa-sha2-256", "rsa-sha2-512"} // not ssh-rsa, which is SHA-1
	f.want(slices.Contains(signers, f.text("algorithm_signer")), "algorithm_signer", "algorithm_signer: %q is none of %s", f.text("algorithm_signer"), strings.Join(signers, ", "))
	lengths, _ := free["allowed_user_key_lengths"].(keyLengths)
	f.want(len(lengths) > 0, "allowed_user_key_lengths", "allowed_user_key_lengths: empty, Vault would sign any key: name the types, or leave it out")
	for _, kind := range slices.Sorted(maps.Keys(lengths)) {
		f.want(slices.Contains(sshKeyTypes, kind), "allowed_user_key_lengths", "allowed_user_key_lengths: the type %q is none of %s", kind, strings.Join(sshKeyTypes, ", "))
	}
	return f.faults
}

// principals returns the names and addresses of an SSH role's certificates, sorted.
func (id identity) principals() []string {
	return sortedOnce(slices.Concat(id.dnsNames, id.addresses))
}

// sshAccessRules returns the rule that locks the sign path of an SSH role by a closed parameter list. It leaves out the issue path, by
// which Vault would make the host's key: a host makes its own.
//
// Without valid_principals, or with an empty one, Vault would be asked for a certificate for every host, and without cert_type for a
// user's. Vault from 1.21 on reads an empty value as a list of no values, each of which is allowed. So both are required, and empty ones
// are denied.
// https://developer.hashicorp.com/vault/docs/concepts/policies#required_parameters
func sshAccessRules(mount, role string, id identity) []rule {
	return []rule{{
		Path: SignPath(mount, role), Capabilities: []string{"update"},
		Allowed: map[string][]any{
			"cert_type":        {"host"},
			"public_key":       {},
			"ttl":              {},
			"valid_principals": textForms(id.principals()),
		},
		Denied:   map[string][]any{"cert_type": {""}, "valid_principals": {""}},
		Required: []string{"cert_type", "valid_principals"},
	}}
}
