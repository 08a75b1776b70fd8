package vault

import (
	"fmt"
	"net/http"
)

// maxRedirects bounds the redirects of one request: each may come from a standby that knows a former leader.
const maxRedirects = 3

// checkRedirect decides about following a redirect of a standby that does not forward to its leader. net/http repeats the
// request with its token: only over TLS, verified as for VAULT_ADDR, and only as the same request.
// https://developer.hashicorp.com/vault/docs/concepts/ha#client-redirection
func checkRedirect(next *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects: no node of Vault is its leader", maxRedirects)
	case first.URL.Scheme == "https" && next.URL.Scheme != "https":
		return fmt.Errorf("not following a redirect from https to %s at %s", next.URL.Scheme, next.URL.Host)
	case next.Method != first.Method:
		return fmt.Errorf("not following a redirect that makes %s of %s, at %s", next.Method, first.Method, next.URL.Host)
	}
	return nil
}

// answerTransport returns an error for an answer that says neither success nor failure: a 3xx that net/http does not follow.
// The api client would take it for success, so that a delete that no node made would count as made.
type answerTransport struct{ wallClockTransport }

// RoundTrip sends one request.
func (t answerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.wallClockTransport.RoundTrip(r)
	if err != nil || answer.StatusCode < 300 || answer.StatusCode > 399 {
		return answer, err
	}
	switch answer.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if answer.Header.Get("Location") != "" {
			return answer, nil // for checkRedirect
		}
	}
	_ = answer.Body.Close()
	return nil, fmt.Errorf("%s answered with status %d, which Vault's API does not have", r.URL.Host, answer.StatusCode)
}
