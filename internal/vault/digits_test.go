package vault_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// The functions' policies restrict these numbers, and Vault's ACL compares only strings correctly.
func TestWrite_SendsAuthRoleNumbersAsDigits(t *testing.T) {
	for path, want := range map[string]string{
		"auth/aws/role/i-1": `{"bound_region":["us-east-1"],"token_no_default_policy":true,"token_period":"0","token_ttl":"3600"}`,
		"secret/data/i-1":   `{"bound_region":["us-east-1"],"token_no_default_policy":true,"token_period":0,"token_ttl":3600}`,
	} {
		s, c := newServer(t)
		var sent string
		s.answers[path] = func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			sent = strings.TrimSpace(string(body))
			w.WriteHeader(http.StatusNoContent)
		}
		fields := map[string]any{
			"token_ttl": int64(3600), "token_period": int64(0), "token_no_default_policy": true, "bound_region": []string{"us-east-1"},
		}
		if _, err := c.Write(t.Context(), path, fields); err != nil || sent != want {
			t.Errorf("%s: sent %s, want %s (%v)", path, sent, want, err)
		}
		if fields["token_period"] != int64(0) {
			t.Errorf("%s: the caller's fields were changed to %v, but they are still needed to compare with Vault's", path, fields)
		}
	}
}
