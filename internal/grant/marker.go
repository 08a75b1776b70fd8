package grant

import (
	"fmt"
	"regexp"
	"strings"
)

// Program names this program in the ownership marker.
const Program = "vault-ec2-provisioner"

// Marker is the leading comment of every policy that this program writes. It names the policy's owner. It has nothing that
// changes from run to run, so an unchanged policy keeps its text.
type Marker struct {
	Deployment string
	InstanceID string
	Profile    string
}

func (m Marker) String() string {
	return fmt.Sprintf("# managed-by: %s\n# deployment: %s\n# instance: %s\n# profile: %s\n",
		Program, m.Deployment, m.InstanceID, m.Profile)
}

// MarkerOf returns the marker of a policy as Vault answers it. ok is as for ParseMarker.
func MarkerOf(policy map[string]any) (m Marker, ok bool) {
	text, _ := policy["policy"].(string)
	return ParseMarker(text)
}

// ParseMarker returns the marker in the leading comment of a policy's text. ok is false if there is none, if it names another
// program, or if one of its lines is missing or doubled.
func ParseMarker(policy string) (m Marker, ok bool) {
	seen := map[string]string{}
	for line := range strings.Lines(policy) {
		text, isComment := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "# ")
		if !isComment {
			break
		}
		key, value, found := strings.Cut(text, ": ")
		if !found {
			break
		}
		if _, doubled := seen[key]; doubled {
			return Marker{}, false
		}
		seen[key] = value
	}
	m = Marker{Deployment: seen["deployment"], InstanceID: seen["instance"], Profile: seen["profile"]}
	return m, seen["managed-by"] == Program && m.Deployment != "" && m.InstanceID != "" && m.Profile != ""
}

// mountMark is the form of MountMark in the description of a PKI mount, among any other text.
var mountMark = regexp.MustCompile(`\bmanaged-by: ` + Program + `, deployment: ([A-Za-z0-9_-]+)`)

// MountMark returns the text that marks a PKI mount as a deployment's, for the mount's description. Claims on names are unique
// within one ledger, so a PKI mount belongs to one deployment.
func MountMark(deployment string) string {
	return "managed-by: " + Program + ", deployment: " + deployment
}

// MountOwner returns the deployment that a mount's description names. ok is false for a description without a mark.
func MountOwner(description string) (deployment string, ok bool) {
	found := mountMark.FindStringSubmatch(description)
	if found == nil {
		return "", false
	}
	return found[1], true
}
