package vault

import (
	"context"
	"encoding/json"
	"fmt"
)

// Health is the state that a Vault server reports without a token.
// https://developer.hashicorp.com/vault/api-docs/system/health
type Health struct {
	Server      Server
	Initialized bool
	Sealed      bool
	// Standby reports whether the server forwards requests to the active one.
	Standby bool
	// Detached reports whether the server is a standby without the active one, or was removed from its cluster.
	Detached bool
	// DRSecondary reports whether the server serves no requests until it is promoted.
	DRSecondary bool
}

// healthAnswer is the part of an answer of sys/health that is used. A field that only some servers answer is a pointer.
type healthAnswer struct {
	Version             string `json:"version"`
	Enterprise          *bool  `json:"enterprise"`
	Initialized         bool   `json:"initialized"`
	Sealed              bool   `json:"sealed"`
	Standby             bool   `json:"standby"`
	PerformanceStandby  bool   `json:"performance_standby"`
	ReplicationDRMode   string `json:"replication_dr_mode"`
	RemovedFromCluster  *bool  `json:"removed_from_cluster"`
	HAConnectionHealthy *bool  `json:"ha_connection_healthy"`
}

// Health returns the server's state, without a login.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var health Health
	anonymous, err := c.session.anonymous(ctx)
	if err == nil {
		err = c.callOnce(ctx, anonymous, func(ctx context.Context, v *Conn) error {
			health, err = v.Health(ctx)
			return err
		})
	}
	if err != nil {
		return Health{}, c.dropUntrusted(fmt.Errorf("reading the health of Vault at %s: %w", c.session.options.Addr, oneLine(err)))
	}
	return health, nil
}

// Health returns the state of the connection's server. It sends no token and no namespace.
func (c *Conn) Health(ctx context.Context) (Health, error) {
	resp, err := c.health(ctx)
	if resp != nil {
		defer func() { _ = resp.Body.Close() }() // after an error, or read to its end
	}
	if err != nil {
		return Health{}, err
	}
	var answer healthAnswer
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return Health{}, fmt.Errorf("decoding the answer: %w", err)
	}
	is := func(b *bool, value bool) bool { return b != nil && *b == value }
	standby := answer.Standby || answer.PerformanceStandby
	return Health{
		Server:      serverOf(answer.Version, answer.Enterprise),
		Initialized: answer.Initialized,
		Sealed:      answer.Sealed,
		Standby:     standby,
		Detached:    is(answer.RemovedFromCluster, true) || (standby && is(answer.HAConnectionHealthy, false)),
		DRSecondary: answer.ReplicationDRMode == "secondary",
	}, nil
}

// Login obtains a valid token, as every other call does first, and makes no call with it.
func (c *Client) Login(ctx context.Context) error {
	_, err := c.session.validToken(ctx)
	return c.dropUntrusted(err)
}

// Capabilities returns what the client's own token may do at each path: "deny" alone for nothing, "root" for a root token.
// It makes one call for all paths, and fails if the answer lacks one.
// https://developer.hashicorp.com/vault/api-docs/system/capabilities-self
func (c *Client) Capabilities(ctx context.Context, paths []string) (map[string][]string, error) {
	const path = "sys/capabilities-self"
	data, err := c.write(ctx, "reading the token's capabilities at", path, map[string]any{"paths": paths})
	if err != nil {
		return nil, err
	}
	out := make(map[string][]string, len(paths))
	for _, p := range paths {
		list, _ := data[p].([]any)
		for _, v := range list {
			name, isText := v.(string)
			if !isText {
				return nil, fmt.Errorf("reading the token's capabilities at %s in Vault: the answer for %s holds a %T", path, p, v)
			}
			out[p] = append(out[p], name)
		}
		if len(out[p]) == 0 {
			return nil, fmt.Errorf("reading the token's capabilities at %s in Vault: the answer leaves out %s", path, p)
		}
	}
	return out, nil
}

// dropUntrusted drops the connection if err says that the server's certificate does not chain to the CA bundle, so that the
// next call reads the bundle again. It returns err, with the setting to check.
func (c *Client) dropUntrusted(err error) error {
	if !isUntrusted(err) {
		return err
	}
	c.session.disconnect()
	return fmt.Errorf("%w (VAULT_CA_SECRET_ARN must hold the bundle that Vault's certificate chains to)", err)
}
