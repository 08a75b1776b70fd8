package wire

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestWire_DelaysAndSetsTheSourceAddress(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) }))
	defer s.Close()
	const delay = 50 * time.Millisecond
	ln, err := Start(Options{To: s.Listener.Addr().String(), From: net.IPv4(127, 16, 0, 9), Delay: delay})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for n := range 3 {
		start := time.Now()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+ln.Addr().String(), strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		seen, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if took := time.Since(start); err != nil || took < delay {
			t.Errorf("request %d took %s (%v), want at least %s", n, took, err, delay)
		}
		if !strings.HasPrefix(string(seen), "127.16.0.9:") {
			t.Errorf("request %d came from %s, want 127.16.0.9: a token bound to an address would be refused", n, seen)
		}
	}
}
