// Package function is what the provision and deprovision functions share: from an invocation's payload to an
// instance's Converge and back to an answer, and the wiring of it all from the environment.
package function

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/lifecycle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

const (
	// sideBySide is how many instances of a batch converge at once. Past 8 only the waiting grows: a Vault on Raft
	// holds a lock across each commit of a policy or an auth role.
	sideBySide = 8
	// reserve is the time before the deadline in which no new work begins; what waits goes back to the queue.
	reserve = 20 * time.Second
)

// Converger makes true what one instance's present state asks for.
type Converger interface {
	Converge(ctx context.Context, t event.Trigger, s instance.Sighting) (lifecycle.Outcome, error)
}

// Instances looks a whole batch up at once.
type Instances interface {
	Look(ctx context.Context, refs []instance.Ref) map[instance.Ref]instance.Sighting
}

// Handler answers the invocations of one function. It holds nothing of an invocation.
type Handler struct {
	Name       string
	Deployment string
	Instances  Instances
	Converger  Converger
	Log        *slog.Logger
	Metrics    io.Writer
	// Services is what the clients behind the fields above tell of their calls; nil for nothing.
	Services *observe.Services
	// Bus is told of what was granted, removed, refused and found; nil for none.
	Bus audit.Bus
	// Hooks are the lifecycle hooks of Auto Scaling that are answered.
	Hooks Hooks
	// Readiness is the tag that instances are given.
	Readiness Readiness
	Now       func() time.Time
}

// answer is what a bare event is answered with.
type answer struct {
	InstanceID string           `json:"instanceId,omitempty"`
	Action     lifecycle.Action `json:"action,omitempty"`
	Profile    string           `json:"profile,omitempty"`
	FQDN       string           `json:"fqdn,omitempty"`
	Kind       string           `json:"kind,omitempty"`
	Error      string           `json:"error,omitempty"`
}

// Invoke handles one payload: an SQS batch, answered with the messages to deliver again, or one bare event. A bare
// event that should be tried again is an error, so that whoever invoked sees it.
func (h *Handler) Invoke(ctx context.Context, payload []byte) ([]byte, error) {
	run, finish := h.begin(ctx)
	defer finish()
	p, err := event.Parse(payload)
	if err != nil {
		run.metrics.Count(observe.Malformed)
		run.log.ErrorContext(ctx, "payload refused", observe.KeyError, err)
		return nil, err
	}
	results := run.handle(ctx, p.Records)
	if p.Batch {
		return failures(p.Records, results)
	}
	r := results[0]
	if r.err != nil && fault.KindOf(r.err) == fault.Retry {
		return nil, r.err
	}
	a := answer{InstanceID: p.Records[0].Trigger.InstanceID, Action: r.outcome.Action, Profile: r.outcome.Profile, FQDN: r.outcome.FQDN}
	if r.err != nil {
		a.Kind, a.Error = fault.KindOf(r.err).String(), r.err.Error()
	}
	return json.Marshal(a)
}

// begin starts an invocation; finish sends its audit events and writes its metrics.
func (h *Handler) begin(ctx context.Context) (run *invocation, finish func()) {
	run = &invocation{Handler: h, trail: audit.NewTrail(h.Bus), metrics: &observe.Metrics{Deployment: h.Deployment, Function: h.Name}, log: h.Log}
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		run.requestID = lc.AwsRequestID
		run.log = run.log.With(observe.KeyRequest, run.requestID)
	}
	if trace := traceOf(ctx); trace != "" {
		run.log = run.log.With(observe.KeyTrace, trace)
	}
	return run, func() {
		if failed, err := run.trail.Send(ctx); failed > 0 {
			run.metrics.Add(observe.AuditFailed, failed)
			run.log.ErrorContext(ctx, "audit events did not reach the event bus; the log lines with the key audit or drift tell the same", observe.KeyEvents, failed, observe.KeyError, err)
		}
		if h.Services != nil {
			run.metrics.Take(h.Services)
		}
		if err := run.metrics.Write(h.Metrics, h.Now()); err != nil {
			run.log.ErrorContext(ctx, "the metrics of this invocation are lost", observe.KeyError, err)
		}
	}
}

