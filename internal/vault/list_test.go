package vault_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

func TestList_IsCompleteOrAnError(t *testing.T) {
	for name, row := range map[string]struct {
		status int
		body   string
		want   []string
		says   string // of the error; empty for none
		absent bool   // the error is ErrNotMounted
	}{
		"some names":                      {http.StatusOK, `{"data":{"keys":["b","a"]}}`, []string{"b", "a"}, "", false},
		"names that JSON escapes":         {http.StatusOK, `{"data":{"keys":["a\u003c\"b","c"]}}`, []string{`a<"b`, "c"}, "", false},
		"names with brackets and commas":  {http.StatusOK, `{"data":{"keys":["a]b","c,d"]}}`, []string{"a]b", "c,d"}, "", false},
		"an answer with spaces":           {http.StatusOK, `{"request_id":"x", "data": {"keys": ["a", "b"]}}`, []string{"a", "b"}, "", false},
		"a list of no names":              {http.StatusOK, `{"data":{"keys":[]}}`, []string{}, "", false},
		"an answer cut off in the list":   {http.StatusOK, `{"data":{"keys":["b","a"],`, nil, "decoding the answer", false},
		"an empty folder":                 {http.StatusNotFound, `{"errors":[]}`, nil, "", false},
		"a path where nothing is mounted": {http.StatusNotFound, `{"errors":["no handler for route \"x/roles\". route entry not found."]}`, nil, "no handler", true},
		"a mount that is being disabled":  {http.StatusNotFound, `{"errors":["no handler for route \"x/roles\". route entry is tainted."]}`, nil, "tainted", false},
		"a mount without its plugin":      {http.StatusNotFound, `{"errors":["no handler for route \"x/roles\". route entry found, but backend is nil."]}`, nil, "backend is nil", false},
		"a path that the mount lacks":     {http.StatusNotFound, `{"errors":["unsupported path"]}`, nil, "unsupported path", false},
		"no right to list":                {http.StatusForbidden, `{"errors":["permission denied"]}`, nil, "permission denied", false},
		"a storage that does not answer":  {http.StatusInternalServerError, `{"errors":["away"]}`, nil, "away", false},
		"a wrapped answer":                {http.StatusOK, `{"data":null,"wrap_info":{"token":"x"}}`, nil, "no names", false},
		"an answer without names":         {http.StatusOK, `{"data":{}}`, nil, "no names", false},
		"half an answer":                  {http.StatusOK, `{"data":{"keys":["b",`, nil, "decoding the answer", false},
	} {
		t.Run(name, func(t *testing.T) {
			s, c := newServer(t)
			s.answer("x/roles", row.status, row.body)
			got, err := c.List(t.Context(), "x/roles")
			if row.says == "" && (err != nil || !slices.Equal(got, row.want)) {
				t.Errorf("want %v, got %v, %v", row.want, got, err)
			}
			if row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), "listing x/roles")) {
				t.Errorf("want an error that names the folder and says %q, got %v, %v", row.says, got, err)
			}
			if errors.Is(err, vault.ErrNotMounted) != row.absent {
				t.Errorf("want ErrNotMounted: %v, since only a folder without a mount is known to hold nothing; got %v", row.absent, err)
			}
		})
	}
}

func TestIssuers_HaveNameAndDefault(t *testing.T) {
	s, c := newServer(t)
	s.answer("p/issuers", http.StatusOK, `{"data":{"keys":["1","2"],"key_info":{"1":{"issuer_name":"root","is_default":true,"key_id":"k"},"2":{"issuer_name":""}}}}`)
	got, err := c.Issuers(t.Context(), "p")
	if err != nil || len(got) != 2 || got[0].ID != "1" || got[0].Name != "root" || got[0].IsDefault == nil || !*got[0].IsDefault {
		t.Errorf("want the issuer root as the default one, got %+v, %v", got, err)
	}
	if len(got) == 2 && (got[1].ID != "2" || got[1].Name != "" || got[1].IsDefault != nil) {
		t.Errorf("want an issuer without a name, of which nothing else is known, got %+v", got[1])
	}
}
