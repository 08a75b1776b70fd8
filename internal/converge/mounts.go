package converge

import (
	"context"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// settingTime is how long a setting is remembered that the set-up may write at any time.
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
	// One of the grants that ask at once may give up. Read has a deadline of its own.
	ctx = context.WithoutCancel(ctx)
	a, err := m.owners.get(mount, m.Now(), func() (string, time.Duration, error) {
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

// LoginAliases returns by which name Vault finds the entity of an ec2 login on an auth mount, and remembers it for a while. It is safe
// for concurrent use.
type LoginAliases struct {
	// Read returns the object at a path in Vault.
	Read func(ctx context.Context, path string) (map[string]any, error)
	Now  func() time.Time

	aliases recent[string] // by mount
}

// EC2Alias returns the ec2_alias of an auth mount; empty if it cannot be read. Without it a removal makes more calls, and nothing else
// changes.
func (l *LoginAliases) EC2Alias(ctx context.Context, authMount string) string {
	ctx = context.WithoutCancel(ctx) // as in Owner
	a, _ := l.aliases.get(authMount, l.Now(), func() (string, time.Duration, error) {
		data, _ := l.Read(ctx, grant.AuthConfigPath(authMount, "identity"))
		alias, _ := data["ec2_alias"].(string)
		return alias, settingTime, nil
	})
	return a.value
}
