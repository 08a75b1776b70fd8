package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/api"
)

// List gives the names in a folder; none when it is empty. A folder on a path where nothing is mounted is an error and
// not an empty one: what is deleted because it is not in a list must have been looked for where it can be.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	var page struct {
		Data struct{ Keys []string }
	}
	err := c.list(ctx, path, &page)
	return page.Data.Keys, err
}

// Alias is an identity alias on one auth mount: the name a login gave, and the entity whose tokens hang on it.
type Alias struct {
	Name     string
	EntityID string
}

// Aliases lists the identity aliases on an auth mount, in no order.
// https://developer.hashicorp.com/vault/api-docs/secret/identity/entity-alias#list-entity-aliases-by-id
func (c *Client) Aliases(ctx context.Context, authMount string) ([]Alias, error) {
	accessor, err := c.mountAccessor(ctx, authMount)
	if err != nil {
		return nil, err
	}
	var page struct {
		Data struct {
			Info map[string]struct {
				Name     string
				Entity   string `json:"canonical_id"`
				Accessor string `json:"mount_accessor"`
			} `json:"key_info"`
		}
	}
	if err := c.list(ctx, "identity/entity-alias/id", &page); err != nil {
		return nil, err
	}
	var out []Alias
	for _, a := range page.Data.Info {
		if a.Accessor == accessor {
			out = append(out, Alias{Name: a.Name, EntityID: a.Entity})
		}
	}
	return out, nil
}

// list reads the whole answer into one value without the api client's own decoding, which makes a map of a map for each
// name. Vault lists without pages.
func (c *Client) list(ctx context.Context, path string, into any) error {
	return c.do(ctx, "listing", path, func(ctx context.Context, v *Conn) error {
		resp, err := v.read(ctx, path, map[string][]string{"list": {"true"}})
		if resp != nil {
			defer func() { _ = resp.Body.Close() }() // it was read to its end, or the answer is of no use
		}
		if empty(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			return fmt.Errorf("decoding the answer: %w", err)
		}
		return nil
	})
}

// empty tells Vault's answer for an empty folder, a 404 without an error, from that for a path where nothing is mounted.
func empty(err error) bool {
	var r *api.ResponseError
	return errors.As(err, &r) && r.StatusCode == http.StatusNotFound && strings.Join(r.Errors, "") == ""
}
