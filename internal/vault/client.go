package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// CallTimeout bounds one request to Vault.
const CallTimeout = 10 * time.Second

// Options configure a Client.
type Options struct {
	Addr string
	// Namespace is the namespace of every request but Health; empty for the root namespace.
	Namespace string
	// CA returns the PEM bundle that Vault's certificate chains to; nil for the system's roots. It is called once, and again
	// after Vault presented a certificate that the bundle does not cover.
	CA func(context.Context) ([]byte, error)
	// Login obtains a token.
	Login Login
	// UserAgent is sent with every request; empty for that of Go's library.
	UserAgent string
	// Observe is called after each request with its duration and whether Vault refused it because of a rate limit; nil: not
	// called.
	Observe func(took time.Duration, throttled bool)
	// Log receives a line for each token that could not be renewed, and for each new advice of Vault; nil: none.
	Log *slog.Logger
	// MaxAliases bounds the aliases of all mounts that Aliases reads; 0: a million.
	MaxAliases int
	// Now returns the time; nil: time.Now.
	Now func() time.Time
}

// Client is a client of one Vault server. It is safe for concurrent use. It sends each request once: the queue is the one layer
// that retries. The exceptions are a refused token, which it replaces once, and a server that did nothing because it is behind,
// which it asks again. Every error has a fault kind and names the operation and the path; none holds a token or a request body.
type Client struct {
	session *session
	advised sync.Map // the advice that was logged
}

// New makes a Client. It contacts Vault only when it is first used.
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

// answer is Vault's answer to a read or a write.
type answer struct {
	// Data is any and not a map: the decoder would fill a map in a field by reflection, which takes half as long again.
	Data     any
	Warnings []string
	Wrapping *struct{} `json:"wrap_info"`
}

// data returns the object in the answer; nil for none.
func (a answer) data() map[string]any {
	data, _ := a.Data.(map[string]any)
	return data
}

// answerOf decodes an answer, the zero answer for an empty one. The api client would first copy all of it.
func answerOf(resp *http.Response) (a answer, err error) {
	d := json.NewDecoder(resp.Body)
	d.UseNumber()
	if err := d.Decode(&a); err != nil && !errors.Is(err, io.EOF) {
		return a, fmt.Errorf("decoding the answer: %w", err)
	}
	_, err = io.Copy(io.Discard, resp.Body) // net/http reuses a connection only after its answer was read to the end
	return a, err
}

// Read returns the data at path, nil where nothing exists.
func (c *Client) Read(ctx context.Context, path string) (map[string]any, error) {
	var a answer
	err := c.do(ctx, "reading", path, func(ctx context.Context, v *Conn) error {
		resp, err := v.read(ctx, path, nil)
		if resp != nil {
			defer func() { _ = resp.Body.Close() }() // after an error, or read to its end
		}
		if isAbsent(err) {
			return nil
		}
		if err != nil {
			return err
		}
		a, err = answerOf(resp)
		return err
	})
	if err != nil {
		return nil, err
	}
	return a.data(), nil
}

// Write writes fields to path and returns the data of the answer, nil for none. A warning that Vault stored another object than was
// sent is an error of kind Refuse. It names the server's version where Vault dropped a field, for which it asks the server. Without
// one, any other warning is logged: see SplitWarnings.
func (c *Client) Write(ctx context.Context, path string, fields map[string]any) (map[string]any, error) {
	stored, err := c.write(ctx, writing, path, asDigits(path, fields))
	if !errors.Is(err, errIgnored) {
		return stored, err
	}
	server := "this server"
	if h, unknown := c.Health(ctx); unknown == nil {
		server = h.Server.String()
	}
	return nil, fmt.Errorf("%w: %s does not know these fields: remove them from the profile's template, or use a server that knows them (docs/vault-versions.md)", err, server)
}

func (c *Client) write(ctx context.Context, operation, path string, fields map[string]any) (map[string]any, error) {
	var data map[string]any
	err := c.do(ctx, operation, path, func(ctx context.Context, v *Conn) error {
		resp, err := v.write(ctx, path, fields)
		if resp != nil {
			defer func() { _ = resp.Body.Close() }() // after an error, or read to its end
		}
		if err != nil {
			return err
		}
		a, err := answerOf(resp)
		if err != nil {
			return err
		}
		if a.Wrapping != nil { // Enterprise's control groups answer so, and have stored nothing yet
			return errors.New("the answer is wrapped, so that nothing may be stored yet: does a control group hold it back?")
		}
		data = a.data()
		altered, advice := SplitWarnings(a.Warnings)
		if len(altered) == 0 {
			c.advise(ctx, path, advice)
		}
		return alteredError(altered)
	})
	return data, err
}

