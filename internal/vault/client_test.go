package vault_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// server is a fake Vault that answers as told, and without content elsewhere. Tests of success use a real Vault (infra/lab).
type server struct {
	*httptest.Server
	mu      sync.Mutex
	calls   []string
	answers map[string]func(w http.ResponseWriter, r *http.Request)
}

// newServer returns a server, and a client whose token is good for a minute.
func newServer(t *testing.T) (*server, *vault.Client) {
	t.Helper()
	s := &server{answers: map[string]func(http.ResponseWriter, *http.Request){}}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/v1/")
		s.mu.Lock()
		s.calls = append(s.calls, r.Method+" "+path+" "+r.Header.Get("X-Vault-Token"))
		answer := s.answers[path]
		s.mu.Unlock()
		if answer == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s, vault.New(vault.Options{Addr: s.URL, CA: s.ca, Login: (&logins{ttl: 60}).login})
}

func (s *server) answer(path string, status int, body string) {
	s.answers[path] = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

func (s *server) ca(context.Context) ([]byte, error) {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), nil
}

// logins counts its logins and returns token-1, token-2, ….
type logins struct {
	n         int
	ttl       int
	renewable bool
	err       error
}

func (l *logins) login(context.Context, *vault.Conn) (*api.SecretAuth, error) {
	if l.err != nil {
		return nil, l.err
	}
	l.n++
	return &api.SecretAuth{ClientToken: fmt.Sprintf("token-%d", l.n), LeaseDuration: l.ttl, Renewable: l.renewable}, nil
}

// The texts are Vault's: infra/lab/integration has the answer for a path without a mount.
func TestVaultFault_NamesTheTrueRemedy(t *testing.T) {
	const unmounted, unsupported = `no handler for route "x". route entry not found.`, "1 error occurred:\n\t* unsupported path\n\n"
	for name, row := range map[string]struct {
		path   string
		status int
		text   string
		says   string // empty for no remedy
	}{
		"an engine that is missing":       {"alice/ssh/roles/x", 404, unmounted, "(nothing is mounted there: mount the engine that the profile's base_path and path name, or correct them; vault-ec2 setup mounts PKI engines only, with --pki)"},
		"an auth method that is missing":  {"auth/aws/role/x", 404, unmounted, "run vault-ec2 setup with --auth-mount"},
		"an engine without such a path":   {"alice/ssh/hosts/x", 404, unsupported, "(the engine that is mounted there has no such path"},
		"a path that takes no write":      {"alice/pki/ca/x", 405, "unsupported operation", "has no such path"},
		"a plugin that does not run":      {"alice/ssh/roles/x", 404, `no handler for route "x". route entry found, but backend is nil.`, ""},
		"a policy that lacks a right":     {"alice/ssh/roles/x", 403, "permission denied", "run vault-ec2 setup with the current profiles"},
		"a server that is out of service": {"alice/ssh/roles/x", 503, "Vault is sealed", ""},
	} {
		s, c := newServer(t)
		s.answer(row.path, row.status, fmt.Sprintf(`{"errors":[%q]}`, row.text))
		_, err := c.Write(t.Context(), row.path, map[string]any{"a": "b"})
		if err == nil || !strings.Contains(err.Error(), row.says) || (row.says == "" && strings.Contains(err.Error(), "(")) {
			t.Errorf("%s: want the remedy %q, got %v", name, row.says, err)
		}
	}
}

func TestVaultFault_HasItsKind(t *testing.T) {
	for name, row := range map[string]struct {
		status int
		want   fault.Kind
	}{
		"a wrong write is refused":            {400, fault.Refuse},
		"a missing grant needs a person":      {403, fault.Retry},
		"a missing mount needs a person":      {404, fault.Retry},
		"an unsupported operation is refused": {405, fault.Refuse},
		"too many requests":                   {429, fault.Retry},
		"a recovery-mode standby":             {472, fault.Retry},
		"a performance standby":               {473, fault.Retry},
		"an internal error":                   {500, fault.Retry},
		"sealed":                              {503, fault.Retry},
		"an unknown status":                   {499, fault.Retry},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t)
			s.answer("some/path", row.status, `{"errors":["1 error occurred:\n\t* why it failed\n"]}`)
			_, err := c.Write(t.Context(), "some/path", map[string]any{"secret": "hush"})
			if err == nil || fault.KindOf(err) != row.want {
				t.Fatalf("status %d: want kind %s, got %s: %v", row.status, row.want, fault.KindOf(err), err)
			}
			for _, part := range []string{"writing some/path", "why it failed", fmt.Sprint(row.status)} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error must say %q: %v", part, err)
				}
			}
			for _, secret := range []string{"hush", "token-"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error holds %q: %v", secret, err)
				}
			}
			if calls := len(s.calls); row.status != 403 && calls != 1 {
				t.Errorf("the queue is the one layer that retries, but Vault saw %d calls: %q", calls, s.calls)
			}
		})
	}
}

