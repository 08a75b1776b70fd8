package vault_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

const missingNamespace = `{"errors":["namespace not found"]}` // OpenBao 2.5.5, with status 404

// recordNamespaces returns the namespace of each request that s answers, by method and path.
func recordNamespaces(s *server) map[string]string {
	seen := map[string]string{}
	for path, body := range map[string]string{
		"auth/approle/login":     `{"auth":{"client_token":"token-1","lease_duration":30,"renewable":true}}`,
		"auth/token/renew-self":  `{"auth":{"client_token":"token-1","lease_duration":30,"renewable":true}}`,
		"auth/token/lookup-self": `{"data":{"ttl":30,"renewable":true}}`,
		"sys/capabilities-self":  `{"data":{"a":["read"]}}`,
		"a/b":                    `{"data":{"keys":["x"]}}`,
		"sys/health":             healthy,
	} {
		s.answers[path] = func(w http.ResponseWriter, r *http.Request) {
			seen[r.Method+" "+path] = r.Header.Get("X-Vault-Namespace")
			fmt.Fprint(w, body)
		}
	}
	return seen
}

func TestNamespace_IsInEveryRequestButHealth(t *testing.T) {
	t.Setenv("VAULT_NAMESPACE", "another") // of the process, which the client must ignore
	for _, namespace := range []string{"team/a", ""} {
		s, _ := newServer(t)
		seen := recordNamespaces(s)
		now := time.Now()
		c := vault.New(vault.Options{
			Addr: s.URL, CA: s.ca, Namespace: namespace, Now: func() time.Time { return now },
			Login: func(ctx context.Context, c *vault.Conn) (*api.SecretAuth, error) {
				own := vault.Token{Secret: func(context.Context) ([]byte, error) { return []byte(`{"token":"token-0"}`), nil }}
				if _, err := own.Login(ctx, c); err != nil {
					return nil, err
				}
				return vault.AppRole{Mount: "approle", Secret: func(context.Context) ([]byte, error) {
					return []byte(`{"role_id":"r","secret_id":"s"}`), nil
				}}.Login(ctx, c)
			},
		})
		read := func() error { _, err := c.Read(t.Context(), "a/b"); return err }
		for n, call := range []func() error{
			func() error { _, err := c.Health(t.Context()); return err },
			read,
			func() error { _, err := c.List(t.Context(), "a/b"); return err },
			func() error { _, err := c.Write(t.Context(), "a/b", map[string]any{"x": "y"}); return err },
			func() error { return c.Delete(t.Context(), "a/b") },
			func() error { _, err := c.Capabilities(t.Context(), []string{"a"}); return err },
			func() error { now = now.Add(25 * time.Second); return read() }, // beyond two thirds of the token's life: a renewal
		} {
			if err := call(); err != nil {
				t.Fatalf("call %d: %v", n, err)
			}
		}
		for _, request := range []string{
			"PUT auth/approle/login", "GET auth/token/lookup-self", "PUT auth/token/renew-self", "GET a/b", "PUT a/b", "DELETE a/b", "PUT sys/capabilities-self",
		} {
			if got, made := seen[request]; !made || got != namespace {
				t.Errorf("%s: made %v, in namespace %q, want it in %q", request, made, got, namespace)
			}
		}
		if got := seen["GET sys/health"]; got != "" {
			t.Errorf("health was read in namespace %q, but servers answer it in the root one only", got)
		}
	}
}

