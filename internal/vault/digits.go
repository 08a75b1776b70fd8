package vault

import (
	"maps"
	"strconv"
	"strings"
)

// asDigits returns the fields of a write with each number of an auth method's as a string of digits. Vault's ACL never
// finds a number of a request equal to one of a policy, since it decodes them into different types; a string it does
// (valueInParameterList, in Vault's vault/acl.go). An auth method's fields take both. Other paths stay as they are:
// a key-value engine, for one, keeps what it is sent.
func asDigits(path string, fields map[string]any) map[string]any {
	if !strings.HasPrefix(path, "auth/") {
		return fields
	}
	out := maps.Clone(fields)
	for name, value := range fields {
		if number, is := value.(int64); is {
			out[name] = strconv.FormatInt(number, 10)
		}
	}
	return out
}
