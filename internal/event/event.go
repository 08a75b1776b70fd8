// Package event reads what reaches a function: one EventBridge event, or an SQS batch of them. An event only says
// which instance to look at; nothing is decided from it. It also writes the one event of this program's own, by which
// reconcile hands an instance to the provision queue.
package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// Trigger points at one instance and says what AWS told of it.
type Trigger struct {
	InstanceID string
	Account    string
	Region     string
	State      facts.State
	Time       time.Time
	// Verify asks for a comparison with Vault, whatever the ledger says: reconcile saw a difference.
	Verify bool
	// Retire takes away all that the instance holds, whatever EC2 shows of it: the deployment is torn down.
	Retire bool
	// Strays are paths in Vault that bear the instance's name and that no record names. They are taken into the record
	// and removed where the marker or the ledger shows that they are ours.
	Strays []string
}

// Record is one body of a batch: a trigger, or the reason why there is none.
type Record struct {
	// MessageID is the SQS message's; empty for a bare event.
	MessageID string
	// Sent is when the message was sent to its queue; zero for a bare event.
	Sent    time.Time
	Trigger Trigger
	// Err is ErrIgnored for an event that is none of ours and of kind fault.Refuse for one that cannot be read:
	// neither gets better by coming again.
	Err error
}

// Payload is what one invocation was given.
type Payload struct {
	Batch   bool // an SQS batch, answered with its failures
	Records []Record
}

// ErrIgnored marks a well-formed event of a kind that this program does not act on.
var ErrIgnored = errors.New("event of a kind that is not acted on")

// stateChange is the only kind of event that is read,
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/monitoring-instance-state-changes.html
const (
	source      = "aws.ec2"
	stateChange = "EC2 Instance State-change Notification"
	version     = "0"
)

// The event of this program's own: a live instance whose grant was seen to differ.
const (
	ownSource = "vault-ec2-provisioner"
	differs   = "Instance Differs"
)

type detail struct {
	InstanceID string `json:"instance-id"`
	State      string `json:"state"`
}

// Body is the event by which an instance is handed to the provision queue: t with Verify set. Only live instances are
// handed on, pending and running ones; what is to be removed never travels through a queue.
func Body(t Trigger) ([]byte, error) {
	return json.Marshal(map[string]any{
		"version": version, "source": ownSource, "detail-type": differs,
		"account": t.Account, "region": t.Region, "time": t.Time.UTC().Format(time.RFC3339),
		"detail": detail{InstanceID: t.InstanceID, State: string(t.State)},
	})
}

// Parse reads an invocation's payload. It fails, with kind fault.Refuse, only when the payload is neither a batch
// nor an object; a body that cannot be read becomes a Record with its own error, so that it never holds up the
// others. Fields AWS may add are let through.
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
	t, err := trigger(body)
	return Record{MessageID: messageID, Trigger: t, Err: err}
}

func trigger(body []byte) (Trigger, error) {
	// Read by hand and not into events.EventBridgeEvent: one malformed field that is not used must not cost the event.
	var e struct {
		Version    string
		Source     string
		DetailType string `json:"detail-type"`
		Account    string
		Region     string
		Time       time.Time
		Detail     json.RawMessage
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return Trigger{}, fault.Refusef("reading the event: %w", err)
	}
	own := e.Source == ownSource && e.DetailType == differs
	if e.Version != version || !own && (e.Source != source || e.DetailType != stateChange) {
		return Trigger{}, fault.New(fault.Refuse, fmt.Errorf("version %q, source %q, detail-type %q: %w", e.Version, e.Source, e.DetailType, ErrIgnored))
	}
	var d detail
	if err := json.Unmarshal(e.Detail, &d); err != nil {
		return Trigger{}, fault.Refusef("reading the event's detail: %w", err)
	}
	if !facts.IsInstanceID(d.InstanceID) {
		return Trigger{}, fault.Refusef("the event's instance-id %+q is not the ID of an EC2 instance", d.InstanceID)
	}
	state, err := facts.ParseState(d.State)
	if err != nil {
		return Trigger{}, fault.Refusef("the event of instance %s: %w", d.InstanceID, err)
	}
	if own && state != facts.Pending && state != facts.Running {
		return Trigger{}, fault.Refusef("the event of instance %s: one of this program's own never tells of an instance that is %s", d.InstanceID, state)
	}
	if !facts.IsAccount(e.Account) {
		return Trigger{}, fault.Refusef("the event of instance %s: %+q is not an account ID", d.InstanceID, e.Account)
	}
	if !facts.IsRegion(e.Region) {
		return Trigger{}, fault.Refusef("the event of instance %s: %+q is not a region", d.InstanceID, e.Region)
	}
	if e.Time.IsZero() {
		return Trigger{}, fault.Refusef("the event of instance %s has no time", d.InstanceID)
	}
	return Trigger{InstanceID: d.InstanceID, Account: e.Account, Region: e.Region, State: state, Time: e.Time, Verify: own}, nil
}
