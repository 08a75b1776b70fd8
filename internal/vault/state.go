package vault

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
)

// state is the state of the server's storage after this client's last writes, as the server names it in a header of its answers
// to writes and logins. Reads require it, so that no server answers them from before those writes. It is one merged state,
// however many objects were written. Vault Community and OpenBao before 2.7 name none, and their requests carry no header more.
//
// A client is one sandbox, and knows nothing of the writes of others: against those there is only the second look (Looks).
// https://developer.hashicorp.com/vault/docs/enterprise/consistency
type state struct {
	now func() time.Time
	// cannotForward is set when a server refused to forward by header, which is Vault's default.
	cannotForward atomic.Bool

	mu    sync.Mutex
	known []string // as api.MergeReplicationStates returns it: of one cluster
	at    time.Time
}

// record keeps the state in the answer to a write. A read's answer names the state of the server that answered, which may be
// behind.
func (s *state) record(answer *api.Response) {
	var index string
	api.RecordState(&index)(answer)
	if index == "" || answer.Request == nil || answer.Request.Method == http.MethodGet {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = api.MergeReplicationStates(s.current(), index)
	s.at = s.now()
}

// require has a read ask for the state. Writes go to the active server, which has it; the alias look-up is a read by POST.
func (s *state) require(r *api.Request) {
	if r.Method != http.MethodGet && !strings.HasSuffix(r.URL.Path, "/"+lookupPath) {
		return
	}
	s.mu.Lock()
	known := s.current()
	s.mu.Unlock()
	api.RequireState(known...)(r)
}

// current returns the state to require. It is none after MaxLag: a cluster that was restored from a snapshot never reaches it,
// and a warm sandbox must not wait for it for good.
func (s *state) current() []string {
	if age := s.now().Sub(s.at); age < 0 || age >= MaxLag {
		return nil
	}
	return s.known
}

// isBehind reports whether a server did nothing because it lacks the required state, or that of the token
// (412, logical.ErrMissingRequiredState).
func isBehind(err error) bool { return statusOf(err) == http.StatusPreconditionFailed }

// refusesForwarding reports whether a server did nothing because it may not forward by header: allow_forwarding_via_header is
// off, as by default, or the server is Vault Community.
// https://developer.hashicorp.com/vault/docs/configuration/replication#allow_forwarding_via_header
func refusesForwarding(err error) bool {
	return statusOf(err) == http.StatusBadRequest && strings.Contains(err.Error(), api.HeaderInconsistent)
}
