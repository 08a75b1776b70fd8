package wire

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestBalancer_UsesOnlyUsableBackends(t *testing.T) {
	const every = 20 * time.Millisecond
	var usable [2]atomic.Bool
	var backends []Backend
	for n := range usable {
		usable[n].Store(true)
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, string(rune('a'+n))+" "+r.RemoteAddr)
		}))
		t.Cleanup(s.Close)
		backends = append(backends, Backend{Address: s.Listener.Addr().String(), Usable: func(context.Context) bool { return usable[n].Load() }})
	}
	b, err := Balance(backends, every)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	if err := b.WaitUsable(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 16, 0, 9)}}).DialContext,
	}}
	ask := func() (string, error) {
		res, err := client.Get("http://" + b.Address)
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		return string(text), err
	}
	first, err := ask()
	if err != nil || !strings.Contains(first, " 127.16.0.9:") {
		t.Fatalf("want an answer to the client's own address, got %q, %v: a token bound to an address would be refused", first, err)
	}
	usable[first[0]-'a'].Store(false)
	time.Sleep(5 * every)
	// The kept connection was closed, so that the same client reaches the other backend.
	if second, err := ask(); err != nil || second[0] == first[0] {
		t.Errorf("want the other backend when %q has become unusable, got %q, %v", first[:1], second, err)
	}
	usable[0].Store(false)
	usable[1].Store(false)
	time.Sleep(5 * every)
	if text, err := ask(); err == nil {
		t.Errorf("want the connection closed without a usable backend, got %q", text)
	}
}
