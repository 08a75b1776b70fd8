package vault_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

const healthy = `{"initialized":true,"sealed":false,"standby":false,"performance_standby":false,"replication_dr_mode":"disabled","version":"1.21.0","enterprise":false}`

func TestHealth_IsReadAtAnyStatus(t *testing.T) {
	ok := vault.Health{Server: vault.Server{Product: vault.HashiCorp, Version: "1.21.0"}, Initialized: true}
	for name, row := range map[string]struct {
		change [2]string
		want   func(*vault.Health)
	}{
		"healthy":                         {[2]string{"", ""}, func(*vault.Health) {}},
		"not initialised":                 {[2]string{`"initialized":true`, `"initialized":false`}, func(h *vault.Health) { h.Initialized = false }},
		"sealed":                          {[2]string{`"sealed":false`, `"sealed":true`}, func(h *vault.Health) { h.Sealed = true }},
		"a standby":                       {[2]string{`"standby":false`, `"standby":true`}, func(h *vault.Health) { h.Standby = true }},
		"a performance standby":           {[2]string{`"performance_standby":false`, `"performance_standby":true`}, func(h *vault.Health) { h.Standby = true }},
		"a disaster recovery secondary":   {[2]string{`"disabled"`, `"secondary"`}, func(h *vault.Health) { h.DRSecondary = true }},
		"a detached standby":              {[2]string{`"standby":false`, `"standby":true,"ha_connection_healthy":false`}, func(h *vault.Health) { h.Standby, h.Detached = true, true }},
		"a standby in its cluster":        {[2]string{`"standby":false`, `"standby":true,"ha_connection_healthy":true`}, func(h *vault.Health) { h.Standby = true }},
		"a removed server":                {[2]string{`"sealed":false`, `"sealed":false,"removed_from_cluster":true`}, func(h *vault.Health) { h.Detached = true }},
		"a server that was never removed": {[2]string{`"sealed":false`, `"sealed":false,"removed_from_cluster":false`}, func(*vault.Health) {}},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t)
			s.answer("sys/health", 299, strings.Replace(healthy, row.change[0], row.change[1], 1))
			want := ok
			row.want(&want)
			got, err := c.Health(t.Context())
			if err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		})
	}
}

func TestHealth_NeedsNoTokenOrNamespace(t *testing.T) {
	s, _ := newServer(t)
	var query, namespace string
	s.answers["sys/health"] = func(w http.ResponseWriter, r *http.Request) {
		query, namespace = r.URL.RawQuery, r.Header.Get("X-Vault-Namespace")
		fmt.Fprint(w, healthy)
	}
	l := &logins{err: errors.New("the login does not work")}
	c := vault.New(vault.Options{Addr: s.URL, CA: s.ca, Namespace: "team", Login: l.login})
	if _, err := c.Health(t.Context()); err != nil {
		t.Fatalf("health must be readable where no login works: %v", err)
	}
	if namespace != "" || !slices.Equal(s.calls, []string{"GET sys/health "}) {
		t.Errorf("want one call without token and namespace, got %q in namespace %q", s.calls, namespace)
	}
	for _, code := range []string{"sealedcode", "uninitcode", "standbycode", "performancestandbycode", "drsecondarycode"} {
		if !strings.Contains(query, code) {
			t.Errorf("the query %q must contain %s, which makes the answer no error", query, code)
		}
	}
	if err := c.Login(t.Context()); err == nil || !strings.Contains(err.Error(), "the login does not work") {
		t.Errorf("want the login's fault, got %v", err)
	}
}

func TestHealth_FailureNamesAddressAndReason(t *testing.T) {
	s, c := newServer(t)
	s.answer("sys/health", 502, `{"errors":["no server\nis there"]}`)
	_, err := c.Health(t.Context())
	for _, part := range []string{s.URL, "502", "no server is there"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("the error must say %q: %v", part, err)
		}
	}
	other, _ := newServer(t) // without its CA, so that the system's roots are used
	_, err = vault.New(vault.Options{Addr: other.URL, Login: (&logins{}).login}).Health(t.Context())
	if err == nil || !strings.Contains(err.Error(), "VAULT_CA_SECRET_ARN") {
		t.Errorf("want an error that names VAULT_CA_SECRET_ARN, got %v", err)
	}
}

func TestCapabilities_AskOnceForAllPaths(t *testing.T) {
	s, c := newServer(t)
	var asked struct{ Paths []string }
	s.answers["sys/capabilities-self"] = func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(body, &asked)
		fmt.Fprint(w, `{"data":{"a/b":["read","update"],"c":["deny"],"capabilities":["read"]}}`)
	}
	got, err := c.Capabilities(t.Context(), []string{"a/b", "c"})
	if err != nil || len(got) != 2 || !slices.Equal(got["a/b"], []string{"read", "update"}) || !slices.Equal(got["c"], []string{"deny"}) {
		t.Errorf("got %v, %v", got, err)
	}
	if !slices.Equal(asked.Paths, []string{"a/b", "c"}) || len(s.calls) != 1 {
		t.Errorf("want one call for both paths, got %q in %q", asked.Paths, s.calls)
	}
}

func TestCapabilities_PartialAnswerIsAnError(t *testing.T) {
	for name, row := range map[string]struct{ body, says string }{
		"a path left out":         {`{"data":{"a/b":["read"]}}`, "leaves out c"},
		"a path with nothing":     {`{"data":{"a/b":["read"],"c":[]}}`, "leaves out c"},
		"no data":                 {`{}`, "leaves out a/b"},
		"a value of another type": {`{"data":{"a/b":["read"],"c":[1]}}`, "c holds a json.Number"},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t)
			s.answer("sys/capabilities-self", 200, row.body)
			got, err := c.Capabilities(t.Context(), []string{"a/b", "c"})
			if err == nil || got != nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("want an error that says %q for an incomplete answer, got %v, %v", row.says, got, err)
			}
		})
	}
}
