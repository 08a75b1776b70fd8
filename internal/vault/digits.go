package vault

import (
	"maps"
	"strconv"
	"strings"
)

// asDigits returns a copy of the fields of a write to an auth method with each number as a string of digits. Vault's ACL
// decodes the numbers of a request and of a policy into different types, which are never equal; strings compare correctly
// (valueInParameterList, in Vault's vault/acl.go). An auth method's fields accept both. The fields of other paths are
// returned unchanged: a key-value engine, for one, stores them as sent.
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
