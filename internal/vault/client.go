// Package vault talks to one Vault server: it logs in, keeps its token good, reads, writes, deletes, cuts live
// tokens and revokes leases. It knows nothing of EC2.
package vault

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// callTimeout bounds one request to Vault.
const callTimeout = 10 * time.Second

// Options are what a Client needs. Nothing is contacted before the first call.
type Options struct {
	Addr      string
	Namespace string
	// CA gives the PEM bundle that Vault's certificate chains to; nil for the system's roots. It is asked once, and
	// again after Vault showed a certificate the bundle does not cover.
	CA func(context.Context) ([]byte, error)
	// Login obtains a token.
	Login Login
	// Observe is told of each request: how long it took, and whether Vault refused it for coming too often; nil for
	// nobody.
	Observe func(took time.Duration, throttled bool)
	// Log is told of tokens that could not be renewed; nil for nobody.
	Log *slog.Logger
	// Now is time.Now outside tests.
	Now func() time.Time
}

// Client is safe for concurrent use. Requests are tried once: a fault goes back to the queue, which is the one
// layer that retries. The exception is a refused token, which is replaced once. Every error is of a fault kind and
// names the operation and the path; none holds a token or a request body.
type Client struct {
	session *session
}

// New makes a client.
func New(o Options) *Client {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Observe == nil {
		o.Observe = func(time.Duration, bool) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{session: newSession(o)}
}

// Read gives the data at path; nil when there is nothing. It decodes the answer itself: the api client would copy all of
// it first.
func (c *Client) Read(ctx context.Context, path string) (map[string]any, error) {
	// Data is any and not a map because the decoder fills a map in a field by reflection, which takes half as long again.
	var answer struct{ Data any }
	err := c.do(ctx, "reading", path, func(ctx context.Context, v *Conn) error {
		resp, err := v.read(ctx, path, nil)
		if resp != nil {
			defer func() { _ = resp.Body.Close() }() // it was read to its end, or is of no use
		}
		if status(err) == http.StatusNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		d := json.NewDecoder(resp.Body)
		d.UseNumber()
		if err := d.Decode(&answer); err != nil && !errors.Is(err, io.EOF) { // no body is no data
			return fmt.Errorf("decoding the answer: %w", err)
		}
		_, err = io.Copy(io.Discard, resp.Body) // a connection whose answer was not read to its end is not used again
		return err
	})
	if err != nil {
		return nil, err
	}
	data, _ := answer.Data.(map[string]any)
	return data, nil
}

// Write puts fields at path. A warning of Vault's is an error: Vault drops a parameter it does not know and only
// warns, so what was asked for is not what stands there.
func (c *Client) Write(ctx context.Context, path string, fields map[string]any) error {
	_, err := c.write(ctx, writing, path, asDigits(path, fields))
	return err
}

func (c *Client) write(ctx context.Context, doing, path string, fields map[string]any) (map[string]any, error) {
	var data map[string]any
	err := c.do(ctx, doing, path, func(ctx context.Context, v *Conn) error {
		secret, err := v.write(ctx, path, fields)
		if err != nil || secret == nil {
			return err
		}
		data = secret.Data
		return warned(secret.Warnings)
	})
	return data, err
}

// warned turns Vault's warnings into an error. Parameters that it dropped are dropped the next time too; what else
// it may say of its own state can change. Only advice on what was asked for in full knowledge is none of these.
func warned(warnings []string) error {
	const (
		dropped = "Endpoint ignored"                           // vault/sdk, framework.Backend.HandleRequest
		advice  = "it is encouraged to disable generate_lease" // a PKI role with leases, needed to revoke by role
	)
	kind := fault.Retry
	var faults []string
	for _, w := range warnings {
		if strings.HasPrefix(w, advice) {
			continue
		}
		if strings.HasPrefix(w, dropped) {
			kind = fault.Refuse
		}
		faults = append(faults, w)
	}
	if len(faults) == 0 {
		return nil
	}
	return fault.New(kind, fmt.Errorf("vault warns: %s", strings.Join(faults, "; ")))
}

// Delete removes what stands at path. What is absent, its mount included, counts as deleted.
func (c *Client) Delete(ctx context.Context, path string) error {
	return c.do(ctx, "deleting", path, func(ctx context.Context, v *Conn) error {
		err := v.remove(ctx, path)
		if status(err) == http.StatusNotFound {
			return nil
		}
		return err
	})
}

// RevokePrefix has Vault revoke every lease below prefix. It does not wait until that is done: Vault goes on by itself, and
// tries again what fails. It needs the sudo capability.
// https://developer.hashicorp.com/vault/api-docs/system/leases#revoke-prefix
func (c *Client) RevokePrefix(ctx context.Context, prefix string) error {
	_, err := c.write(ctx, "revoking the leases below", "sys/leases/revoke-prefix/"+prefix, map[string]any{"sync": false})
	return err
}

// do runs one call with a deadline and a good token. A 403 is first taken for a token that was revoked under our
// feet: it is replaced, once.
func (c *Client) do(ctx context.Context, doing, path string, call func(context.Context, *Conn) error) error {
	t, err := c.session.good(ctx)
	if err == nil {
		err = c.once(ctx, t.conn, call)
		if status(err) == http.StatusForbidden {
			c.session.forget(t.value)
			if t, err = c.session.good(ctx); err == nil {
				err = c.once(ctx, t.conn, call)
			}
		}
		if err == nil {
			return nil
		}
		err = fault.New(kindOf(err, doing, path), fmt.Errorf("%w%s", clean(err), remedy(err)))
	}
	return fmt.Errorf("%s %s in Vault: %w", doing, path, c.trusted(err))
}

func (c *Client) once(ctx context.Context, conn *Conn, call func(context.Context, *Conn) error) error {
	ctx, cancel := within(ctx, callTimeout)
	defer cancel()
	start := time.Now() // by the monotonic clock, whatever Now is
	err := call(ctx, conn)
	// What Vault answers over a rate limit quota: https://developer.hashicorp.com/vault/docs/concepts/resource-quotas
	c.session.options.Observe(time.Since(start), status(err) == http.StatusTooManyRequests)
	return err
}

func status(err error) int {
	var r *api.ResponseError
	if errors.As(err, &r) {
		return r.StatusCode
	}
	return 0
}

func untrusted(err error) bool {
	var authority x509.UnknownAuthorityError
	return errors.As(err, &authority)
}

const (
	writing  = "writing"
	policies = "sys/policies/acl/"
	unparsed = "failed to parse policy"
)

// kindOf is the one place that decides what becomes of a fault of Vault's.
// https://developer.hashicorp.com/vault/api-docs#http-status-codes
func kindOf(err error, doing, path string) fault.Kind {
	switch status(err) {
	case 0:
		return fault.KindOf(err) // no answer: retried, or what was decided further down
	case http.StatusBadRequest:
		// A write that is wrong will be the next time. But Vault's system backend answers 400 for its own faults too,
		// such as a leader lost while a policy was stored; of policies only the text that does not parse is ours.
		if doing != writing || strings.HasPrefix(path, policies) && !strings.Contains(err.Error(), unparsed) {
			return fault.Retry
		}
		return fault.Refuse
	case http.StatusMethodNotAllowed, http.StatusRequestEntityTooLarge:
		return fault.Refuse
	default:
		// Outages (5xx, 429, 472, 473) pass; a missing grant (403) or mount (404) is mended by a person while the
		// event waits in its queue, and reaches the dead-letter queue when nobody does.
		return fault.Retry
	}
}

func remedy(err error) string {
	switch {
	case status(err) == http.StatusForbidden:
		return " (the function's Vault policy lacks this grant: run the Vault setup with the current profiles, and with -also-path for a path that no profile names any more)"
	case status(err) == http.StatusNotFound:
		return " (nothing is mounted there: run the Vault setup for this profile's mounts)"
	}
	return ""
}

// clean shortens Vault's many-line error to one line; other errors stay as they are.
func clean(err error) error {
	var r *api.ResponseError
	if !errors.As(err, &r) {
		return err
	}
	return &statusError{response: r}
}

type statusError struct{ response *api.ResponseError }

func (e *statusError) Error() string {
	return fmt.Sprintf("status %d: %s", e.response.StatusCode, strings.Join(strings.Fields(strings.Join(e.response.Errors, "; ")), " "))
}

func (e *statusError) Unwrap() error { return e.response }
