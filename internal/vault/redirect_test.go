package vault_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// seen is a server that records the token and the method of each request.
type seen struct {
	*httptest.Server
	requests []string
}

func record(t *testing.T, start func(http.Handler) *httptest.Server, status int) *seen {
	t.Helper()
	s := &seen{}
	s.Server = start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests = append(s.requests, r.Method+" "+r.URL.Path+" "+r.Header.Get("X-Vault-Token"))
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s
}

func redirect(status int, to string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", to+r.URL.Path) // with an empty body, as a standby answers
		w.WriteHeader(status)
	}
}

// selfSigned returns a certificate for 127.0.0.1 that no CA of the client signed.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	self := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, self, self, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// calls are the kinds of request that the client sends.
var calls = map[string]func(*vault.Client) error{
	"read":   func(c *vault.Client) error { _, err := c.Read(context.Background(), "some/path"); return err },
	"write":  func(c *vault.Client) error { return write(c, "some/path") },
	"delete": func(c *vault.Client) error { return c.Delete(context.Background(), "some/path") },
}

func TestRedirect_IsFollowedToTheLeader(t *testing.T) {
	for name, call := range calls {
		s, c := newServer(t)
		// All servers of httptest have the same certificate, so the client trusts this one too.
		leader := record(t, httptest.NewTLSServer, http.StatusNoContent)
		s.answers["some/path"] = redirect(http.StatusTemporaryRedirect, leader.URL)
		if err := call(c); err != nil {
			t.Errorf("a %s at a standby that redirects: %v", name, err)
		}
		if len(leader.requests) != 1 || !strings.HasSuffix(leader.requests[0], " /v1/some/path token-1") {
			t.Errorf("a %s at a standby that redirects: want one request with the token at the leader, got %q", name, leader.requests)
		}
	}
}

func TestRedirect_NotFollowedIsNoSuccess(t *testing.T) {
	for name, call := range calls {
		s, c := newServer(t)
		s.answers["some/path"] = redirect(http.StatusTemporaryRedirect, s.URL)
		if err := call(c); err == nil || fault.KindOf(err) != fault.Retry || len(s.calls) > 4 {
			t.Errorf("a %s at standbys that redirect in a circle: want a fault to retry after few requests, got %v after %d", name, err, len(s.calls))
		}
	}
	for _, status := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		s, c := newServer(t)
		leader := record(t, httptest.NewTLSServer, http.StatusOK)
		s.answers["some/path"] = redirect(status, leader.URL)
		err := c.Delete(t.Context(), "some/path")
		if made := slices.ContainsFunc(leader.requests, func(r string) bool { return strings.HasPrefix(r, "DELETE") }); err == nil && !made {
			t.Errorf("a delete answered with %d: want a fault to retry, since nothing was deleted, got success", status)
		}
		s.answer("some/path", status, "")
		if err := c.Delete(t.Context(), "some/path"); err == nil || fault.KindOf(err) != fault.Retry {
			t.Errorf("a delete answered with %d and no location: want a fault to retry, got %v", status, err)
		}
	}
}

func TestRedirect_NeverSendsTheTokenUnverified(t *testing.T) {
	for name, start := range map[string]func(http.Handler) *httptest.Server{
		"http": httptest.NewServer,
		"a server with another CA's certificate": func(h http.Handler) *httptest.Server {
			s := httptest.NewUnstartedServer(h)
			s.TLS = &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}}
			s.StartTLS()
			return s
		},
	} {
		for kind, call := range calls {
			s, c := newServer(t)
			elsewhere := record(t, start, http.StatusNoContent)
			s.answers["some/path"] = redirect(http.StatusTemporaryRedirect, elsewhere.URL)
			if err := call(c); err == nil || fault.KindOf(err) != fault.Retry {
				t.Errorf("a %s redirected to %s: want a fault to retry, got %v", kind, name, err)
			}
			if len(elsewhere.requests) > 0 {
				t.Errorf("a %s redirected to %s: the token was sent there: %q", kind, name, elsewhere.requests)
			}
		}
	}
}
