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

// errLate: the request was not sent, because its time was over by the clock on the wall.
var errLate = fmt.Errorf("the request did not leave in time: %w", context.DeadlineExceeded)

// A sandbox can be frozen at any instruction and wake in somebody else's run, and Vault has no conditional write: what
// leaves must leave in time. Contexts alone do not see to that. Their timers stand still with the sandbox, and so does the
// monotonic clock by which they compare deadlines; and when a timer wakes together with a request, the request may win.

// within is context.WithTimeout by the clock on the wall alone: by the monotonic one, a deadline from before a freeze would
// seem the later of the two.
func within(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	end := time.Now().Round(0).Add(limit)
	if d, ok := ctx.Deadline(); ok && d.Round(0).Before(end) {
		end = d.Round(0)
	}
	return context.WithDeadline(ctx, end)
}

// spent tells whether the time of ctx is over, whether or not its timer has noticed.
func spent(ctx context.Context) bool {
	d, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && over(d.UnixNano())
}

// over tells whether a Unix time in ns, 0 for none, has passed by the clock on the wall.
func over(until int64) bool { return until != 0 && time.Now().UnixNano() > until }

// bounded has each request leave before its context's deadline by the clock on the wall, or not at all. net/http tries one
// that was not let out on each kept connection and on a new one, and none lets it out.
type bounded struct{ *http.Transport }

// newBounded makes the transport's connections ones that know until when their request may leave.
func newBounded(t *http.Transport) bounded {
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &punctual{Conn: conn}, nil
	}
	return bounded{t}
}

// RoundTrip sends one request.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	until := int64(0)
	if deadline, ok := r.Context().Deadline(); ok {
		until = deadline.UnixNano()
	}
	trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		conn := got.Conn
		for { // TLS, perhaps in a proxy's TLS, stands before the connection itself
			outer, ok := conn.(interface{ NetConn() net.Conn })
			if !ok {
				break
			}
			conn = outer.NetConn()
		}
		if p, ok := conn.(*punctual); ok {
			p.until.Store(until)
		}
	}}
	return b.Transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
}

// punctual is a connection that one request after the other uses, as HTTP/1.1 has it.
type punctual struct {
	net.Conn
	until atomic.Int64 // Unix time, ns, of the request that has it now; 0 for one without a deadline
}

// Write is the last step of this process before a request is Vault's.
func (p *punctual) Write(b []byte) (int, error) {
	if over(p.until.Load()) {
		return 0, errLate
	}
	return p.Conn.Write(b) //nolint:wrapcheck // the connection's own error is what net/http looks for
}
