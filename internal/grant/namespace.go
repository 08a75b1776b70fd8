package grant

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// rootNamespace is a name of the root namespace, which has no path.
const rootNamespace = "root"

// reservedNamespaces are the names that no namespace has.
// https://developer.hashicorp.com/vault/docs/enterprise/namespaces
var reservedNamespaces = []string{".", "..", rootNamespace, "sys", "audit", "auth", "cubbyhole", "identity"}

var namespaceForm = facts.NewForm(`^[A-Za-z0-9._~:@-]+(?:/[A-Za-z0-9._~:@-]+)*$`, 1024)

// ParseNamespace returns the path of a namespace without slashes at its ends, as "a/b". It is empty for the root namespace,
// which is also named "root" or "/". Vault itself ignores the slashes at the ends. A path that no namespace can have is an error.
func ParseNamespace(text string) (string, error) {
	path := strings.Trim(text, "/")
	if path == "" || path == rootNamespace {
		return "", nil
	}
	if !namespaceForm.Match(path) {
		return "", fmt.Errorf("%q is not the path of a namespace, such as team or team/app", text)
	}
	for name := range strings.SplitSeq(path, "/") {
		if slices.Contains(reservedNamespaces, name) {
			return "", fmt.Errorf("%q has the segment %q, which is no namespace's name", text, name)
		}
	}
	return path, nil
}
