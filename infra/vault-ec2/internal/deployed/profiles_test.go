package deployed

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// tableOf returns the configuration for a table with items, in DynamoDB's JSON, by key.
func tableOf(t *testing.T, items map[string]string) aws.Config {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var get struct {
			Key struct{ PK struct{ S string } }
		}
		_ = json.NewDecoder(r.Body).Decode(&get)
		if item := items[get.Key.PK.S]; item != "" {
			fmt.Fprintf(w, `{"Item":%s}`, item)
			return
		}
		fmt.Fprint(w, `{}`)
	}))
	t.Cleanup(server.Close)
	return aws.Config{Region: "us-east-1", BaseEndpoint: &server.URL, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}
}

// The set-up of Vault takes these profiles. Rights for others would take away those that the functions need.
func TestPresent_IsWhatTheFunctionsUse(t *testing.T) {
	b, err := bundle.Pack(templates.FS)
	if err != nil {
		t.Fatal(err)
	}
	held := fmt.Sprintf(`{"packed":{"B":%q}}`, base64.StdEncoding.EncodeToString(b.Packed))
	active := fmt.Sprintf(`{"versions":{"L":[{"M":{"digest":{"S":%q},"activated_at":{"S":"2026-01-02T03:04:05Z"}}}]}}`, b.Digest)
	other := strings.Repeat("0", 64)
	for name, row := range map[string]struct {
		uses  string
		items map[string]string
		ok    bool
		says  string // of the error; empty for none
	}{
		"built-in ones":                {BuiltIn, nil, false, ""},
		"of a stack of before":         {"", nil, false, ""},
		"the active ones":              {Active, map[string]string{"profiles": active, "profiles#" + b.Digest: held}, true, ""},
		"pinned ones, with the former": {b.Digest + "," + other, map[string]string{"profiles#" + b.Digest: held}, true, ""},
		"none active yet":              {Active, nil, false, "none are active yet"},
		"lost ones":                    {Active, map[string]string{"profiles": active}, false, "no such bundle"},
		"changed ones":                 {other, map[string]string{"profiles#" + other: held}, false, "another digest"},
	} {
		t.Run(name, func(t *testing.T) {
			s := Stack{Outputs: map[string]string{"TableName": "ledger"}, Parameters: map[string]string{"Profiles": row.uses, "MaxCertificateTTL": "720h"}}
			store, err := s.ProfileStore(tableOf(t, row.items))
			if err != nil {
				t.Fatal(err)
			}
			got, ok, err := store.Present(t.Context())
			if ok != row.ok || (ok && got.Digest != b.Digest) || (err != nil) != (row.says != "") || (err != nil && !strings.Contains(err.Error(), row.says)) {
				t.Errorf("want profiles: %v, and an error that says %q; got %s, %v, %v", row.ok, row.says, got.Digest, ok, err)
			}
		})
	}
}

func TestProfileStore_NeedsItsTable(t *testing.T) {
	if _, err := (Stack{}).ProfileStore(aws.Config{}); err == nil || !strings.Contains(err.Error(), "--stack") {
		t.Errorf("want an error that says how the table is named, got %v", err)
	}
	wrong := Stack{Outputs: map[string]string{"TableName": "ledger"}, Parameters: map[string]string{"MaxCertificateTTL": "a year"}}
	if _, err := wrong.ProfileStore(aws.Config{}); err == nil || !strings.Contains(err.Error(), "MaxCertificateTTL") {
		t.Errorf("want an error that names the parameter, got %v", err)
	}
}
