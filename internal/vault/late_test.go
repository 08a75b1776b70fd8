package vault_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// woken is a context as a frozen sandbox has it when it wakes: its time is over by the clock on the wall, and its
// timer, which stood still, has not noticed.
type woken struct {
	context.Context
	until time.Time
}

func (w woken) Deadline() (time.Time, bool) { return w.until, true }

func TestARequestWhoseTimeIsOverByTheWallClockNeverLeaves(t *testing.T) {
	t.Parallel()
	const path = "sys/policies/acl/p"
	calls := map[string]func(context.Context, *vault.Client) error{
		"write": func(ctx context.Context, c *vault.Client) error {
			return c.Write(ctx, path, map[string]any{"policy": ""})
		},
		"delete": func(ctx context.Context, c *vault.Client) error { return c.Delete(ctx, path) },
	}
	for name, call := range calls {
		for _, connected := range []bool{false, true} {
			s := newServer(t)
			c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Login: (&logins{ttl: 3600}).login})
			if connected { // a connection that stands and one that has yet to be made
				if err := c.Delete(t.Context(), "warm"); err != nil {
					t.Fatal(err)
				}
			}
			err := call(woken{t.Context(), time.Now().Add(-time.Millisecond)}, c)
			if !errors.Is(err, context.DeadlineExceeded) || fault.KindOf(err) != fault.Retry {
				t.Errorf("%s, connected %v: want its time to be over, to be tried again, got %v", name, connected, err)
			}
			if slices.ContainsFunc(s.calls, func(c string) bool { return c != "DELETE warm token-1" }) {
				t.Errorf("%s, connected %v: want nothing sent by a sandbox that woke too late, got %v", name, connected, s.calls)
			}
			if err := call(t.Context(), c); err != nil {
				t.Errorf("%s, connected %v: want the next one to go through, got %v", name, connected, err)
			}
		}
	}
}

func TestTheTimeOfOneRequestDoesNotBindTheNextOnItsConnection(t *testing.T) {
	t.Parallel()
	const path = "sys/policies/acl/p"
	s := newServer(t)
	var from []string
	s.answers[path] = func(w http.ResponseWriter, r *http.Request) {
		from = append(from, r.RemoteAddr)
		w.WriteHeader(http.StatusNoContent)
	}
	c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Login: (&logins{ttl: 3600}).login})
	const short = 200 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	first := c.Delete(ctx, path)
	time.Sleep(short)
	if second := c.Delete(t.Context(), path); errors.Join(first, second) != nil {
		t.Fatalf("want both to go through, got %v and %v", first, second)
	}
	if len(from) != 2 || from[0] != from[1] {
		t.Errorf("want the kept connection to serve the second request too, got requests from %v: each one after a pause would dial anew", from)
	}
}
