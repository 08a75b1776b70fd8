package converge

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// markTime is how long the mark of a PKI mount is remembered: the set-up may write it at any time.
const markTime = 10 * time.Minute

// MountMarks returns the owners of PKI mounts by their descriptions, and remembers them for a while. It is safe for
// concurrent use.
type MountMarks struct {
	// Read returns the object at a path in Vault.
	Read func(ctx context.Context, path string) (map[string]any, error)
	Now  func() time.Time

	asked singleflight.Group // by mount
	mu    sync.Mutex
	known map[string]mark // by mount
}

type mark struct {
	owner string
	until time.Time
}

// Owner returns the deployment that a PKI mount is marked for; empty for a mount without a mark. A token with any right on a
// mount may read the mount's description.
func (m *MountMarks) Owner(ctx context.Context, mount string) (string, error) {
	now := m.Now().Round(0)
	m.mu.Lock()
	known, ok := m.known[mount]
	m.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.owner, nil
	}
	// One read answers all grants that a batch begins at once, even if one of them gives up. Read has a deadline of its own.
	answer, err, _ := m.asked.Do(mount, func() (any, error) { return m.read(context.WithoutCancel(ctx), mount, now) })
	owner, _ := answer.(string)
	return owner, err
}

func (m *MountMarks) read(ctx context.Context, mount string, now time.Time) (string, error) {
	data, err := m.Read(ctx, grant.MountInfoPath(mount))
	if err != nil {
		return "", err
	}
	description, _ := data["description"].(string)
	owner, _ := grant.MountOwner(description)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = map[string]mark{}
	}
	m.known[mount] = mark{owner: owner, until: now.Add(markTime)}
	return owner, nil
}
