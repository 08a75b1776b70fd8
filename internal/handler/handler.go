// Package handler turns an invocation of a function into requests to converge instances, and their outcomes into the
// answer, logs, metrics and audit events.
//
// Handler serves provision and deprovision: a batch of the queue or one bare event, with Auto Scaling's lifecycle hooks
// before and after. ReconcileHandler serves reconcile.
package handler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

const (
	// busyWait bounds the wait for another run on the same instance, with a try after every busyPause.
	busyWait  = 10 * time.Second
	busyPause = 500 * time.Millisecond
	busyTries = int(busyWait / busyPause)
	// leaseTries are as many as fit into a lease, and some more.
	leaseTries = int((ledger.LeaseTime + busyWait) / busyPause)
)

// Converger makes Vault and ledger agree with EC2 for one instance.
type Converger interface {
	// Begin returns what the requests about a batch's instances share; nil for nothing.
	Begin(ctx context.Context, seen map[facts.Ref]instance.Sighting) *converge.Batch
	Converge(ctx context.Context, req converge.Request, s instance.Sighting) (converge.Outcome, error)
}

// Instances looks up a whole batch of instances at once.
type Instances interface {
	Describe(ctx context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting
}

// Handler answers the invocations of one function. It keeps no state between invocations.
type Handler struct {
	Name       string
	Deployment string
	Instances  Instances
	Converger  Converger
	Log        *slog.Logger
	Metrics    io.Writer
	// Services measures the calls of the clients behind the fields above; nil for no measurements.
	Services *observe.Services
	// Bus receives the audit events; nil for no bus.
	Bus audit.Bus
	// Hooks are the lifecycle hooks of Auto Scaling that this function answers.
	Hooks Hooks
	// Findings are the findings of GuardDuty that put an instance into quarantine.
	Findings Findings
	// Readiness is the tag that shows an instance's identity on the instance.
	Readiness Readiness
	Profiles  ProfileState
	Now       func() time.Time
}

// ProfileState says which profiles a Handler's parts use.
type ProfileState struct {
	// Digest is that of the profiles' bundle; empty for profiles that are part of the function.
	Digest string
	// Refused is why these profiles are used and not the wanted ones; nil if these are the wanted ones.
	Refused error
}

// answer is the answer to a bare event.
type answer struct {
	InstanceID string          `json:"instanceId,omitempty"`
	Action     converge.Action `json:"action,omitempty"`
	Profile    string          `json:"profile,omitempty"`
	FQDN       string          `json:"fqdn,omitempty"`
	Kind       string          `json:"kind,omitempty"`
	Error      string          `json:"error,omitempty"`
}

// Invoke handles one payload. For an SQS batch it returns the messages to deliver again. For a bare event it returns the
// outcome; a fault that another try may mend is an error, so that the invoker sees it.
func (h *Handler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	inv, finish := h.begin(ctx)
	defer finish()
	p, err := event.Parse(payload)
	if err != nil {
		inv.metrics.Count(observe.Malformed)
		inv.log.ErrorContext(ctx, "payload refused", observe.KeyError, err)
		return nil, err
	}
	results := inv.handle(ctx, p.Records)
	if p.Batch {
		return failures(p.Records, results)
	}
	r := results[0]
	if r.err != nil && fault.KindOf(r.err) == fault.Retry {
		return nil, r.err
	}
	a := answer{InstanceID: p.Records[0].Event.ID, Action: r.outcome.Action, Profile: r.outcome.Profile, FQDN: r.outcome.FQDN}
	if r.err != nil {
		a.Kind, a.Error = fault.KindOf(r.err).String(), r.err.Error()
	}
	return json.Marshal(a)
}

// invocation is one run of a Handler.
type invocation struct {
	*Handler
	metrics   *observe.Metrics
	trail     *audit.Trail
	log       *slog.Logger
	requestID string // Lambda's; empty outside of Lambda
	pending   pendingTags
}

// begin returns a new invocation. finish sends its audit events and writes its metrics.
func (h *Handler) begin(ctx context.Context) (inv *invocation, finish func()) {
	inv = &invocation{Handler: h, trail: audit.NewTrail(h.Bus), metrics: &observe.Metrics{Deployment: h.Deployment, Function: h.Name}, log: h.Log}
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		inv.requestID = lc.AwsRequestID
		inv.log = inv.log.With(observe.KeyRequest, inv.requestID)
	}
	if h.Profiles.Digest != "" {
		inv.log = inv.log.With(observe.KeyProfiles, bundle.Short(h.Profiles.Digest))
	}
	if h.Profiles.Refused != nil {
		inv.metrics.Count(observe.ProfilesRefused)
	}
	if trace := traceOf(ctx); trace != "" {
		inv.log = inv.log.With(observe.KeyTrace, trace)
	}
	return inv, func() {
		if failed, err := inv.trail.Send(ctx); failed > 0 {
			inv.metrics.Add(observe.AuditFailed, failed)
			inv.log.ErrorContext(ctx, "audit events did not reach the event bus: read them from the log lines with the key audit or the message drift", observe.KeyEvents, failed, observe.KeyError, err)
		}
		if h.Services != nil {
			inv.metrics.Collect(h.Services)
		}
		if err := inv.metrics.Write(h.Metrics, h.Now()); err != nil {
			inv.log.ErrorContext(ctx, "the metrics of this invocation are lost", observe.KeyError, err)
		}
	}
}