func TestStatus400_RefusesOnlyAWrongWrite(t *testing.T) {
	const policy = "sys/policies/acl/ec2-i-01234567-node"
	for name, row := range map[string]struct {
		path, answer string
		call         func(*vault.Client, string) error
		want         fault.Kind
	}{
		"a policy that does not parse":      {policy, "failed to parse policy: x", write, fault.Refuse},
		"a policy that could not be stored": {policy, "failed to persist policy: leadership lost while committing log", write, fault.Retry},
		"a policy that could not be deleted": {policy, "failed to delete policy: leadership lost while committing log",
			func(c *vault.Client, path string) error { return c.Delete(context.Background(), path) }, fault.Retry},
		"a policy that a former leader could not delete": {policy, "failed to delete policy: node is not the leader",
			func(c *vault.Client, path string) error { return c.Delete(context.Background(), path) }, fault.Retry},
		"a policy that a former leader could not store": {policy, "failed to persist policy: node is not the leader", write, fault.Retry},
		"leases that could not be revoked": {"sys/leases/revoke-prefix/x", "failed to revoke",
			func(c *vault.Client, _ string) error { return c.RevokePrefix(context.Background(), "x") }, fault.Retry},
		"a read": {"some/path", "x", func(c *vault.Client, path string) error {
			_, err := c.Read(context.Background(), path)
			return err
		}, fault.Retry},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t)
			s.answer(row.path, 400, fmt.Sprintf(`{"errors":[%q]}`, row.answer))
			if err := row.call(c, row.path); err == nil || fault.KindOf(err) != row.want {
				t.Errorf("want kind %s, got %s: %v", row.want, fault.KindOf(err), err)
			}
		})
	}
}

func write(c *vault.Client, path string) error {
	_, err := c.Write(context.Background(), path, nil)
	return err
}

func TestLogin_FailureIsSharedByWaitingCalls(t *testing.T) {
	s, _ := newServer(t)
	l := &logins{err: errors.New("down")}
	tries := 0
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Now: func() time.Time { return now }, Login: func(ctx context.Context, a *vault.Conn) (*api.SecretAuth, error) {
		tries++
		return l.login(ctx, a)
	}})
	for range 8 {
		if err := write(c, "some/path"); err == nil {
			t.Fatal("want an error")
		}
	}
	if tries != 1 {
		t.Errorf("8 calls at the same moment made %d logins, each of which may take seconds; want 1", tries)
	}
	now, l.err, l.ttl = now.Add(10*time.Second), nil, 60
	if err := write(c, "some/path"); err != nil {
		t.Errorf("the next login, ten seconds later, must be tried: %v", err)
	}
}

func TestVaultDown_IsRetriedAndNamed(t *testing.T) {
	s, c := newServer(t)
	s.Close()
	_, err := c.Write(t.Context(), "some/path", nil)
	if err == nil || fault.KindOf(err) != fault.Retry || !strings.Contains(err.Error(), "some/path") {
		t.Errorf("want an error of kind retry that names the path, got %v", err)
	}
}

func TestToken_RefusedIsReplacedOnce(t *testing.T) {
	s, _ := newServer(t)
	s.answers["some/path"] = func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") == "token-1" {
			http.Error(w, `{"errors":["permission denied"]}`, http.StatusForbidden)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
	l := &logins{ttl: 60}
	c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Login: l.login})
	if _, err := c.Write(t.Context(), "some/path", nil); err != nil {
		t.Fatalf("a revoked token must be replaced: %v", err)
	}
	if l.n != 2 {
		t.Errorf("want 2 logins, got %d", l.n)
	}
	s.answer("some/path", http.StatusForbidden, `{"errors":["permission denied"]}`)
	if _, err := c.Write(t.Context(), "some/path", nil); err == nil || !strings.Contains(err.Error(), "grant") {
		t.Errorf("a 403 for a new token means a missing grant, and the error must say so, got %v", err)
	}
	if l.n != 3 {
		t.Errorf("want 3 logins in all and no loop, got %d", l.n)
	}
}

