package vault_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

func TestRequest_IsMeasuredWithItsThrottling(t *testing.T) {
	s, _ := newServer(t)
	s.answer("busy", http.StatusTooManyRequests, `{"errors":["rate limit quota exceeded"]}`)
	s.answer("thing", http.StatusOK, `{"data":{"a":1}}`)
	type call struct {
		took      time.Duration
		throttled bool
	}
	var calls []call
	c := vault.New(vault.Options{
		Addr: s.URL, CA: s.ca, Login: (&logins{}).login,
		Observe: func(took time.Duration, throttled bool) { calls = append(calls, call{took, throttled}) },
	})
	if _, err := c.Read(t.Context(), "thing"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(t.Context(), "busy"); err == nil {
		t.Fatal("want a throttled request to fail")
	}
	if len(calls) != 2 || calls[0].throttled || !calls[1].throttled || calls[0].took <= 0 || calls[0].took > time.Minute {
		t.Errorf("want one request as it should be and one throttled, each with its time, got %+v", calls)
	}
}