func TestNamespace_IsInEveryError(t *testing.T) {
	s, _ := newServer(t)
	s.answer("a/b", 403, `{"errors":["permission denied"]}`)
	l := &logins{ttl: 60}
	c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Namespace: "team/a", Login: l.login})
	_, read := c.Read(t.Context(), "a/b")
	l.err = errors.New("no such role")
	login := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Namespace: "team/a", Login: l.login}).Login(t.Context())
	for name, err := range map[string]error{"read": read, "login": login} {
		if err == nil || !strings.Contains(err.Error(), "(namespace team/a)") {
			t.Errorf("%s: the error must name the namespace in which Vault refused: %v", name, err)
		}
	}
	_, plain := newServer(t)
	if _, err := plain.Capabilities(t.Context(), []string{"a"}); err == nil || strings.Contains(err.Error(), "namespace") {
		t.Errorf("an error must not name a namespace where none is set: %v", err)
	}
}

// A request in a missing namespace may have reached another server than the one with the objects.
func TestNamespace_MissingIsNoAbsence(t *testing.T) {
	for name, call := range map[string]func(*vault.Client) error{
		"read":   func(c *vault.Client) error { _, err := c.Read(t.Context(), "a/b"); return err },
		"list":   func(c *vault.Client) error { _, err := c.List(t.Context(), "a/b"); return err },
		"delete": func(c *vault.Client) error { return c.Delete(t.Context(), "a/b") },
	} {
		s, c := newServer(t)
		s.answer("a/b", 404, missingNamespace)
		if err := call(c); err == nil || !strings.Contains(err.Error(), "correct VAULT_NAMESPACE") {
			t.Errorf("%s in a namespace that does not exist: want an error with its remedy, got %v", name, err)
		}
	}
}

func TestNamespace_IsChecked(t *testing.T) {
	const exists, denied = `{"data":{"auth":{},"secret":{}}}`, `{"errors":["permission denied"]}`
	type answer struct {
		status int
		body   string
	}
	for name, row := range map[string]struct {
		never, own answer // to the reserved name below the namespace, and to the namespace
		is         error
		says       string // empty: no error
	}{
		"it exists":                      {answer{404, missingNamespace}, answer{200, exists}, nil, ""},
		"it exists, others are hidden":   {answer{403, denied}, answer{200, exists}, nil, ""},
		"it is missing":                  {answer{404, missingNamespace}, answer{404, missingNamespace}, vault.ErrNoNamespace, "team/a"},
		"it is missing or hidden":        {answer{403, denied}, answer{403, denied}, nil, ""},
		"the server ignores namespaces":  {answer{200, exists}, answer{200, exists}, vault.ErrNamespacesIgnored, "team/a"},
		"the server is sealed":           {answer{503, `{"errors":["Vault is sealed"]}`}, answer{503, ``}, nil, "Vault is sealed"},
		"the namespace is locked":        {answer{404, missingNamespace}, answer{503, `{"errors":["API access to this namespace has been locked"]}`}, nil, "locked"},
		"a proxy that limits the number": {answer{429, ``}, answer{200, exists}, nil, "429"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := newServer(t)
			s.answers["sys/internal/ui/mounts"] = func(w http.ResponseWriter, r *http.Request) {
				a := map[string]answer{"team/a/sys": row.never, "team/a": row.own}[r.Header.Get("X-Vault-Namespace")]
				w.WriteHeader(a.status)
				fmt.Fprint(w, a.body)
			}
			l := &logins{err: errors.New("the login does not work")}
			err := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Namespace: "team/a", Login: l.login}).CheckNamespace(t.Context())
			if (err != nil) != (row.says != "") || (err != nil && !strings.Contains(err.Error(), row.says)) || (row.is != nil && !errors.Is(err, row.is)) {
				t.Errorf("got %v, want %v that says %q", err, row.is, row.says)
			}
			for _, call := range s.calls {
				if call != "GET sys/internal/ui/mounts " {
					t.Errorf("the check must need no token, but made %q", call)
				}
			}
		})
	}
}

func TestNamespace_OfRootNeedsNoCheck(t *testing.T) {
	s, c := newServer(t)
	if err := c.CheckNamespace(t.Context()); err != nil || len(s.calls) != 0 {
		t.Errorf("got %v after %q: the root namespace always exists", err, s.calls)
	}
}
