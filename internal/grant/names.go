package grant

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// The forms of names and paths. A name in Vault splits into its parts in one way only: an instance ID has one hyphen and a fixed
// length, an output name has no hyphen.
var (
	outputName  = regexp.MustCompile(`^[a-z0-9_]+$`)
	profileName = regexp.MustCompile(`^[a-z0-9_]+(?:-[a-z0-9_]+)+$`)
	vaultPath   = regexp.MustCompile(`^[a-z0-9_-]+(?:/[a-z0-9_-]+)*$`)
	authMount   = regexp.MustCompile(`^[A-Za-z0-9_-]+(?:/[A-Za-z0-9_-]+)*$`)
	deployment  = facts.NewForm(`^[A-Za-z0-9][A-Za-z0-9_-]*$`, 128)
	hostLabel   = facts.NewForm(`^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$`, 63)
)

// CheckDeployment returns an error for a deployment ID that a marker cannot carry.
func CheckDeployment(id string) error {
	if !deployment.Match(id) {
		return fmt.Errorf("the deployment ID %q is not of the form %s", id, deployment)
	}
	return nil
}

// CheckBasePath returns an error for a path that cannot be a base path. A base path has plain segments, and its first segment
// is not one of Vault's own.
func CheckBasePath(path string) error {
	if !vaultPath.MatchString(path) {
		return fmt.Errorf("%q is not of the form %s", path, vaultPath)
	}
	if first, _, _ := strings.Cut(path, "/"); slices.Contains(vaultSegments, first) {
		return fmt.Errorf("%q belongs to Vault itself", path)
	}
	return nil
}

// ObjectName returns the name of the PKI role or generic object that an output renders for an instance.
func ObjectName(instanceID, output string) string { return instanceID + "-" + output }

// PolicyName returns the name of the policy that an output renders for an instance.
func PolicyName(instanceID, output string) string {
	return policyNamePrefix + ObjectName(instanceID, output)
}

// policyNamePrefix sets the names of instances' policies apart in Vault's one folder of policies.
const policyNamePrefix = "ec2-"

// SplitObjectName returns the instance and the output of an ObjectName or PolicyName. ok is false for a name of another form.
func SplitObjectName(name string) (instanceID, output string, ok bool) {
	name = strings.TrimPrefix(name, policyNamePrefix)
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return "", "", false
	}
	instanceID, output = name[:i], name[i+1:]
	return instanceID, output, facts.IsInstanceID(instanceID) && outputName.MatchString(output)
}

// InstanceOf returns the instance in the name of an object of a kind. ok is false if the name is not of the form of the names
// of that kind.
func InstanceOf(kind Kind, name string) (instanceID string, ok bool) {
	if kind == KindAuthRole {
		return name, facts.IsInstanceID(name)
	}
	isPolicy := strings.HasPrefix(name, policyNamePrefix)
	instanceID, _, ok = SplitObjectName(name)
	return instanceID, ok && isPolicy == (kind == KindPolicy)
}

// CheckFQDN returns an error for a name that is not a host name of RFC 1123 in lower case. A name whose last label is a number,
// as in an address, and a wildcard are not host names.
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

// underSuffix reports whether a name is below a suffix, compared label by label.
func underSuffix(name, suffix string) bool {
	return strings.HasSuffix(name, "."+strings.TrimPrefix(suffix, "."))
}
