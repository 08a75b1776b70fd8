// Package audit sends events to an EventBridge bus about access granted, removed and refused, conflicts and drift. Its caller is
// internal/handler. docs/events.md describes the events to their readers; docs/events.schema.json is their schema.
package audit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Source is the source of every event.
const Source = "vault-ec2-provisioner"

// Version is the version of Detail. It grows when a field changes its meaning or is removed, but not when one is added.
const Version = 1

// The types of events. The log line of the same event has the type under observe.KeyAudit.
const (
	Granted  = "Vault Access Granted"
	Removed  = "Vault Access Removed"
	Refused  = "Vault Access Refused"
	Conflict = "Vault Access Conflict"
	Drifted  = "Vault Access Drift"
	// Quarantined and Released are about the mark. The removal and the new grant have events of their own.
	Quarantined = "Vault Access Quarantined"
	Released    = "Vault Access Released"
)

// Event is one event about one instance.
type Event struct {
	Type   string // the detail-type: one of the constants above
	Time   time.Time
	Detail Detail
}

// Detail is an event's detail. It holds paths and names, and never the contents of an object.
type Detail struct {
	Version    int    `json:"version"`
	Deployment string `json:"deployment"`
	Function   string `json:"function"`
	RequestID  string `json:"requestId,omitempty"`
	InstanceID string `json:"instanceId"`
	// Account and Region are empty if unknown.
	Account   string   `json:"account"`
	Region    string   `json:"region"`
	Profile   string   `json:"profile,omitempty"`
	FQDN      string   `json:"fqdn,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	// Objects are the paths in Vault of the objects granted or removed.
	Objects []string `json:"objects,omitempty"`
	// ByWord reports whether the removal rests on an operator's word, since EC2 could not be asked.
	ByWord bool `json:"byWord,omitempty"`
	// Kind and Error say why the instance was refused or is in conflict.
	Kind  string `json:"kind,omitempty"`
	Error string `json:"error,omitempty"`
	Drift *Drift `json:"drift,omitempty"`
	// Quarantine is of the events Quarantined and Released.
	Quarantine *Quarantine `json:"quarantine,omitempty"`
}

// Quarantine is an order to put an instance into quarantine, or to release it.
type Quarantine struct {
	// By is the person or the service that ordered it, as the order says.
	By     string    `json:"by"`
	Reason string    `json:"reason,omitempty"`
	Source string    `json:"source"` // of the quarantine: command or finding
	Since  time.Time `json:"since"`  // of the quarantine
}

// Drift is one difference that reconcile found. Only reconcile's log and answer hold the texts that differ.
type Drift struct {
	Object string   `json:"object"`
	Path   string   `json:"path"`
	Reason string   `json:"reason"`
	Action string   `json:"action"`
	Fields []string `json:"fields"`
}

// Bus is an event bus.
type Bus interface {
	// Put sends at most PerCall events. It returns one error for each event that the bus did not accept.
	Put(ctx context.Context, events []Event) []error
}

const (
	// PerCall is the maximum number of events in one call,
	// https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
	PerCall = 10
	// maxHeld is the number of events at which a Trail sends them before the invocation ends: a run over a whole fleet may have
	// many.
	maxHeld = 500
	// sendTimeout bounds one sending of up to maxHeld events.
	sendTimeout = 3 * time.Second
	// answerTime is left to the invocation after the last sending.
	answerTime = time.Second
	// Reserve is the time before an invocation's deadline that Send needs in full.
	Reserve = sendTimeout + answerTime
	// maxCalls is the number of concurrent calls.
	maxCalls = 4
	// maxError is the length to which an error's text is cut, in bytes: ten events must fit in a call.
	maxError = 1024
)

// Trail gathers the events of one invocation. It is safe for concurrent use.
type Trail struct {
	bus Bus

	mu     sync.Mutex
	events []Event
	errs   []error // one for each event that did not reach the bus
}

// NewTrail makes a Trail. Without a bus (nil) it drops all events.
func NewTrail(bus Bus) *Trail { return &Trail{bus: bus} }

// Add adds an event. It sends all events added so far once there are many.
func (t *Trail) Add(ctx context.Context, e Event) {
	if t.bus == nil {
		return
	}
	e.Detail.Version = Version
	if len(e.Detail.Error) > maxError {
		e.Detail.Error = strings.ToValidUTF8(e.Detail.Error[:maxError], "")
	}
	t.mu.Lock()
	t.events = append(t.events, e)
	var full []Event
	if len(t.events) >= maxHeld {
		full, t.events = t.events, nil
	}
	t.mu.Unlock()
	if full != nil {
		t.send(ctx, full)
	}
}

// Send sends the remaining events, best effort. It returns how many of all added events did not reach the bus, and the first
// error. It takes at most sendTimeout and ends answerTime before the deadline of ctx.
func (t *Trail) Send(ctx context.Context) (failed int, err error) {
	t.mu.Lock()
	events := t.events
	t.events = nil
	t.mu.Unlock()
	if len(events) > 0 {
		t.send(ctx, events)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	failed, err = len(t.errs), errors.Join(t.errs[:min(1, len(t.errs))]...)
	t.errs = nil
	return failed, err
}

func (t *Trail) send(ctx context.Context, events []Event) {
	limit := sendTimeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)-answerTime)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	errs := t.put(ctx, events)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errs = append(t.errs, errs...)
}

// put sends the events in concurrent calls, the oldest first, and returns one error for each event that the bus did not
// accept.
func (t *Trail) put(ctx context.Context, events []Event) (errs []error) {
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(maxCalls)
	for part := range slices.Chunk(events, PerCall) {
		group.Go(func() error {
			failed := slices.Repeat([]error{errNoTime}, len(part))
			if ctx.Err() == nil {
				failed = t.bus.Put(ctx, part)
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, failed...)
			return nil
		})
	}
	_ = group.Wait() // the errors are in errs
	return errs
}

var errNoTime = errors.New("not sent: no time left")
