package vault

import (
	"context"
	"fmt"
	"net"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// errLate: the request was not sent, because its time was over by the clock on the wall.
var errLate = fmt.Errorf("the request did not leave in time: %w", context.DeadlineExceeded)

// bounded has each request made with ctx leave before its deadline by the clock on the wall, or not at all. The timer
// behind a context is not enough: it stands still with a sandbox that is frozen, and when both wake at once the request
// may win. Vault has no conditional write, so what has left can only be in time. It needs connections made by dial.
func bounded(ctx context.Context) context.Context {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		conn := got.Conn
		for { // TLS, perhaps in a proxy's TLS, stands before the connection itself
			outer, ok := conn.(interface{ NetConn() net.Conn })
			if !ok {
				break
			}
			conn = outer.NetConn()
		}
		if p, ok := conn.(*punctual); ok {
			p.until.Store(deadline.UnixNano())
		}
	}})
}

// punctual is a connection that one request after the other uses, as HTTP/1.1 has it.
type punctual struct {
	net.Conn
	until atomic.Int64 // Unix time, ns, of the request that has it now; 0 while there is none with a deadline
}

// Write is the last step of this process before a request is Vault's.
func (p *punctual) Write(b []byte) (int, error) {
	if until := p.until.Load(); until != 0 && time.Now().UnixNano() > until {
		return 0, errLate
	}
	return p.Conn.Write(b) //nolint:wrapcheck // the connection's own error is what net/http looks for
}

type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

// dial makes connections that bounded knows.
func (d dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := d(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &punctual{Conn: conn}, nil
}
