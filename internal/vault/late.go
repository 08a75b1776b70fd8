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

// bounded has each request leave before its context's deadline by the clock on the wall, or not at all. The timer behind
// a context is not enough: it stands still with a sandbox that is frozen, and when both wake at once the request may win.
// Vault has no conditional write, so what has left can only be in time.
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
	if until := p.until.Load(); until != 0 && time.Now().UnixNano() > until {
		return 0, errLate
	}
	return p.Conn.Write(b) //nolint:wrapcheck // the connection's own error is what net/http looks for
}