// traceOf is the invocation's X-Ray trace ID; empty for none. aws-lambda-go keeps the header under a key of its own.
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

// failures names the messages to deliver again.
// https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html#services-sqs-batchfailurereporting
func failures(records []event.Record, results []result) ([]byte, error) {
	out := events.SQSEventResponse{BatchItemFailures: []events.SQSBatchItemFailure{}}
	for i, r := range records {
		if err := results[i].err; err != nil && fault.KindOf(err) == fault.Retry {
			out.BatchItemFailures = append(out.BatchItemFailures, events.SQSBatchItemFailure{ItemIdentifier: r.MessageID})
		}
	}
	return json.Marshal(out)
}

// result is what became of one record.
type result struct {
	outcome lifecycle.Outcome
	err     error
}

// invocation is one run of a Handler.
type invocation struct {
	*Handler
	metrics   *observe.Metrics
	trail     *audit.Trail
	log       *slog.Logger
	requestID string // Lambda's; empty outside of it
	signs     signs
}

// handle converges each instance of the records once, whatever the number of its events, and gives one result for
// each record. A bad record never holds up its neighbours.
func (v *invocation) handle(ctx context.Context, records []event.Record) []result {
	results := make([]result, len(records))
	latest, of := v.gather(ctx, records, results)
	if len(latest) == 0 {
		return results
	}
	unknown := v.leave(ctx, latest)
	sightings := v.Instances.Look(ctx, slices.Collect(maps.Keys(latest)))
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(sideBySide)
	for ref, t := range latest {
		group.Go(func() error {
			s := sightings[ref]
			if err := unknown[ref]; err != nil && s.Facts.State != facts.Terminated {
				s.Err = err
			}
			r := v.converge(ctx, t, s)
			for _, i := range of[ref] {
				one := r
				if records[i].Trigger.Hook != nil {
					one = v.answerHook(ctx, records[i].Trigger, r)
				}
				mu.Lock()
				results[i] = one
				mu.Unlock()
			}
			return nil
		})
	}
	_ = group.Wait() // the functions above keep their errors as results
	for ref, err := range v.show(ctx) {
		for _, i := range of[ref] {
			if results[i].err == nil && records[i].Trigger.Hook == nil {
				results[i].err = err // all else is done, and is done again at no cost
			}
		}
	}
	return results
}

// gather returns one trigger for each instance and the indices of its records. A record that makes none has its error among
// the results.
func (v *invocation) gather(ctx context.Context, records []event.Record, results []result) (latest map[instance.Ref]event.Trigger, of map[instance.Ref][]int) {
	latest, of = map[instance.Ref]event.Trigger{}, map[instance.Ref][]int{}
	begun := v.Now()
	for i, r := range records {
		if !r.Sent.IsZero() {
			v.metrics.Time(observe.QueueAge, begun.Sub(r.Sent))
		}
		if r = v.Hooks.ours(r); r.Err == nil {
			r.Err = checkTime(r.Trigger, begun)
		}
		if r.Err != nil {
			results[i].err = v.unreadable(ctx, r)
			continue
		}
		ref := instance.Ref{ID: r.Trigger.InstanceID, Account: r.Trigger.Account, Region: r.Trigger.Region}
		of[ref] = append(of[ref], i)
		latest[ref] = later(latest[ref], r.Trigger)
	}
	return latest, of
}

// clockSkew is how far ahead of the function's clock the time of an event may be.
const clockSkew = time.Minute

// checkTime refuses a trigger whose time is ahead of now. Its sender chose that time, and lifecycle would wait for EC2 to
// catch up with it.
func checkTime(t event.Trigger, now time.Time) error {
	if !t.Time.After(now.Add(clockSkew)) {
		return nil
	}
	return fault.Refusef("the event of instance %s: its time %s is ahead of now (%s) by more than %s", t.InstanceID,
		t.Time.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), clockSkew)
}

// finality orders states: an instance that is terminated never changes again, and one that is shutting down only ends.
func finality(s facts.State) int {
	switch s {
	case facts.Terminated:
		return 2
	case facts.ShuttingDown:
		return 1
	default:
		return 0
	}
}

