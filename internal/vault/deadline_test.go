package vault

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// woken is the context of a sandbox that wakes from a freeze: its deadline has passed by wall-clock time, but its timer, which
// stopped during the freeze, has not fired.
type woken struct {
	context.Context
}

func (woken) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

// watched is a server that counts requests and connections, with a client that is logged in to it.
type watched struct {
	*httptest.Server
	client           *Client
	requests, opened atomic.Int64
	now              func() time.Time
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	w := &watched{now: time.Now}
	w.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		w.requests.Add(1)
		_, _ = rw.Write([]byte(`{"auth":{"client_token":"token","lease_duration":3600,"renewable":true}}`))
	}))
	w.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			w.opened.Add(1)
		}
	}
	w.StartTLS()
	t.Cleanup(w.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.Certificate().Raw})
	w.client = New(Options{
		Addr: w.URL, Now: func() time.Time { return w.now() }, CA: func(context.Context) ([]byte, error) { return ca, nil },
		Login: func(ctx context.Context, c *Conn) (*api.SecretAuth, error) {
			return login(ctx, c, "approle", nil, "the test")
		},
	})
	if err := w.client.Delete(t.Context(), "first"); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestRequest_PastItsDeadlineIsNotSent(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	for name, call := range map[string]func(context.Context) error{
		"a write": func(ctx context.Context) error {
			_, err := w.client.Write(ctx, "p", map[string]any{"policy": ""})
			return err
		},
		"a deletion": func(ctx context.Context) error { return w.client.Delete(ctx, "p") },
		"a cut-off": func(ctx context.Context) error {
			_, err := w.client.CutOff(ctx, LoginMount{Path: "aws"}, Cut{Sure: []string{"i-0"}})
			return err
		},
		"a login": func(ctx context.Context) error {
			w.client.session.dropToken("token")
			return w.client.Login(ctx)
		},
	} {
		if err := w.client.Login(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := w.requests.Load()
		err := call(woken{t.Context()})
		if n := w.requests.Load() - before; n > 0 {
			t.Errorf("%s: want no request from a sandbox that woke after its deadline, got %d", name, n)
		}
		if !errors.Is(err, context.DeadlineExceeded) || fault.KindOf(err) != fault.Retry {
			t.Errorf("%s: want a passed deadline of kind retry, got %v", name, err)
		}
	}
	if err := w.client.Delete(t.Context(), "p"); err != nil {
		t.Errorf("want the next call to succeed, whatever failed before it, got %v", err)
	}
}

func TestRequest_DeadlineIsCheckedOnSending(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	before := w.requests.Load()
	err := w.client.session.conn.remove(woken{t.Context()}, "p") // past the checks of callOnce
	if !errors.Is(err, errDeadlinePassed) || w.requests.Load() != before {
		t.Errorf("want the connection to refuse a request that all earlier checks passed, got %v and %d requests", err, w.requests.Load()-before)
	}
}

func TestCallLimit_IsWallClockTimeOnly(t *testing.T) {
	t.Parallel()
	var at time.Time
	w := newWatched(t)
	observe := func(ctx context.Context) { at, _ = ctx.Deadline() }
	w.client.session.options.Login = func(ctx context.Context, _ *Conn) (*api.SecretAuth, error) {
		observe(ctx)
		return &api.SecretAuth{ClientToken: "another"}, nil
	}
	for name, call := range map[string]func(context.Context) error{
		"a call": func(ctx context.Context) error {
			return w.client.callOnce(ctx, nil, func(ctx context.Context, _ *Conn) error {
				observe(ctx)
				return nil
			})
		},
		"a login": func(ctx context.Context) error {
			w.client.session.token = token{}
			return w.client.Login(ctx)
		},
	} {
		for _, left := range []time.Duration{2 * CallTimeout, CallTimeout / 2} { // more time than a call may take, and less
			ctx, cancel := context.WithTimeout(t.Context(), left)
			defer cancel()
			if err := call(ctx); err != nil {
				t.Fatal(err)
			}
			want := min(left, CallTimeout)
			if got := time.Until(at); got > want || got < want/2 {
				t.Errorf("%s with %s left: want the earlier of both deadlines, got one in %s", name, left, got)
			}
			if at != at.Round(0) { // compares the monotonic reading, not the instant
				t.Errorf("%s with %s left: its deadline %s has a monotonic reading: after a freeze it would compare as later than it is", name, left, at)
			}
		}
	}
}

func TestRequest_DeadlineDoesNotBindTheNext(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	const short = time.Second
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	if err := w.client.Delete(ctx, "p"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(short)
	w.now = func() time.Time { return time.Now().Add(50 * time.Minute) }
	requests, opened := w.requests.Load(), w.opened.Load()
	if err := w.client.Login(t.Context()); err != nil { // renews
		t.Fatal(err)
	}
	if w.requests.Load() == requests || w.opened.Load() != opened {
		t.Errorf("want the renewal on the idle connection, got %d requests and %d new connections: else each pause costs a dial", w.requests.Load()-requests, w.opened.Load()-opened)
	}
}
