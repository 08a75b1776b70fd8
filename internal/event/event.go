// Package event parses a function's payload: one EventBridge event, or an SQS batch of them. An event says which instance to
// look at and never what to do: converge decides by EC2's present answer. The package also writes this program's own event,
// with which reconcile sends an instance to the provision queue. Its callers are internal/handler and internal/queue.
package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// Event is an event about one instance, from AWS or from this program's reconcile function.
type Event struct {
	facts.Ref
	// State is the state that the event reports. A tag change and a finding report none and count as pending. A lifecycle action counts as
	// running: EC2 shows the instance as running until Auto Scaling acts.
	State facts.State
	Time  time.Time
	// Verify asks for a comparison with Vault, even if the record shows no need for one: reconcile found drift.
	Verify bool
	// Hook is the lifecycle action that waits for this instance; nil for none.
	Hook *Hook
	// Finding is GuardDuty's finding about this instance; nil for none.
	Finding *Finding
}

// Record is the parsed body of one message, or a bare event: an event or an error.
type Record struct {
	// MessageID is the ID of the SQS message; empty for a bare event.
	MessageID string
	// Sent is when the message was sent to its queue; zero for a bare event.
	Sent  time.Time
	Event Event
	// Err is of kind fault.Refuse, since no retry can succeed: the body cannot be read, or (ErrIgnored) this program does not
	// act on such events.
	Err error
}

// Payload is an invocation's payload, parsed.
type Payload struct {
	Batch   bool // an SQS batch, whose answer lists its failures
	Records []Record
}

// ErrIgnored marks a well-formed event of a kind that this program does not act on.
var ErrIgnored = errors.New("event of a kind that is not acted on")

// stateChange is EC2's event about an instance,
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instance-state-changes.html
const (
	source      = "aws.ec2"
	stateChange = "EC2 Instance State-change Notification"
	version     = "0"
)

// This program's own event: a live instance with drift.
const (
	ownSource = "vault-ec2-provisioner"
	differs   = "Instance Differs"
)

// tagChange is AWS's event for a tag that was set or removed: another profile may match, or the name may change.
// https://docs.aws.amazon.com/tag-editor/latest/userguide/monitor-tag-changes.html
const (
	tagSource = "aws.tag"
	tagChange = "Tag Change on Resource"
)

// tagInstance returns the instance that a tag event names as its one resource. It fails with ErrIgnored for another kind of
// resource.
func tagInstance(list json.RawMessage) (instanceID string, err error) {
	var resources []string
	if err := json.Unmarshal(list, &resources); err != nil || len(resources) != 1 {
		return "", fault.Refusef("the event of a tag names %d resources, want the one instance (%v)", len(resources), err)
	}
	service, id, found := strings.Cut(resources[0], ":instance/")
	if !found || !strings.Contains(service, ":ec2:") {
		return "", fault.New(fault.Refuse, fmt.Errorf("the tag of %+q: %w", resources[0], ErrIgnored))
	}
	return id, nil
}

type detail struct {
	InstanceID string `json:"instance-id"`
	State      string `json:"state"`
}

// Differs returns the event for a live instance with drift; at is when EC2's list showed it.
func Differs(r facts.Ref, at time.Time) Event {
	return Event{Ref: r, State: facts.Running, Time: at, Verify: true}
}

// NameFree returns the event for an instance that waited for a name, which is free now. It says nothing about the instance's
// state, as a change of a tag does not: the instance may have been stopped since.
func NameFree(r facts.Ref, at time.Time) Event {
	return Event{Ref: r, State: facts.Pending, Time: at, Verify: true}
}

// Body returns e as the body of this program's own event for the provision queue; Parse returns it with Verify set. It is for
// pending and running instances only: Parse refuses others, so that no removal travels through a queue.
func Body(e Event) ([]byte, error) {
	return json.Marshal(map[string]any{
		"version": version, "source": ownSource, "detail-type": differs,
		"account": e.Account, "region": e.Region, "time": e.Time.UTC().Format(time.RFC3339),
		"detail": detail{InstanceID: e.ID, State: string(e.State)},
	})
}

