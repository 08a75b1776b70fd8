package vault_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
)

// startStandby starts a server that is behind, with a client.
func startStandby(t *testing.T, s *vaulttest.Standby) *vault.Client {
	t.Helper()
	s.Vault = vaulttest.New()
	return vault.New(vault.Options{Addr: s.Start(t.Cleanup), Login: (&logins{ttl: 3600}).login})
}

// mustWrite writes a value that differs from all written before.
func mustWrite(t *testing.T, c *vault.Client, value string) {
	t.Helper()
	if _, err := c.Write(t.Context(), "some/path", map[string]any{"value": value}); err != nil {
		t.Fatal(err)
	}
}

// wantValue fails unless a read shows a value.
func wantValue(t *testing.T, c *vault.Client, want string) {
	t.Helper()
	if got, err := c.Read(t.Context(), "some/path"); err != nil || got["value"] != want {
		t.Errorf("want the read to show %q, which this client wrote, got %v, %v", want, got, err)
	}
}

func wantCount(t *testing.T, s *vaulttest.Standby, prefix string, want int, why string) {
	t.Helper()
	if got := s.Count(prefix); got != want {
		t.Errorf("want %d answers %q, got %d: %s", want, prefix, got, why)
	}
}

func TestRead_ShowsTheClientsOwnWrite(t *testing.T) {
	t.Run("forwarded", func(t *testing.T) {
		s := &vaulttest.Standby{Behind: 2, Index: true, Forwards: true}
		c := startStandby(t, s)
		mustWrite(t, c, "new")
		wantValue(t, c, "new")
		wantCount(t, s, "412 GET index", 1, "the state must be required")
		wantCount(t, s, "200 GET index forward", 1, "a server that is behind is asked to forward")
	})
	t.Run("not forwarded", func(t *testing.T) {
		s := &vaulttest.Standby{Behind: 1, Index: true}
		c := startStandby(t, s)
		for _, value := range []string{"new", "newer"} {
			mustWrite(t, c, value)
			wantValue(t, c, value)
		}
		wantCount(t, s, "400 GET index forward", 1, "a server that refuses to forward is not asked again")
		wantCount(t, s, "412 GET index", 2, "each read after a write is first refused")
	})
}

func TestRead_CarriesNoStateToServersWithout(t *testing.T) {
	s := &vaulttest.Standby{}
	c := startStandby(t, s)
	mustWrite(t, c, "new")
	wantValue(t, c, "new")
	if s.Count("200 GET") != 1 || s.Count("200 GET index") != 0 || s.Count("200 GET forward") != 0 {
		t.Error("want one read without a header: Vault Community answers 400 to one that asks to forward")
	}
}

func TestRead_FromServerBehindForLongIsRetried(t *testing.T) {
	s := &vaulttest.Standby{Behind: 100, Index: true}
	c := startStandby(t, s)
	mustWrite(t, c, "new")
	_, err := c.Read(t.Context(), "some/path")
	if err == nil || fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "412") {
		t.Errorf("want a retry with status 412, got %v", err)
	}
	wantCount(t, s, "412", 3, "the read is looked at three times, and not for ever")
}

func TestState_IsRequiredOnlyWhileServersMayLag(t *testing.T) {
	s := &vaulttest.Standby{Vault: vaulttest.New(), Behind: 1000, Index: true}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := vault.New(vault.Options{Addr: s.Start(t.Cleanup), Login: (&logins{ttl: 3600}).login, Now: func() time.Time { return now }})
	mustWrite(t, c, "new")
	now = now.Add(vault.MaxLag)
	if _, err := c.Read(t.Context(), "some/path"); err != nil {
		t.Errorf("a cluster restored from a snapshot never has the state: a warm sandbox must not wait for it for good: %v", err)
	}
}

// indexed has a server name its state in each answer, and keeps the states that requests require.
func indexed(s *server, body string) (required *[]string) {
	required = new([]string)
	n := 0
	for _, path := range []string{"some/path", "identity/lookup/entity", "auth/approle/login"} {
		s.answers[path] = func(w http.ResponseWriter, r *http.Request) {
			*required = r.Header.Values(api.HeaderIndex)
			n++
			w.Header().Set(api.HeaderIndex, base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "v1:cluster:%d:0:00", n)))
			fmt.Fprint(w, body)
		}
	}
	return required
}

func TestState_IsOneForAllWrites(t *testing.T) {
	s, c := newServer(t)
	required := indexed(s, `{}`)
	for range 50 {
		mustWrite(t, c, "new")
		if len(*required) != 0 {
			t.Fatalf("want writes to require nothing: the active server makes them; got %q", *required)
		}
	}
	if _, err := c.Read(t.Context(), "some/path"); err != nil || len(*required) != 1 {
		t.Errorf("want one state required after 50 writes, got %q, %v", *required, err)
	}
	first := (*required)[0]
	if _, err := c.Read(t.Context(), "some/path"); err != nil || len(*required) != 1 || (*required)[0] != first {
		t.Errorf("want the state of the last write still, since a read's answer may come from a server that is behind, got %q, %v", *required, err)
	}
}

func TestState_IsRequiredByAliasLookup(t *testing.T) {
	s, c := newServer(t)
	required := indexed(s, `{}`)
	mustWrite(t, c, "new")
	if _, err := c.CutOff(t.Context(), vault.LoginMount{Path: "aws"}, vault.Cut{InstanceID: "i-01234567", Sure: []string{"i-01234567"}}); err != nil {
		t.Fatal(err)
	}
	if len(*required) != 1 {
		t.Error("want the look-up to require the state: an entity that it misses keeps its tokens")
	}
}

func TestState_OfLoginIsRequired(t *testing.T) {
	s, _ := newServer(t)
	required := indexed(s, `{"auth":{"client_token":"token","lease_duration":60}}`)
	secret := func(context.Context) ([]byte, error) { return []byte(`{"role_id":"a","secret_id":"b"}`), nil }
	c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Login: vault.AppRole{Mount: "approle", Secret: secret}.Login})
	if _, err := c.Read(t.Context(), "some/path"); err != nil || len(*required) != 1 {
		t.Errorf("want the login's state required, or a server may not know the token, got %q, %v", *required, err)
	}
}

func TestWrite_ToServerBehindIsSentAgain(t *testing.T) {
	s, c := newServer(t)
	n := 0
	s.answers["some/path"] = func(w http.ResponseWriter, r *http.Request) {
		switch n++; {
		case r.Header.Get(api.HeaderInconsistent) != "":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"errors":["forwarding via header X-Vault-Inconsistent=forward-active-node disabled in configuration"]}`)
		case n == 1: // the server does not know the token yet
			w.WriteHeader(http.StatusPreconditionFailed)
			fmt.Fprint(w, `{"errors":["required index state not present"]}`)
		}
	}
	if err := write(c, "some/path"); err != nil || n != 3 {
		t.Errorf("want the write sent again, since the server did nothing, and no refusal by the 400, got %v after %d requests", err, n)
	}
}
