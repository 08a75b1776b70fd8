package setup

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
)

// server answers as a Vault whose config/sts has the named fields, none for a description without fields, and records the
// writes. The integration tests ask the lab's own Vault.
func server(t *testing.T, health string, fields ...string) (*setup, *[]string) {
	t.Helper()
	var properties, writes []string
	for _, f := range fields {
		properties = append(properties, fmt.Sprintf(`%q:{"type":"string"}`, f))
	}
	answers := map[string]string{
		"/v1/sys/health": health, "/v1/sys/auth": `{"data":{"aws/":{"type":"aws"}}}`,
		"/v1/auth/aws/config/sts/111122223333?help=1": `{"help":"h","openapi":{"components":{"schemas":{"AwsWriteStsRoleRequest":{"properties":{` + strings.Join(properties, ",") + `}}}}}}`,
	}
	if len(fields) == 0 {
		answers["/v1/auth/aws/config/sts/111122223333?help=1"] = `{"help":"h"}`
	}
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at := r.URL.Path
		if r.URL.Query().Has("help") {
			at += "?help=1"
		}
		answer, known := answers[at]
		switch {
		case r.Method == http.MethodPut:
			body, _ := io.ReadAll(r.Body)
			writes = append(writes, at+" "+string(body))
			w.WriteHeader(http.StatusNoContent)
		case known:
			fmt.Fprint(w, answer)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"errors":[]}`)
		}
	}))
	t.Cleanup(listener.Close)
	client, err := api.NewClient(&api.Config{Address: listener.URL, MaxRetries: 0})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{AuthMount: "aws", STSExternalID: "secret-of-the-stack", STSRoles: map[string]string{"111122223333": "arn:aws:iam::111122223333:role/vault"}}
	return &setup{Options: o, vault: client.Logical(), api: client, out: io.Discard, made: map[string]bool{}}, &writes
}

const (
	vault21 = `{"version":"1.21.0","enterprise":false}`
	vault16 = `{"version":"1.16.3","enterprise":false}`
	openBao = `{"version":"2.5.5"}`
)

func TestExternalID_IsStoredOrRefused(t *testing.T) {
	for name, row := range map[string]struct {
		health string
		fields []string
		change func(*setup)
		says   []string // of the error; none: it is written
		writes string
	}{
		"a server that knows it": {health: vault21, fields: []string{"external_id", "sts_role"}, writes: `"external_id":"secret-of-the-stack"`},
		"Vault 1.16":             {health: vault16, fields: []string{"sts_role"}, says: []string{"config/sts/111122223333", "Vault 1.16.3", "1.17 or later", "VaultExternalId=none"}},
		"OpenBao":                {health: openBao, fields: []string{"sts_role"}, says: []string{"OpenBao 2.5.5", "No account was written"}},
		"Vault 1.16, no external ID": {
			health: vault16, fields: []string{"sts_role"}, change: func(s *setup) { s.STSExternalID = "" }, writes: `{"sts_role":`,
		},
		"a description without fields": {health: vault21, says: []string{"lists no fields"}},
		"a mount that this run made": {
			health: vault16, fields: []string{"sts_role"}, change: func(s *setup) { s.made["auth/aws"] = true }, says: []string{"Vault 1.16.3"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, writes := server(t, row.health, row.fields...)
			if row.change != nil {
				row.change(s)
			}
			err := s.checkExternalID(t.Context())
			if err == nil || s.made["auth/aws"] {
				err = s.accounts(t.Context())
			}
			if len(row.says) == 0 && (err != nil || len(*writes) != 1 || !strings.Contains((*writes)[0], row.writes)) {
				t.Errorf("want one write with %s, got %q, %v", row.writes, *writes, err)
			}
			if missing := slices.DeleteFunc(slices.Clone(row.says), func(s string) bool { return err != nil && strings.Contains(err.Error(), s) }); len(missing) > 0 || (err != nil && len(*writes) > 0) {
				t.Errorf("want an error that says %q and nothing written, since Vault would drop the external ID in silence; got %v, writes %q", missing, err, *writes)
			}
			if err != nil && strings.Contains(err.Error(), "secret-of-the-stack") {
				t.Errorf("the error has the external ID: %v", err)
			}
		})
	}
}