// later is the trigger that two of one instance make: the more final state, or else that of the later event, since the
// sender of a message chooses its time; and the hook and the verification of either. A hook waits for what Vault holds,
// whatever the ledger says.
func later(a, b event.Trigger) event.Trigger {
	first, second := finality(a.State), finality(b.State)
	if (first > second) || (first == second && a.Time.After(b.Time)) {
		a, b = b, a
	}
	if b.Hook == nil {
		b.Hook = a.Hook
	}
	b.Verify = b.Verify || a.Verify || b.Hook != nil
	if b.Hook != nil && !b.Hook.Terminating && b.State == facts.Pending {
		b.State = facts.Running // a hook waits: what EC2 does not say yet is tried again and not left to the next event
	}
	return b
}

func (v *invocation) unreadable(ctx context.Context, r event.Record) error {
	level, metric, text := slog.LevelError, observe.Malformed, "event refused"
	if errors.Is(r.Err, event.ErrIgnored) {
		level, metric, text = slog.LevelInfo, observe.Ignored, "event ignored"
	}
	v.metrics.Count(metric)
	v.log.Log(ctx, level, text, observe.KeyMessage, r.MessageID, observe.KeyError, r.Err)
	return r.Err
}

func (v *invocation) converge(ctx context.Context, t event.Trigger, s instance.Sighting) (r result) {
	start := v.Now()
	log := v.log.With(observe.KeyInstance, t.InstanceID, observe.KeyAccount, t.Account, observe.KeyRegion, t.Region)
	if deadline, ok := ctx.Deadline(); ok && deadline.Sub(start) < reserve {
		r.err = fault.Retryf("less than %s is left in this invocation: instance %s goes back to the queue", reserve, t.InstanceID)
	} else {
		r.outcome, r.err = v.patiently(ctx, t, s)
	}
	v.note(t, s, r)
	v.takenOver(ctx, t, r)
	attributes := []any{
		observe.KeyState, s.Facts.State, observe.KeyDuration, v.Now().Sub(start).Milliseconds(),
		observe.KeyProfile, r.outcome.Profile, observe.KeyFQDN, r.outcome.FQDN,
	}
	if errors.Is(r.err, lifecycle.ErrSettling) {
		if r.outcome.Action == lifecycle.Deprovisioned {
			v.removed(ctx, log.With(attributes...), t, r)
		}
		return r
	}
	if r.err != nil {
		v.failed(ctx, log.With(attributes...), t, r)
		return r
	}
	attributes = append(attributes, observe.KeyAction, r.outcome.Action, observe.KeyObjects, r.outcome.Objects)
	switch r.outcome.Action {
	case lifecycle.Provisioned:
		v.metrics.Count(observe.Provisioned)
		if !t.Verify || t.Hook != nil { // a repair has no event to measure from
			v.metrics.Time(observe.TimeToReady, v.Now().Sub(t.Time))
		}
		v.audit(ctx, observe.AuditGranted, t, r)
		log.InfoContext(ctx, "granted", append(attributes, observe.KeyAudit, observe.AuditGranted)...)
	case lifecycle.Deprovisioned:
		v.removed(ctx, log.With(attributes...), t, r)
	case lifecycle.Unmatched:
		v.metrics.Count(observe.Unmatched)
		log.DebugContext(ctx, "no profile fits", attributes...)
	case lifecycle.Unchanged:
		v.metrics.Count(observe.Unchanged)
		log.DebugContext(ctx, "nothing to do", attributes...)
	case lifecycle.TornDown:
		v.metrics.Count(observe.LeftAlone)
		log.WarnContext(ctx, "nothing is granted: this deployment is torn down; delete the item teardown from the ledger's table to take it up again", attributes...)
	default:
		v.metrics.Count(observe.LeftAlone)
		log.DebugContext(ctx, "left alone", attributes...)
	}
	return r
}

// safely keeps a panic over one instance, a damaged record for example, from taking the batch with it.
func (v *invocation) safely(ctx context.Context, t event.Trigger, s instance.Sighting) (outcome lifecycle.Outcome, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("converging instance %s: panic: %v\n%s", t.InstanceID, p, debug.Stack())
		}
	}()
	return v.Converger.Converge(ctx, t, s)
}
