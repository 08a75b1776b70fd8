package vault

import (
	"context"
	"fmt"

	"github.com/hashicorp/vault/api"
)

// Health is what a Vault server says of itself to anybody.
// https://developer.hashicorp.com/vault/api-docs/system/health
type Health struct {
	Version     string // "1.21.0", "1.20.4+ent"
	Initialized bool
	Sealed      bool
	// Standby serves requests too, as long as it reaches the active server. One that knows it does not is Detached, and
	// so is one that was removed from its cluster.
	Standby  bool
	Detached bool
	// DRSecondary waits for a disaster and serves nobody until then.
	DRSecondary bool
}

// Health asks the server how it is, without logging in.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var answer *api.HealthResponse
	anonymous, err := c.session.anonymous(ctx)
	if err == nil {
		err = c.once(ctx, anonymous, func(ctx context.Context, v *Conn) error {
			answer, err = v.health(ctx)
			return err
		})
	}
	if err != nil {
		return Health{}, c.trusted(fmt.Errorf("asking Vault at %s for its health: %w", c.session.options.Addr, clean(err)))
	}
	is := func(b *bool, value bool) bool { return b != nil && *b == value }
	standby := answer.Standby || answer.PerformanceStandby
	return Health{
		Version:     answer.Version,
		Initialized: answer.Initialized,
		Sealed:      answer.Sealed,
		Standby:     standby,
		Detached:    is(answer.RemovedFromCluster, true) || standby && is(answer.HAConnectionHealthy, false),
		DRSecondary: answer.ReplicationDRMode == "secondary",
	}, nil
}

// Login makes sure of a token with time left, as any other call does, and does nothing with it.
func (c *Client) Login(ctx context.Context) error {
	_, err := c.session.good(ctx)
	return c.trusted(err)
}

// Capabilities gives what the client's own token may do at each path: "deny" alone for nothing, "root" for a root
// token. It is asked once for all of them, and answers for all or fails.
// https://developer.hashicorp.com/vault/api-docs/system/capabilities-self
func (c *Client) Capabilities(ctx context.Context, paths []string) (map[string][]string, error) {
	const path = "sys/capabilities-self"
	data, err := c.write(ctx, "asking for the token's capabilities at", path, map[string]any{"paths": paths})
	if err != nil {
		return nil, err
	}
	out := make(map[string][]string, len(paths))
	for _, p := range paths {
		list, _ := data[p].([]any)
		for _, v := range list {
			name, isText := v.(string)
			if !isText {
				return nil, fmt.Errorf("asking for the token's capabilities at %s in Vault: the answer for %s holds a %T", path, p, v)
			}
			out[p] = append(out[p], name)
		}
		if len(out[p]) == 0 {
			return nil, fmt.Errorf("asking for the token's capabilities at %s in Vault: the answer leaves out %s", path, p)
		}
	}
	return out, nil
}

// trusted makes the next call read the CA bundle anew after the server's certificate did not chain to it.
func (c *Client) trusted(err error) error {
	if !untrusted(err) {
		return err
	}
	c.session.disconnect()
	return fmt.Errorf("%w (VAULT_CA_SECRET_ARN must hold the bundle that Vault's certificate chains to)", err)
}