// Delete deletes the object at path. An object or mount that does not exist counts as deleted.
func (c *Client) Delete(ctx context.Context, path string) error {
	return c.do(ctx, "deleting", path, func(ctx context.Context, v *Conn) error {
		err := v.remove(ctx, path)
		if isAbsent(err) {
			return nil
		}
		return err
	})
}

// RevokePrefix makes Vault revoke every lease below prefix. It does not wait for the end: Vault continues by itself and retries
// failures. It needs the sudo capability.
// https://developer.hashicorp.com/vault/api-docs/system/leases#revoke-prefix
func (c *Client) RevokePrefix(ctx context.Context, prefix string) error {
	_, err := c.write(ctx, "revoking the leases below", grant.RevokePrefixPath(prefix), map[string]any{"sync": false})
	return err
}

// RevokeCertificate revokes a certificate of a PKI mount by its serial number, in hex. stored is false if the mount does not have the
// certificate: its role does not store any, or it was tidied. A certificate that is revoked already stays so.
func (c *Client) RevokeCertificate(ctx context.Context, mount, serial string) (stored bool, err error) {
	data, err := c.write(ctx, writing, grant.RevokePath(mount), map[string]any{"serial_number": serial})
	// https://github.com/hashicorp/vault/blob/v1.21.4/builtin/logical/pki/path_revoke.go#L505
	if statusOf(err) == http.StatusBadRequest && strings.Contains(err.Error(), "certificate with serial "+serial+" not found") {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("revoking certificate %s: %w", serial, err)
	}
	// Enterprise hands a certificate of another cluster to that cluster, which may never revoke it.
	return data["state"] != "pending", nil
}

// do runs one call with a deadline and a valid token. It takes a first 403 for a revoked token, replaces the token and runs the
// call a second time.
func (c *Client) do(ctx context.Context, operation, path string, call func(context.Context, *Conn) error) error {
	t, err := c.session.validToken(ctx)
	if err == nil {
		err = c.callOnce(ctx, t.conn, call)
		if statusOf(err) == http.StatusForbidden {
			c.session.dropToken(t.value)
			if t, err = c.session.validToken(ctx); err == nil {
				err = c.callOnce(ctx, t.conn, call)
			}
		}
		if err == nil {
			return nil
		}
		err = fault.New(kindOf(err, operation, path), fmt.Errorf("%w%s", oneLine(err), remedy(err, path)))
	}
	return fmt.Errorf("%s %s in Vault%s: %w", operation, path, inNamespace(c.session.options.Namespace), c.dropUntrusted(err))
}

// callOnce runs one call with a deadline. A server that is behind did nothing: it is asked again, first to forward the request if
// it may.
func (c *Client) callOnce(ctx context.Context, conn *Conn, call func(context.Context, *Conn) error) error {
	ctx, cancel := withWallClockTimeout(ctx, CallTimeout)
	defer cancel()
	var err error
	Looks{}.Until(ctx, func() bool {
		if err = c.observe(ctx, conn, call); !isBehind(err) {
			return true
		}
		if !c.session.state.cannotForward.Load() {
			forwarded := c.observe(ctx, conn.forwarding, call)
			if !refusesForwarding(forwarded) {
				err = forwarded
			} else {
				c.session.state.cannotForward.Store(true)
			}
		}
		return !isBehind(err)
	})
	return err
}

// observe runs one call and reports its duration to Observe.
func (c *Client) observe(ctx context.Context, conn *Conn, call func(context.Context, *Conn) error) error {
	start := time.Now() // by the monotonic clock, unlike Now
	err := call(ctx, conn)
	// Vault's answer beyond a rate limit quota: https://developer.hashicorp.com/vault/docs/concepts/resource-quotas
	c.session.options.Observe(time.Since(start), statusOf(err) == http.StatusTooManyRequests)
	return err
}
