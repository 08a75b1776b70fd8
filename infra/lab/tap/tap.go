package tap

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"time"
)

// maxBody bounds the body of one request.
const maxBody = 32 << 20

// Options configure a tap.
type Options struct {
	Upstream string         // URL of the server
	RootCAs  *x509.CertPool // CAs of the server, if it serves TLS
	TLS      *tls.Config    // serve TLS; nil serves plain HTTP
	Service  string         // overrides the signature's service, for servers without signatures
	// Balanced says that the upstream is a balancer: requests go by several connections, so that they reach several servers,
	// and a request whose server does not answer has its connection cut, as without a tap.
	Balanced bool
}

// Tap is a running proxy.
type Tap struct {
	URL string // for clients

	service string
	server  *http.Server
	proxy   *httputil.ReverseProxy

	mu    sync.Mutex
	calls []*Call
	fault func(Call) *Fault
}

// Start starts a tap on a loopback port.
func Start(o Options) (*Tap, error) {
	upstream, err := url.Parse(o.Upstream)
	if err != nil {
		return nil, fmt.Errorf("reading the tap's upstream %q: %w", o.Upstream, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the tap of %s: %w", o.Upstream, err)
	}
	t := &Tap{service: o.Service, URL: "http://" + ln.Addr().String()}
	t.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(upstream)
			// The signature covers the host that the client used.
			r.Out.Host = r.In.Host
			r.Out.GetBody = r.In.GetBody
		},
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: o.RootCAs},
			ForceAttemptHTTP2:   !o.Balanced,
			DisableCompression:  true,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     30 * time.Second,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if errors.Is(err, context.Canceled) || o.Balanced {
				panic(http.ErrAbortHandler) // the client disconnected, or the server did
			}
			http.Error(w, fmt.Sprintf("tap: %s does not answer: %v", o.Upstream, err), http.StatusBadGateway)
		},
	}
	t.server = &http.Server{
		Handler: http.HandlerFunc(t.serve), TLSConfig: o.TLS, ReadHeaderTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0), // errors of connections of killed clients are expected
	}
	if o.TLS != nil {
		t.URL = "https://" + ln.Addr().String()
		go func() { _ = t.server.ServeTLS(ln, "", "") }()
	} else {
		go func() { _ = t.server.Serve(ln) }()
	}
	return t, nil
}

// Close ends the proxy and its connections.
func (t *Tap) Close() error {
	if transport, ok := t.proxy.Transport.(*http.Transport); ok {
		transport.CloseIdleConnections()
	}
	return t.server.Close()
}

// SetFault sets the hook that returns the fault of each later call. Nil from the
// hook, or a nil hook, forwards the call. The hook may run on several goroutines.
func (t *Tap) SetFault(hook func(Call) *Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fault = hook
}

// Calls returns the recorded calls in the order they began.
func (t *Tap) Calls() []Call {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Call, len(t.calls))
	for i, c := range t.calls {
		out[i] = *c
	}
	return out
}

// Reset clears the recorded calls.
func (t *Tap) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.calls = nil
}

// Count returns the number of recorded calls. An empty service or action matches any.
func (t *Tap) Count(service, action string) int {
	return len(slices.DeleteFunc(t.Calls(), func(c Call) bool {
		return (service != "" && c.Service != service) || (action != "" && c.Action != action)
	}))
}

func (t *Tap) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "tap: reading the request: "+err.Error(), http.StatusBadRequest)
		return
	}
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	// Lets the transport repeat the request when the server has closed an idle connection.
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody() // cannot fail

	c := identify(r, body, t.service)
	t.mu.Lock()
	hook := t.fault
	kept := &c
	t.calls = append(t.calls, kept)
	seen := c
	t.mu.Unlock()

	var fault *Fault
	if hook != nil {
		fault = hook(seen)
	}
	answer := &statusWriter{ResponseWriter: w}
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		kept.Status, kept.Faulted, kept.Duration = answer.status, fault != nil, time.Since(kept.Time)
	}()
	if fault == nil {
		t.proxy.ServeHTTP(answer, r)
		return
	}
	t.play(answer, r, fault)
}

// play applies a fault.
func (t *Tap) play(w *statusWriter, r *http.Request, f *Fault) {
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	switch {
	case f.CutBefore:
		panic(http.ErrAbortHandler)
	case f.CutAfter:
		t.proxy.ServeHTTP(nowhere{}, r)
		panic(http.ErrAbortHandler)
	case f.Status == 0:
		t.proxy.ServeHTTP(w, r)
		return
	case f.Forward:
		t.proxy.ServeHTTP(nowhere{}, r)
	}
	for name, values := range f.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(f.Status)
	_, _ = w.Write(f.Body)
}

// statusWriter records the status that was sent.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets the proxy flush.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// nowhere discards an answer.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}