func TestWarning_IsAFaultIfTheObjectIsAltered(t *testing.T) {
	for name, row := range map[string]struct {
		warning string
		failed  bool
	}{
		"a dropped parameter":              {"Endpoint ignored these unrecognized parameters: [ttl_max]", true},
		"a parameter taken from the path":  {"Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [name]", true},
		"one of two parameters is ignored": {"mutually exclusive values no_store=true and generate_lease=true were both specified; no_store=true takes priority", true},
		"a lifetime that the mount caps": {
			"Given max ttl of 86400 seconds greater than current mount/system default of 3600 seconds; max ttl will be capped at login time", false,
		},
		"an issuer that does not exist yet": {"Issuing Certificate was set to default, but no default issuing certificate (configurable at /config/issuers) is currently set", false},
		"advice on leases":                  {"it is encouraged to disable generate_lease and rely on PKI's native capabilities when possible", false},
		"an unknown one":                    {"the moon is full", false},
	} {
		const beside = "advice beside it"
		t.Run(name, func(t *testing.T) {
			s, _ := newServer(t)
			var log strings.Builder
			c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Login: (&logins{ttl: 60}).login, Log: slog.New(slog.NewTextHandler(&log, nil))})
			for _, path := range []string{"some/path", "some/other"} {
				warnings := fmt.Sprintf("%q", row.warning)
				if row.failed {
					warnings += fmt.Sprintf(", %q", beside)
				}
				s.answer(path, 200, `{"warnings":[`+warnings+`]}`)
				_, err := c.Write(t.Context(), path, map[string]any{"ttl_max": "1h"})
				if (err != nil) != row.failed || (err != nil && (fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), row.warning))) {
					t.Errorf("want a refusal (%v) that repeats the warning, since Vault will store the same again; got %v", row.failed, err)
				}
			}
			want := 1
			if row.failed {
				want = 0
			}
			if n := strings.Count(log.String(), "Vault accepted a write, with advice"); n != want || strings.Count(log.String(), "\n") != want {
				t.Errorf("want %d lines, for advice that is the same for every instance, and none for an altered object, got %d: %s", want, n, log.String())
			}
		})
	}
}

func TestWrite_NamesServerThatIgnoresFields(t *testing.T) {
	s, c := newServer(t)
	s.answer("some/path", 200, `{"warnings":["Endpoint ignored these unrecognized parameters: [serial_number_source]"]}`)
	write := func() error {
		_, err := c.Write(t.Context(), "some/path", map[string]any{"serial_number_source": "json"})
		return err
	}
	for _, known := range []bool{true, false} {
		says := []string{"some/path", "[serial_number_source]", "this server does not know", "remove them"}
		if known {
			s.answer("sys/health", 200, of("1.18.5", "false"))
			says[2] = "Vault 1.18.5 does not know"
		} else {
			delete(s.answers, "sys/health")
		}
		err := write()
		for _, part := range says {
			if err == nil || !strings.Contains(err.Error(), part) || fault.KindOf(err) != fault.Refuse {
				t.Errorf("server known %v: want a refusal that says %q, so that its reader knows what to change, got %v", known, part, err)
			}
		}
	}
}

func TestDelete_OfAbsentPathSucceeds(t *testing.T) {
	s, c := newServer(t)
	s.answer("gone", 404, `{"errors":[]}`)
	if err := c.Delete(t.Context(), "gone"); err != nil {
		t.Error(err)
	}
}

func TestToken_ExpiresByWallClockTime(t *testing.T) {
	s, _ := newServer(t)
	l := &logins{ttl: 900}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Login: l.login, Now: func() time.Time { return now }})
	for _, step := range []struct {
		after time.Duration
		want  int
		why   string
	}{
		{0, 1, "the first call logs in"},
		{9 * time.Minute, 1, "a warm sandbox uses the token it has"},
		{2 * time.Minute, 2, "after two thirds of its lifetime it is replaced"},
		{24 * time.Hour, 3, "a sandbox frozen for a day must not trust its token"},
		{-time.Hour, 4, "a sandbox whose clock went back must not trust its token"},
	} {
		now = now.Add(step.after)
		if _, err := c.Write(t.Context(), "some/path", nil); err != nil {
			t.Fatal(err)
		}
		if l.n != step.want {
			t.Errorf("%s: want %d logins, got %d", step.why, step.want, l.n)
		}
	}
}

