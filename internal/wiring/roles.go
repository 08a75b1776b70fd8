package wiring

import (
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/rights"
)

// rolePrefix returns the common prefix of the names of all functions' roles and policies in Vault. template.yaml appends "-"
// and the function's name to it, so that VAULT_LOGIN_ROLE is the role of this function alone. A role without such an ending,
// as with a login method other than iam, is the prefix itself.
func rolePrefix(loginRole string) string {
	for _, function := range rights.Functions() {
		if prefix, ok := strings.CutSuffix(loginRole, "-"+function); ok {
			return prefix
		}
	}
	return loginRole
}

// roleNames returns the names of all functions' roles in Vault, given the role of one of them.
func roleNames(loginRole string) []string {
	var names []string
	for _, function := range rights.Functions() {
		names = append(names, rolePrefix(loginRole)+"-"+function)
	}
	return names
}
