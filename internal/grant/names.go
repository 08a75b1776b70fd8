package grant

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// Every name in Vault splits back into its parts one way only: an instance ID has one hyphen and a fixed length,
// an output name has none.
var (
	outputName  = regexp.MustCompile(`^[a-z0-9_]+$`)
	profileName = regexp.MustCompile(`^[a-z0-9_]+(?:-[a-z0-9_]+)+$`)
	vaultPath   = regexp.MustCompile(`^[a-z0-9_-]+(?:/[a-z0-9_-]+)*$`)
	authMount   = regexp.MustCompile(`^[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*$`)
	deployment  = facts.NewForm(`^[A-Za-z0-9][A-Za-z0-9_-]*$`, 128)
	hostLabel   = facts.NewForm(`^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$`, 63)
)

// CheckDeployment holds a deployment ID against the form the ownership marker can carry.
func CheckDeployment(id string) error {
	if !deployment.Match(id) {
		return fmt.Errorf("the deployment ID %q is not of the form %s", id, deployment)
	}
	return nil
}

// CheckBasePath holds a path against the form of a base path: plain segments, and none of Vault's own first ones.
func CheckBasePath(path string) error {
	if !vaultPath.MatchString(path) {
		return fmt.Errorf("%q is not of the form %s", path, vaultPath)
	}
	if first, _, _ := strings.Cut(path, "/"); slices.Contains(ownSegments, first) {
		return fmt.Errorf("%q belongs to Vault itself", path)
	}
	return nil
}

// ObjectName is the last part of the path of a PKI role or generic object.
func ObjectName(instanceID, output string) string { return instanceID + "-" + output }

// PolicyName is the name of the policy that the named output renders to for an instance.
func PolicyName(instanceID, output string) string {
	return policyNamePrefix + ObjectName(instanceID, output)
}

// policyNamePrefix keeps the names of instances' policies apart from all others in Vault's one folder of policies.
const policyNamePrefix = "ec2-"

// SplitObjectName takes the last part of a path apart again; ok is false for what is not one of our names.
func SplitObjectName(name string) (instanceID, output string, ok bool) {
	name = strings.TrimPrefix(name, policyNamePrefix)
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return "", "", false
	}
	instanceID, output = name[:i], name[i+1:]
	return instanceID, output, facts.IsInstanceID(instanceID) && outputName.MatchString(output)
}

// InstanceOf returns the instance whose object of a kind has a name. ok is false if the name is not of the form of the names
// of that kind.
func InstanceOf(kind Kind, name string) (instanceID string, ok bool) {
	if kind == KindAuthRole {
		return name, facts.IsInstanceID(name)
	}
	isPolicy := strings.HasPrefix(name, policyNamePrefix)
	instanceID, _, ok = SplitObjectName(name)
	return instanceID, ok && isPolicy == (kind == KindPolicy)
}

// CheckFQDN holds a name against RFC 1123, in lower case, with a top label that is not a number: an address, or a
// wildcard, is not a name.
func CheckFQDN(name string) error {
	if len(name) > 253 {
		return fmt.Errorf("the name %q has more than 253 characters", name)
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if !hostLabel.Match(l) {
			return fmt.Errorf("%q is not a valid host name (RFC 1123, lower case): the label %q is not", name, l)
		}
	}
	if top := labels[len(labels)-1]; strings.Trim(top, "0123456789") == "" {
		return fmt.Errorf("%q is not a host name: its last label is a number, as in an address", name)
	}
	return nil
}

// underSuffix tells whether name is suffix's child, compared label by label.
func underSuffix(name, suffix string) bool {
	return strings.HasSuffix(name, "."+strings.TrimPrefix(suffix, "."))
}
