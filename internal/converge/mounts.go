package converge

import (
	"context"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// settingTime is how long the mark of a PKI mount is remembered, and that a right is missing: the set-up may write both at any time.
const settingTime = 10 * time.Minute

// MountMarks returns the owners of PKI mounts by their descriptions, and remembers them for a while. It is safe for
// concurrent use.
type MountMarks struct {
	// Read returns the object at a path in Vault.
	Read func(ctx context.Context, path string) (map[string]any, error)
	Now  func() time.Time

	owners recent[string] // by mount
}

// Owner returns the deployment that a PKI mount is marked for; empty for a mount without a mark. A token with any right on a
// mount may read the mount's description.
func (m *MountMarks) Owner(ctx context.Context, mount string) (string, error) {
	a, err := m.owners.get(ctx, mount, m.Now(), func(ctx context.Context) (string, time.Duration, error) {
		data, err := m.Read(ctx, grant.MountInfoPath(mount))
		if err != nil {
			return "", 0, err
		}
		description, _ := data["description"].(string)
		owner, _ := grant.MountOwner(description)
		return owner, settingTime, nil
	})
	return a.value, err
}