func TestToken_IsRenewedElseReplaced(t *testing.T) {
	s, _ := newServer(t)
	l := &logins{ttl: 900, renewable: true}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Login: l.login, Now: func() time.Time { return now }})
	call := func() {
		t.Helper()
		if _, err := c.Write(t.Context(), "some/path", nil); err != nil {
			t.Fatal(err)
		}
	}
	call()
	s.answer("auth/token/renew-self", 200, `{"auth":{"client_token":"token-1","lease_duration":900,"renewable":true}}`)
	now = now.Add(11 * time.Minute)
	call()
	if l.n != 1 {
		t.Errorf("want the token renewed and not replaced: %d logins, calls %q", l.n, s.calls)
	}
	s.answer("auth/token/renew-self", 200, `{"auth":{"client_token":"token-1","lease_duration":60,"renewable":true}}`)
	now = now.Add(11 * time.Minute)
	call()
	if l.n != 2 {
		t.Errorf("a token near its maximum lifetime is renewed for too short a time and must be replaced: %d logins", l.n)
	}
}

func TestLogin_FailureNamesMountAndAddress(t *testing.T) {
	s, _ := newServer(t)
	s.answer("auth/fleet/login", 400, `{"errors":["role not found"]}`)
	read := func(context.Context) ([]byte, error) { return []byte(`{"role_id":"r","secret_id":"hush"}`), nil }
	c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Login: vault.AppRole{Mount: "fleet", Secret: read}.Login})
	_, err := c.Write(t.Context(), "some/path", nil)
	if fault.KindOf(err) != fault.Retry {
		t.Errorf("a failed login is a matter of setup: the event must wait for a person, got kind %s", fault.KindOf(err))
	}
	for _, part := range []string{"auth/fleet", "role not found", s.URL} {
		if !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("the error must say %q: %v", part, err)
		}
	}
	if strings.Contains(fmt.Sprint(err), "hush") {
		t.Errorf("the error holds the secret ID: %v", err)
	}
}

func TestLoginSecret_BadIsNamedNotShown(t *testing.T) {
	for name, text := range map[string]string{"no JSON": "hush", "a list": `["hush"]`, "another key": `{"password":"hush"}`} {
		t.Run(name, func(t *testing.T) {
			s, _ := newServer(t)
			read := func(context.Context) ([]byte, error) { return []byte(text), nil }
			for _, login := range []vault.Login{vault.AppRole{Mount: "approle", Secret: read}.Login, vault.Token{Secret: read}.Login} {
				_, err := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Login: login}).Write(t.Context(), "some/path", nil)
				if err == nil || !strings.Contains(err.Error(), "VAULT_LOGIN_SECRET_ARN") || strings.Contains(err.Error(), "hush") {
					t.Errorf("want an error that names the variable and not the value, got %v", err)
				}
			}
		})
	}
}

func TestUnreadableCA_IsNamedAndReadAgain(t *testing.T) {
	s, _ := newServer(t)
	bundles := []struct {
		text string
		err  error
	}{{"", errors.New("ResourceNotFoundException")}, {"no pem", nil}, {otherCertificate, nil}}
	n := 0
	c := vault.New(vault.Options{Addr: s.URL, Login: (&logins{ttl: 60}).login, CA: func(ctx context.Context) ([]byte, error) {
		if n == len(bundles) {
			return s.ca(ctx)
		}
		n++
		return []byte(bundles[n-1].text), bundles[n-1].err
	}})
	for i, says := range []string{"ResourceNotFoundException", "no certificate in PEM", "VAULT_CA_SECRET_ARN"} {
		_, err := c.Write(t.Context(), "some/path", nil)
		if fault.KindOf(err) != fault.Retry || !strings.Contains(fmt.Sprint(err), says) {
			t.Errorf("bundle %d: want an error of kind retry that says %q, got %v", i, says, err)
		}
	}
	if _, err := c.Write(t.Context(), "some/path", nil); err != nil {
		t.Errorf("the next call must find the corrected secret without a new sandbox: %v", err)
	}
}

