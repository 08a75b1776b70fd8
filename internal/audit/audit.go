// Package audit tells others on an EventBridge bus who was granted access, whose access was removed, and what was refused
// or found to differ. docs/events.md is what they go by, docs/events.schema.json holds its form.
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

// Source is that of every event.
const Source = "vault-ec2-provisioner"

// Version is that of the detail's form. It grows when a field changes its meaning or goes; a new one may come without.
const Version = 1

// The types of events. The log line about the same thing has the type under observe.KeyAudit.
const (
	Granted  = "Vault Access Granted"
	Removed  = "Vault Access Removed"
	Refused  = "Vault Access Refused"
	Conflict = "Vault Access Conflict"
	Drifted  = "Vault Access Drift"
)

// Event is one thing that happened to one instance.
type Event struct {
	Type   string // the detail-type: one of the constants above
	Time   time.Time
	Detail Detail
}

// Detail is the event's detail. It holds no secret: paths and names, and never what stands at a path.
type Detail struct {
	Version    int    `json:"version"`
	Deployment string `json:"deployment"`
	Function   string `json:"function"`
	RequestID  string `json:"requestId,omitempty"`
	InstanceID string `json:"instanceId"`
	// Account and Region are empty where nothing tells where the instance is, or was.
	Account   string   `json:"account"`
	Region    string   `json:"region"`
	Profile   string   `json:"profile,omitempty"`
	FQDN      string   `json:"fqdn,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	// Objects are the paths in Vault of what was granted or removed.
	Objects []string `json:"objects,omitempty"`
	// Kind and Error are why something was refused or is in conflict.
	Kind  string `json:"kind,omitempty"`
	Error string `json:"error,omitempty"`
	Drift *Drift `json:"drift,omitempty"`
}

// Drift is one difference that reconcile found. The texts that differ are in reconcile's log and answer only.
type Drift struct {
	Object string   `json:"object"`
	Path   string   `json:"path"`
	Reason string   `json:"reason"`
	Action string   `json:"action"`
	Fields []string `json:"fields"`
}

// Bus takes events.
type Bus interface {
	// Put sends at most PerCall events. It gives one error for each that was not taken.
	Put(ctx context.Context, events []Event) []error
}

const (
	// PerCall is how many events one call takes,
	// https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html
	PerCall = 10
	// kept is how many events are held before they are sent, and not only at the end of the invocation: a fleet that is
	// changed as a whole has many.
	kept = 500
	// sendTime bounds the sending of that many, and at the end it ends this long before the invocation does.
	sendTime   = 3 * time.Second
	answerTime = time.Second
	// sideBySide is how many calls are made at once.
	sideBySide = 4
	// maxError is how much of an error's text goes along: ten events must fit in a call.
	maxError = 1024
)

// Trail gathers the events of one invocation. It is safe for concurrent use.
type Trail struct {
	bus Bus

	mu     sync.Mutex
	events []Event
	errs   []error // one for each that did not reach the bus
}

// NewTrail makes a Trail; nil for the bus keeps nothing.
func NewTrail(bus Bus) *Trail { return &Trail{bus: bus} }

// Add keeps an event to be sent, and sends what was kept when it is much.
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
	if len(t.events) >= kept {
		full, t.events = t.events, nil
	}
	t.mu.Unlock()
	if full != nil {
		t.send(ctx, full)
	}
}

// Send sends what is left, best effort: it counts what did not reach the bus, of all that was added, and gives the first
// reason. Nothing waits for an answer beyond a few seconds, and never beyond the invocation.
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
	limit := sendTime
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

// put sends the events in order of their coming, a few calls side by side, and gives one error for each that was not
// taken.
func (t *Trail) put(ctx context.Context, events []Event) (errs []error) {
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(sideBySide)
	for part := range slices.Chunk(events, PerCall) {
		group.Go(func() error {
			failed := slices.Repeat([]error{errLate}, len(part))
			if ctx.Err() == nil {
				failed = t.bus.Put(ctx, part)
			}
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, failed...)
			return nil
		})
	}
	_ = group.Wait() // the functions above keep their errors in errs
	return errs
}

var errLate = errors.New("not sent: the time for it is over")