// traceOf returns the invocation's X-Ray trace ID; empty if there is none. aws-lambda-go keeps the header under a key of
// its own.
// https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
func traceOf(ctx context.Context) string {
	header, _ := ctx.Value("x-amzn-trace-id").(string)
	for part := range strings.SplitSeq(header, ";") {
		if root, ok := strings.CutPrefix(part, "Root="); ok {
			return root
		}
	}
	return ""
}

// task is the work for one instance.
type task struct {
	converge.Request
	hook *event.Hook // the lifecycle action that waits for the instance; nil for none
	// waits reports whether a person waits for the result of an order: until a lease runs out that another run left.
	waits bool
}

// tries returns how often the task is tried again while another run works on the instance.
func (t task) tries() int {
	switch {
	case t.waits:
		return leaseTries
	case t.hook != nil, t.Quarantine != nil:
		return busyTries
	}
	return 0
}

// result is the result of one task, or the error of a record without a usable event.
type result struct {
	outcome converge.Outcome
	err     error
}

// converge converges one instance and reports the result: its log line, metrics, audit events and readiness tag.
func (inv *invocation) converge(ctx context.Context, t task, s instance.Sighting) (r result) {
	start := inv.Now()
	t.By = t.cause()
	if deadline, ok := ctx.Deadline(); ok && deadline.Sub(start) < converge.Reserve {
		r.err = fault.Retryf("less than %s is left in this invocation: instance %s goes back to the queue", converge.Reserve, t.ID)
	} else {
		r.outcome, r.err = inv.convergeWhenFree(ctx, t, s)
	}
	inv.addTag(t, s, r)
	inv.report(ctx, t, s, r, inv.Now().Sub(start))
	return r
}

// convergeWhenFree converges an instance. While a hook holds the instance back, or an order wants it cut off, it waits for another run
// on the same record, such as the one for the state change: the queue would deliver the event again only after minutes.
func (inv *invocation) convergeWhenFree(ctx context.Context, t task, s instance.Sighting) (converge.Outcome, error) {
	for tries := 0; ; tries++ {
		outcome, err := inv.convergeSafely(ctx, t.Request, s)
		if !errors.Is(err, ledger.ErrChanged) || tries >= t.tries() {
			return outcome, err
		}
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return outcome, err
		}
	}
}

// convergeSafely returns a panic over one instance, such as over a damaged record, as the instance's error: the rest of the
// batch goes on.
func (inv *invocation) convergeSafely(ctx context.Context, req converge.Request, s instance.Sighting) (outcome converge.Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("converging instance %s: panic: %v\n%s", req.ID, p, debug.Stack())
		}
	}()
	return inv.Converger.Converge(ctx, req, s)
}
