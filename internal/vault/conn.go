package vault

import (
	"context"
	"fmt"
	"net/http"

	"github.com/hashicorp/vault/api"
)

// Conn is a connection to Vault that carries one token, or none, and never another. It is the calls this package makes
// and not the api client, for the reason given in docs/decisions/binary-size.md.
type Conn struct {
	read   func(ctx context.Context, path string, query map[string][]string) (*http.Response, error)
	write  func(ctx context.Context, path string, fields map[string]any) (*api.Secret, error)
	remove func(ctx context.Context, path string) error
	renew  func(ctx context.Context) (*api.Secret, error)
	self   func(ctx context.Context) (*api.Secret, error)
	// health is the server's and outside any namespace.
	health func(ctx context.Context) (*api.HealthResponse, error)
	// as is the same connection with another token.
	as func(token string) (*Conn, error)
}

// NewConn takes over a client, with a token or none and in a namespace or none. Nothing stays that it may have found in the environment.
func NewConn(c *api.Client, token, namespace string) *Conn {
	c.SetToken(token)
	if namespace == "" {
		c.ClearNamespace()
	} else {
		c.SetNamespace(namespace)
	}
	clone := func() (*api.Client, error) {
		other, err := c.Clone()
		if err != nil {
			err = fmt.Errorf("making the Vault client: %w", err)
		}
		return other, err
	}
	return &Conn{
		read: func(ctx context.Context, path string, query map[string][]string) (*http.Response, error) {
			answer, err := c.Logical().ReadRawWithDataWithContext(ctx, path, query)
			if answer == nil {
				return nil, err
			}
			return answer.Response, err
		},
		write: func(ctx context.Context, path string, fields map[string]any) (*api.Secret, error) {
			return c.Logical().WriteWithContext(ctx, path, fields)
		},
		remove: func(ctx context.Context, path string) error {
			_, err := c.Logical().DeleteWithContext(ctx, path)
			return err
		},
		renew: func(ctx context.Context) (*api.Secret, error) { return c.Auth().Token().RenewSelfWithContext(ctx, 0) },
		self:  func(ctx context.Context) (*api.Secret, error) { return c.Auth().Token().LookupSelfWithContext(ctx) },
		health: func(ctx context.Context) (*api.HealthResponse, error) {
			other, err := clone()
			if err != nil {
				return nil, err
			}
			other.ClearToken()
			other.ClearNamespace()
			return other.Sys().HealthWithContext(ctx)
		},
		as: func(token string) (*Conn, error) {
			other, err := clone()
			if err != nil {
				return nil, err
			}
			return NewConn(other, token, namespace), nil
		},
	}
}
