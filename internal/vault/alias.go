package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// Alias is an identity alias on one auth mount.
type Alias struct {
	Name     string // by which a login finds it
	EntityID string // the entity that owns the login's tokens
}

const (
	aliasFolder = "identity/entity-alias/id"
	// maxAliases is the number of aliases of all auth mounts that are read. Vault has no list of one mount's. A list of 300,000
	// takes Vault about three seconds, and one of a million about as long as a call may take.
	maxAliases = 1_000_000
	// maxOwnAliases bounds the aliases that are kept, to about 40 MB.
	maxOwnAliases = 200_000
)

// ErrTooLong says that there are more aliases than are read, or more than Vault lists in the time of one call. Entity finds single
// ones.
var ErrTooLong = errors.New("the list is too long")

// Aliases returns the identity aliases on an auth mount, in no order. The list of Vault has those of all mounts; it is decoded as it
// comes, so that only those of the mount take memory. The error wraps ErrTooLong for a list that is too long.
// https://developer.hashicorp.com/vault/api-docs/secret/identity/entity-alias#list-entity-aliases-by-id
func (c *Client) Aliases(ctx context.Context, authMount string) ([]Alias, error) {
	accessor, err := c.mountAccessor(ctx, authMount)
	if err != nil {
		return nil, err
	}
	var own []Alias
	err = c.list(ctx, aliasFolder, func(body io.Reader) error {
		d := aliasDecoder{accessor: accessor, limit: c.maxAliases(), ownLimit: maxOwnAliases}
		var err error
		own, err = d.decode(body)
		return err
	})
	isLate := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && !isExpired(ctx)
	if isLate {
		err = fault.New(fault.Retry, fmt.Errorf("%w: Vault did not list all aliases within %s: %w", ErrTooLong, CallTimeout, err))
	}
	if err != nil {
		return nil, err
	}
	return own, nil
}

func (c *Client) maxAliases() int {
	if c.session.options.MaxAliases > 0 {
		return c.session.options.MaxAliases
	}
	return maxAliases
}

// Entity returns the ID of the entity behind an alias on an auth mount; empty if there is none.
// https://developer.hashicorp.com/vault/api-docs/secret/identity/lookup#lookup-an-entity
func (c *Client) Entity(ctx context.Context, m LoginMount, alias string) (string, error) {
	entity, err := c.entity(ctx, m, alias)
	id, _ := entity["id"].(string)
	return id, err
}

// Identity is the entity behind an alias, with the times that Vault keeps of it.
type Identity struct {
	EntityID string
	// CreatedAt is when the entity was made, which its first login does; zero if Vault does not say it.
	CreatedAt time.Time
}

// Identity returns the entity behind an alias on an auth mount; nil if there is none.
func (c *Client) Identity(ctx context.Context, m LoginMount, alias string) (*Identity, error) {
	entity, err := c.entity(ctx, m, alias)
	id, _ := entity["id"].(string)
	if err != nil || id == "" {
		return nil, err
	}
	return &Identity{EntityID: id, CreatedAt: TimeOf(entity["creation_time"])}, nil
}

// TimeOf returns a time that Vault answered; zero for another value.
func TimeOf(v any) time.Time {
	text, _ := v.(string)
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
}

// entity returns the entity behind an alias on an auth mount; empty if there is none.
func (c *Client) entity(ctx context.Context, m LoginMount, alias string) (map[string]any, error) {
	return c.write(ctx, "looking up the alias "+alias+" by", lookupPath, map[string]any{
		"alias_name": alias, "alias_mount_accessor": m.Accessor,
	})
}

// aliasDecoder decodes the list of aliases as it comes.
type aliasDecoder struct {
	accessor string // of the mount whose aliases are kept
	limit    int    // of all aliases
	ownLimit int    // of those kept
}

// decode returns the aliases of the mount. It returns an error for an answer that is not complete, or too long. It does not read
// further than the aliases themselves: a list of their keys follows them.
func (a aliasDecoder) decode(body io.Reader) ([]Alias, error) {
	d := json.NewDecoder(body)
	for _, name := range []string{"data", "key_info"} {
		if err := enter(d, name); err != nil {
			return nil, err
		}
	}
	if err := expect(d, json.Delim('{')); err != nil {
		return nil, err
	}
	var own []Alias
	for n := 0; d.More(); n++ {
		if n == a.limit || len(own) == a.ownLimit {
			return nil, fmt.Errorf("%w: there are more than %d aliases, or %d on this mount", ErrTooLong, a.limit, a.ownLimit)
		}
		if _, err := d.Token(); err != nil { // the alias's ID
			return nil, err
		}
		var info struct {
			Name     string
			Entity   string `json:"canonical_id"`
			Accessor string `json:"mount_accessor"`
		}
		if err := d.Decode(&info); err != nil {
			return nil, err
		}
		if info.Accessor == a.accessor {
			own = append(own, Alias{Name: info.Name, EntityID: info.Entity})
		}
	}
	return own, expect(d, json.Delim('}'))
}

// enter reads into the object that comes next, up to the value of a field.
func enter(d *json.Decoder, name string) error {
	if err := expect(d, json.Delim('{')); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if key == name {
			return nil
		}
		if err := skip(d); err != nil {
			return err
		}
	}
	return fmt.Errorf("the answer has no %s", name)
}

// expect reads one token.
func expect(d *json.Decoder, want json.Token) error {
	got, err := d.Token()
	if err == nil && got != want {
		err = fmt.Errorf("the answer has %v where %v is expected", got, want)
	}
	return err
}

// skip reads one value of any size and keeps nothing of it.
func skip(d *json.Decoder) error {
	for depth := 0; ; {
		token, err := d.Token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}
