package vaulttest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/vault/api"
)

// Standby plays a server that answers reads itself and is behind the active one, as a performance standby of Vault Enterprise
// is. It knows reads, lists, writes and deletes. It follows Vault's documentation and http/handler.go of its sources: no
// Enterprise server runs in a test.
type Standby struct {
	*Vault // of the active server
	// Behind is the number of reads after a write that are answered from before it.
	Behind int
	// Index has answers to writes name the state of the storage, and reads that require a newer one than this server has fail.
	Index bool
	// Forwards is allow_forwarding_via_header.
	Forwards bool

	mu sync.Mutex
	// old is the content while left reads are to be answered from it, at the state seen.
	old         map[string]map[string]any
	left        int
	seen, state int
	answers     []string
}

// Start starts the server, which ends with the test. It returns its address.
func (s *Standby) Start(end func(func())) string {
	server := httptest.NewServer(s)
	end(server.Close)
	return server.URL
}

// FallBehind has the next reads answered from content.
func (s *Standby) FallBehind(reads int, content map[string]map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.old, s.left = content, reads
	s.state++
}

// Count returns the number of answers with a prefix. Each is the status and the method, with "index" for a request that
// requires a state and "forward" for one that may be forwarded.
func (s *Standby) Count(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.answers {
		if strings.HasPrefix(a, prefix) {
			n++
		}
	}
	return n
}

// ServeHTTP answers one request.
func (s *Standby) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status, body := s.answer(w, r)
	note := fmt.Sprint(status, " ", r.Method)
	if r.Header.Get(api.HeaderIndex) != "" {
		note += " index"
	}
	if r.Header.Get(api.HeaderInconsistent) != "" {
		note += " forward"
	}
	s.answers = append(s.answers, note)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (s *Standby) answer(w http.ResponseWriter, r *http.Request) (status int, body any) {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	forward := r.Header.Get(api.HeaderInconsistent) != ""
	if forward && !s.Forwards {
		return http.StatusBadRequest, refusal("forwarding via header " + api.HeaderInconsistent + "=forward-active-node disabled in configuration")
	}
	active := Client{Vault: s.Vault}
	if r.Method != http.MethodGet {
		return s.change(w, r, active, path)
	}
	client, isOld := active, s.left > 0
	if isOld {
		isMissing := s.Index && s.isMissing(r.Header.Values(api.HeaderIndex))
		if isMissing && forward {
			return read(r, active, path)
		}
		client = Client{Vault: &Vault{Objects: s.old}}
		if s.left--; s.left == 0 {
			s.seen = s.state
		}
		if isMissing {
			return http.StatusPreconditionFailed, refusal("required index state not present")
		}
	}
	return read(r, client, path)
}

// change makes a write or a delete, which any server has the active one do.
func (s *Standby) change(w http.ResponseWriter, r *http.Request, active Client, path string) (status int, body any) {
	if s.left == 0 {
		s.old, s.seen = maps.Clone(s.Objects), s.state
	}
	var answer map[string]any
	var err error
	if r.Method == http.MethodDelete {
		err = active.Delete(r.Context(), path)
	} else {
		var fields map[string]any
		d := json.NewDecoder(r.Body)
		d.UseNumber()
		if err = d.Decode(&fields); err == nil {
			answer, err = active.Write(r.Context(), path, fields)
		}
	}
	if err != nil {
		return http.StatusBadRequest, refusal(err.Error())
	}
	s.state++
	if s.left = s.Behind; s.left == 0 {
		s.seen = s.state
	}
	if s.Index {
		index := fmt.Sprintf("v1:cluster:%d:0:00", s.state)
		w.Header().Set(api.HeaderIndex, base64.StdEncoding.EncodeToString([]byte(index)))
	}
	if answer != nil {
		return http.StatusOK, map[string]any{"data": answer}
	}
	return http.StatusOK, nil
}

// isMissing reports whether this server lacks one of the required states.
func (s *Standby) isMissing(required []string) bool {
	return slices.ContainsFunc(required, func(index string) bool {
		state, err := api.ParseReplicationState(index, nil)
		return err != nil || state.LocalIndex > uint64(s.seen) //nolint:gosec // a small count
	})
}

func read(r *http.Request, c Client, path string) (status int, body any) {
	var data any
	if r.URL.Query().Get("list") != "" {
		keys, _ := c.List(r.Context(), path)
		data = map[string]any{"keys": keys}
	} else {
		object, _ := c.Read(r.Context(), path)
		if object == nil {
			return http.StatusNotFound, refusal()
		}
		data = object
	}
	return http.StatusOK, map[string]any{"data": data}
}

// refusal returns Vault's form of an error.
func refusal(texts ...string) any { return map[string]any{"errors": append([]string{}, texts...)} }
