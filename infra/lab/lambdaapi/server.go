package lambdaapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
)

// maxPayload is Lambda's limit for the event of a synchronous invocation.
const maxPayload = 6 << 20

// Invoker runs a function with one event; sandbox.Function implements it.
type Invoker interface {
	Name() string
	Invoke(ctx context.Context, payload []byte) (sandbox.Result, error)
}

// Server serves Invoke on a loopback address until it is closed.
type Server struct {
	URL string

	functions map[string]Invoker
	server    *http.Server
	cancel    context.CancelFunc
}

// Start starts a server for the functions, by their names.
func Start(functions ...Invoker) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for invocations: %w", err)
	}
	running, cancel := context.WithCancel(context.Background())
	s := &Server{URL: "http://" + listener.Addr().String(), functions: map[string]Invoker{}, cancel: cancel}
	for _, f := range functions {
		s.functions[f.Name()] = f
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /2015-03-31/functions/{name}/invocations", func(w http.ResponseWriter, r *http.Request) { s.invoke(running, w, r) })
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.server.Serve(listener) }()
	return s, nil
}

// Close ends the server and the running invocations.
func (s *Server) Close() error {
	s.cancel()
	if err := s.server.Close(); err != nil {
		return fmt.Errorf("closing Lambda's API at %s: %w", s.URL, err)
	}
	return nil
}

// fault is an answer for an event that did not reach its function.
type fault struct {
	status        int
	kind, message string
}

// invoke runs an event to its end even if the caller disconnects, as Lambda does.
func (s *Server) invoke(running context.Context, w http.ResponseWriter, r *http.Request) {
	result, refused := s.run(running, w, r)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if refused != nil {
		h.Set("X-Amzn-ErrorType", refused.kind)
		w.WriteHeader(refused.status)
		body, _ := json.Marshal(map[string]string{"Type": "User", "Message": refused.message}) // strings cannot fail
		_, _ = w.Write(body)
		return
	}
	h.Set("X-Amzn-RequestId", result.RequestID)
	h.Set("X-Amz-Executed-Version", "$LATEST")
	if result.FunctionError != "" {
		h.Set("X-Amz-Function-Error", result.FunctionError)
	}
	_, _ = w.Write(result.Payload)
}

func (s *Server) run(running context.Context, w http.ResponseWriter, r *http.Request) (sandbox.Result, *fault) {
	var none sandbox.Result
	f, ok := s.functions[functionName(r.PathValue("name"))]
	if !ok {
		return none, &fault{http.StatusNotFound, "ResourceNotFoundException", "Function not found: " + r.PathValue("name")}
	}
	if kind := r.Header.Get("X-Amz-Invocation-Type"); kind != "" && kind != "RequestResponse" {
		return none, &fault{http.StatusBadRequest, "InvalidParameterValueException", "the lab invokes with RequestResponse only, not with " + kind}
	}
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPayload))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return none, &fault{http.StatusRequestEntityTooLarge, "RequestTooLargeException", fmt.Sprintf("the event is larger than %d bytes", maxPayload)}
	case err == nil && len(payload) == 0:
		payload = []byte("{}")
	case err != nil || !json.Valid(payload):
		return none, &fault{http.StatusBadRequest, "InvalidRequestContentException", "Could not parse request body into json"}
	}
	result, err := f.Invoke(running, payload)
	if err != nil {
		return none, &fault{http.StatusInternalServerError, "ServiceException", err.Error()}
	}
	return result, nil
}

// functionName returns the name in an ARN, a partial ARN (account:function:name) or a name with a qualifier.
func functionName(s string) string {
	if _, after, ok := strings.Cut(s, "function:"); ok {
		s = after
	}
	name, _, _ := strings.Cut(s, ":")
	return name
}