func TestCutOff_LeavesASharedEntity(t *testing.T) {
	s, c := newServer(t)
	s.answer("sys/internal/ui/mounts/auth/aws", 200, `{"data":{"accessor":"auth_aws_1"}}`)
	s.answer("auth/aws/config/identity", 200, `{"data":{"ec2_alias":"instance_id","iam_alias":"role_id"}}`)
	s.answers["identity/lookup/entity"] = func(w http.ResponseWriter, r *http.Request) {
		var body map[string]string
		_ = json.NewDecoder(r.Body).Decode(&body)
		switch {
		case body["alias_mount_accessor"] != "auth_aws_1" || body["alias_name"] == "i-broken":
			http.Error(w, "{}", 500)
		case body["alias_name"] == "role-id":
			fmt.Fprint(w, `{"data":{"id":"e1","aliases":[{"mount_accessor":"auth_aws_1","mount_path":"auth/aws/"}]}}`)
		case body["alias_name"] == "i-merged":
			fmt.Fprint(w, `{"data":{"id":"e2","aliases":[{"mount_accessor":"auth_aws_1"},{"mount_accessor":"auth_ldap_9","mount_path":"auth/ldap/"}]}}`)
		case body["alias_name"] == "operators-role":
			fmt.Fprint(w, `{"data":{"id":"e3","aliases":[{"mount_accessor":"auth_aws_1","metadata":{"auth_type":"iam"}}]}}`)
		case body["alias_name"] == "named-role":
			fmt.Fprint(w, `{"data":{"id":"e4","aliases":[{"mount_accessor":"auth_aws_1","metadata":{"inferred_entity_id":"i-own"}}]}}`)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	}
	m, err := c.LoginMount(t.Context(), "aws")
	if want := (vault.LoginMount{Path: "aws", Accessor: "auth_aws_1", EC2Alias: "instance_id", IAMAlias: "role_id"}); err != nil || m != want {
		t.Fatalf("want %+v, got %+v, %v", want, m, err)
	}
	n, err := c.CutOff(t.Context(), m, vault.Cut{InstanceID: "i-own", Sure: []string{"role-id", "i-unknown"}})
	if err != nil || n != 1 {
		t.Errorf("want one entity deleted and the missing one skipped, got %d, %v", n, err)
	}
	n, err = c.CutOff(t.Context(), m, vault.Cut{InstanceID: "i-own", Sure: []string{"i-merged"}})
	if n != 0 || fault.KindOf(err) != fault.Conflict {
		t.Errorf("an entity merged with another client's must be left alone as a conflict, got %d, %v", n, err)
	}
	n, err = c.CutOff(t.Context(), m, vault.Cut{InstanceID: "i-own", Recorded: []string{"named-role", "operators-role"}})
	if n != 1 || fault.KindOf(err) != fault.Conflict {
		t.Errorf("of two recorded aliases, want the entity that names the instance cut and the other left as a conflict, got %d, %v: else a writer of the ledger could log out any client", n, err)
	}
	n, err = c.CutOff(t.Context(), m, vault.Cut{InstanceID: "i-own", Sure: []string{"i-broken", "role-id"}})
	if n != 1 || fault.KindOf(err) != fault.Retry {
		t.Errorf("one look-up fails: want the other entity deleted now, and another try, got %d, %v", n, err)
	}
	for _, call := range s.calls {
		deletes := strings.HasPrefix(call, "DELETE")
		expected := strings.Contains(call, "identity/entity/id/e1") || strings.Contains(call, "identity/entity/id/e4")
		if deletes && !expected {
			t.Errorf("unexpected %s", call)
		}
	}
}

// A connection with a token, and that for the server's health, are clones, which lose headers by default.
func TestUserAgent_IsInEveryRequest(t *testing.T) {
	var seen []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.URL.Path+" "+r.Header.Get("User-Agent"))
		w.WriteHeader(http.StatusNoContent)
	}))
	defer s.Close()
	c := vault.New(vault.Options{Addr: s.URL, Namespace: "team", Login: (&logins{ttl: 60}).login, UserAgent: "program/v1"})
	_, _ = c.Health(t.Context())
	_ = c.CheckNamespace(t.Context())
	_, _ = c.Read(t.Context(), "kv/a")
	if len(seen) < 3 {
		t.Fatalf("want three requests, got %q", seen)
	}
	for _, request := range seen {
		if !strings.HasSuffix(request, " program/v1") {
			t.Errorf("want the user agent program/v1, got %q", request)
		}
	}
}
