package sandbox

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// maxPayload is Lambda's limit for a synchronous response.
const maxPayload = 6 << 20

// invocation is one event on its way through the Runtime API.
type invocation struct {
	id, arn  string
	payload  []byte
	deadline time.Time
	outcome  chan outcome // buffered: the handler must not wait for the invoker
}

// outcome is the function's response or error.
type outcome struct {
	body   []byte
	failed bool
}

// runtimeAPI serves one process. A restarted process gets a new one, so that the
// pending poll of a dead process cannot consume the next event.
type runtimeAPI struct {
	server *http.Server
	addr   string
	next   chan *invocation
	ready  chan struct{} // closed at the first poll: the init phase is over
	broken chan []byte   // the init error that the process posted

	mu      sync.Mutex
	polled  bool
	current *invocation
}

func serveRuntimeAPI() (*runtimeAPI, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the Runtime API: %w", err)
	}
	a := &runtimeAPI{
		addr: ln.Addr().String(), next: make(chan *invocation),
		ready: make(chan struct{}), broken: make(chan []byte, 1),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", a.poll)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", func(w http.ResponseWriter, r *http.Request) { a.finish(w, r, false) })
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", func(w http.ResponseWriter, r *http.Request) { a.finish(w, r, true) })
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", a.initError)
	// A function that asks for SIGTERM registers an extension that waits for events.
	mux.HandleFunc("POST /2020-01-01/extension/register", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Lambda-Extension-Identifier", "lab")
		_, _ = io.WriteString(w, "{}")
	})
	mux.HandleFunc("GET /2020-01-01/extension/event/next", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	a.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = a.server.Serve(ln) }()
	return a, nil
}

func (a *runtimeAPI) close() { _ = a.server.Close() }

func (a *runtimeAPI) poll(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	if !a.polled {
		a.polled = true
		close(a.ready)
	}
	a.mu.Unlock()
	select {
	case <-r.Context().Done():
	case inv := <-a.next:
		a.mu.Lock()
		a.current = inv
		a.mu.Unlock()
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Lambda-Runtime-Aws-Request-Id", inv.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(inv.deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", inv.arn)
		h.Set("Lambda-Runtime-Trace-Id", "Root=1-"+strconv.FormatInt(time.Now().Unix(), 16)+"-"+inv.id[:24]+";Sampled=0")
		_, _ = w.Write(inv.payload)
	}
}

func (a *runtimeAPI) finish(w http.ResponseWriter, r *http.Request, failed bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPayload))
	a.mu.Lock()
	inv := a.current
	if inv != nil && inv.id == r.PathValue("id") {
		a.current = nil
	} else {
		inv = nil
	}
	a.mu.Unlock()
	var tooLarge *http.MaxBytesError
	switch {
	case inv == nil:
		http.Error(w, `{"errorType":"InvalidRequestID"}`, http.StatusBadRequest)
		return
	case errors.As(err, &tooLarge):
		inv.outcome <- outcome{body: failure("Function.ResponseSizeTooLarge", "Response payload size exceeded maximum allowed payload size (6291556 bytes)."), failed: true}
		http.Error(w, `{"errorType":"RequestEntityTooLarge"}`, http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	inv.outcome <- outcome{body: body, failed: failed}
	w.WriteHeader(http.StatusAccepted)
}

func (a *runtimeAPI) initError(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPayload))
	select {
	case a.broken <- body:
	default:
	}
	w.WriteHeader(http.StatusAccepted)
}
