package vault

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/hashicorp/vault/api"
)

// Conn is a connection to Vault with one token, or without one; its token never changes. It holds the calls that this package
// makes and not the api client: docs/decisions/binary-size.md says why.
type Conn struct {
	read       func(ctx context.Context, path string, query map[string][]string) (*http.Response, error)
	write      func(ctx context.Context, path string, fields map[string]any) (*http.Response, error)
	remove     func(ctx context.Context, path string) error
	renew      func(ctx context.Context) (*api.Secret, error)
	lookupSelf func(ctx context.Context) (*api.Secret, error)
	// health carries no token and no namespace, since servers answer it in the root namespace only, and requires no state.
	health func(ctx context.Context) (*http.Response, error)
	// visit reads in a namespace, without a token, what every namespace shows to everyone: namespace.go.
	visit func(ctx context.Context, namespace string) error
	// withToken returns the same connection with another token.
	withToken func(token string) (*Conn, error)
	// forwarding is the same connection; it has a server that lacks the required state forward to the active one.
	forwarding *Conn
}

// answeredStates returns the query by which sys/health answers every state of a server with a status that is no error.
// https://developer.hashicorp.com/vault/api-docs/system/health#parameters
func answeredStates() map[string][]string {
	ok := []string{"299"}
	return map[string][]string{
		"uninitcode": ok, "sealedcode": ok, "standbycode": ok, "drsecondarycode": ok,
		"performancestandbycode": ok, "removedcode": ok, "haunhealthycode": ok,
	}
}

// NewConn makes a Conn from a client, which it changes. An empty token or namespace means none: what the client read from the
// environment is dropped.
func NewConn(c *api.Client, token, namespace string) *Conn {
	return newConn(c, token, namespace, &state{now: time.Now})
}

// newConn is NewConn with the state that reads require.
func newConn(c *api.Client, token, namespace string, s *state) *Conn {
	c.SetToken(token)
	if namespace == "" {
		c.ClearNamespace()
	} else {
		c.SetNamespace(namespace)
	}
	c = c.WithResponseCallbacks(s.record)
	conn := connOf(c.WithRequestCallbacks(s.require), namespace, s)
	conn.forwarding = connOf(c.WithRequestCallbacks(s.require, api.ForwardInconsistent()), namespace, s)
	return conn
}

// connOf makes a Conn of a client with its callbacks. A clone of the client has none.
func connOf(c *api.Client, namespace string, s *state) *Conn {
	clone := func() (*api.Client, error) {
		other, err := c.Clone()
		if err != nil {
			return nil, fmt.Errorf("making the Vault client: %w", err)
		}
		other.ClearToken()
		other.ClearNamespace()
		return other, nil
	}
	return &Conn{
		read: func(ctx context.Context, path string, query map[string][]string) (*http.Response, error) {
			answer, err := c.Logical().ReadRawWithDataWithContext(ctx, path, query)
			if answer == nil {
				return nil, err
			}
			return answer.Response, err
		},
		write: func(ctx context.Context, path string, fields map[string]any) (*http.Response, error) {
			// Of Logical's methods, WriteWithContext copies the answer twice and decodes it by reflection, and
			// WriteRawWithContext ends the request's context before the answer is read.
			r := c.NewRequest(http.MethodPut, "/v1/"+path)
			if err := r.SetJSONBody(fields); err != nil {
				return nil, err
			}
			answer, err := c.RawRequestWithContext(ctx, r) //nolint:staticcheck // deprecated for the methods above
			if answer == nil {
				return nil, err
			}
			return answer.Response, err
		},
		remove: func(ctx context.Context, path string) error {
			_, err := c.Logical().DeleteWithContext(ctx, path)
			return err
		},
		renew:      func(ctx context.Context) (*api.Secret, error) { return c.Auth().Token().RenewSelfWithContext(ctx, 0) },
		lookupSelf: func(ctx context.Context) (*api.Secret, error) { return c.Auth().Token().LookupSelfWithContext(ctx) },
		health: func(ctx context.Context) (*http.Response, error) {
			other, err := clone()
			if err != nil {
				return nil, err
			}
			answer, err := other.Logical().ReadRawWithDataWithContext(ctx, "sys/health", answeredStates())
			if answer == nil {
				return nil, err
			}
			return answer.Response, err
		},
		visit: func(ctx context.Context, namespace string) error {
			other, err := clone()
			if err != nil {
				return err
			}
			other.SetNamespace(namespace)
			answer, err := other.Logical().ReadRawWithContext(ctx, openPath)
			if answer != nil {
				_ = answer.Body.Close() // unread
			}
			return err
		},
		withToken: func(token string) (*Conn, error) {
			other, err := clone()
			if err != nil {
				return nil, err
			}
			return newConn(other, token, namespace, s), nil
		},
	}
}
