package vault

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// errDeadlinePassed says that a request was not sent because its deadline had passed by wall-clock time.
var errDeadlinePassed = fmt.Errorf("the request was not sent before its deadline: %w", context.DeadlineExceeded)

// Lambda can freeze a sandbox at any instruction and thaw it in another invocation, and Vault has no conditional write: no
// request may be sent after its deadline. Contexts do not ensure that. Their timers and the monotonic clock by which they
// compare deadlines stop with the sandbox; and when a timer and a request wake together, the request may win.

// withWallClockTimeout is context.WithTimeout by wall-clock time alone. By the monotonic clock, a deadline set before a
// freeze would seem later than it is.
func withWallClockTimeout(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	end := time.Now().Round(0).Add(limit)
	if d, ok := ctx.Deadline(); ok && d.Round(0).Before(end) {
		end = d.Round(0)
	}
	return context.WithDeadline(ctx, end)
}

// isExpired reports whether the deadline of ctx has passed by wall-clock time, even if its timer has not fired yet.
func isExpired(ctx context.Context) bool {
	d, ok := ctx.Deadline()
	return ctx.Err() != nil || (ok && hasPassed(d.UnixNano()))
}

// hasPassed reports whether a deadline, in Unix nanoseconds, has passed by wall-clock time; 0 is no deadline.
func hasPassed(deadline int64) bool { return deadline != 0 && time.Now().UnixNano() > deadline }

// wallClockTransport refuses to send a request after its deadline by wall-clock time. net/http retries a refused write on each
// idle connection and on a new one; all of them refuse.
type wallClockTransport struct{ *http.Transport }

// newWallClockTransport changes t to dial connections that know the deadline of their request.
func newWallClockTransport(t *http.Transport) wallClockTransport {
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &deadlineConn{Conn: conn}, nil
	}
	return wallClockTransport{t}
}

// RoundTrip sends one request.
func (t wallClockTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	deadline := int64(0)
	if d, ok := r.Context().Deadline(); ok {
		deadline = d.UnixNano()
	}
	trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		conn := got.Conn
		for { // unwrap TLS, perhaps inside a proxy's TLS
			outer, ok := conn.(interface{ NetConn() net.Conn })
			if !ok {
				break
			}
			conn = outer.NetConn()
		}
		if c, ok := conn.(*deadlineConn); ok {
			c.deadline.Store(deadline)
		}
	}}
	return t.Transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
}

// deadlineConn is a connection that serves one request at a time, as HTTP/1.1 does.
type deadlineConn struct {
	net.Conn
	deadline atomic.Int64 // of the request that uses it, in Unix nanoseconds; 0 for none
}

// Write is the last step in this process before a request reaches Vault.
func (c *deadlineConn) Write(b []byte) (int, error) {
	if hasPassed(c.deadline.Load()) {
		return 0, errDeadlinePassed
	}
	return c.Conn.Write(b) // unwrapped: net/http looks for the connection's own error
}