// Parse parses an invocation's payload. It fails, with kind fault.Refuse, only when the payload is neither a batch nor an
// object. A body that cannot be read becomes a Record with an error, so that it never holds up the others. Unknown fields are
// ignored, since AWS may add some.
func Parse(payload []byte) (Payload, error) {
	var probe struct{ Records *[]events.SQSMessage }
	if err := json.Unmarshal(payload, &probe); err != nil {
		return Payload{}, fault.Refusef("reading the payload: %w", err)
	}
	if probe.Records == nil {
		return Payload{Records: []Record{parseEvent("", payload)}}, nil
	}
	p := Payload{Batch: true}
	for _, m := range *probe.Records {
		r := parseEvent(m.MessageId, []byte(m.Body))
		// https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
		if ms, err := strconv.ParseInt(m.Attributes["SentTimestamp"], 10, 64); err == nil {
			r.Sent = time.UnixMilli(ms)
		}
		p.Records = append(p.Records, r)
	}
	return p, nil
}

func parseEvent(messageID string, body []byte) Record {
	e, err := read(body)
	return Record{MessageID: messageID, Event: e, Err: err}
}

func read(body []byte) (Event, error) {
	// Not events.EventBridgeEvent: a malformed field that is not used must not spoil the event.
	var in struct {
		Version    string
		Source     string
		DetailType string `json:"detail-type"`
		Account    string
		Region     string
		Time       time.Time
		Resources  json.RawMessage
		Detail     json.RawMessage
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return Event{}, fault.Refusef("reading the event: %w", err)
	}
	e := Event{Ref: facts.Ref{Place: facts.Place{Account: in.Account, Region: in.Region}}, Time: in.Time}
	var err error
	switch kind := [2]string{in.Source, in.DetailType}; {
	case in.Version != version:
		err = ignored(in.Version, kind)
	case kind == [2]string{source, stateChange}:
		e.ID, e.State, err = parseStateChange(in.Detail)
	case kind == [2]string{ownSource, differs}:
		e.Verify = true
		e.ID, e.State, err = parseStateChange(in.Detail)
		if err == nil && !e.State.IsLive() {
			err = fault.Refusef("the event of instance %s: an event of this program's own is never about an instance that is %s", e.ID, e.State)
		}
	case kind == [2]string{hookSource, hookLaunch}, kind == [2]string{hookSource, hookTerminate}:
		if e.ID, e.State, e.Hook, err = parseHook(in.Detail); err == nil {
			e.Hook.At = in.Time
		}
	case kind == [2]string{findingSource, findingKind}:
		e.Ref, e.Finding, err = parseFinding(in.Detail, e.Place)
		e.State = facts.Pending // the event names no state that counts
	case kind == [2]string{tagSource, tagChange}:
		e.ID, err = tagInstance(in.Resources)
		e.State = facts.Pending // the event names no state
	default:
		err = ignored(in.Version, kind)
	}
	if err == nil {
		err = e.check()
	}
	if err != nil {
		return Event{}, err
	}
	return e, nil
}

func ignored(version string, kind [2]string) error {
	return fault.New(fault.Refuse, fmt.Errorf("version %q, source %q, detail-type %q: %w", version, kind[0], kind[1], ErrIgnored))
}

// parseStateChange parses the detail of a state change.
func parseStateChange(text json.RawMessage) (instanceID string, state facts.State, err error) {
	var d detail
	if err := json.Unmarshal(text, &d); err != nil {
		return "", "", fault.Refusef("reading the event's detail: %w", err)
	}
	if state, err = facts.ParseState(d.State); err != nil {
		return "", "", fault.Refusef("the event of instance %+q: %w", d.InstanceID, err)
	}
	return d.InstanceID, state, nil
}

// check returns an error for the first required value that is missing or of a wrong form.
func (e Event) check() error {
	switch {
	case !facts.IsInstanceID(e.ID):
		return fault.Refusef("the event's instance-id %+q is not the ID of an EC2 instance", e.ID)
	case !facts.IsAccount(e.Account):
		return fault.Refusef("the event of instance %s: %+q is not an account ID", e.ID, e.Account)
	case !facts.IsRegion(e.Region):
		return fault.Refusef("the event of instance %s: %+q is not a region", e.ID, e.Region)
	case e.Time.IsZero():
		return fault.Refusef("the event of instance %s has no time", e.ID)
	}
	return nil
}
