package handler

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/events"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// These bound how many instances of a batch converge at once. With more, each only waits longer: a Vault on Raft holds a lock across
// each commit of a policy or an auth role.
const (
	leastAtOnce = 8
	mostAtOnce  = 10
)

// atOnce returns how many of n instances converge at once: the number within the bounds that leaves the fewest places idle in the last
// round, so that a batch does not end with all waiting for a few. A full batch of 50 takes five rounds of ten.
func atOnce(n int) int {
	best, fewest := mostAtOnce, mostAtOnce
	for limit := mostAtOnce; limit >= leastAtOnce; limit-- {
		if idle := (limit - n%limit) % limit; idle < fewest {
			best, fewest = limit, idle
		}
	}
	return best
}

// clockSkew is how far ahead of the function's clock the time of an event may be.
const clockSkew = time.Minute

// handle converges each instance of the records once, whatever the number of its events, and returns one result for each
// record. A bad record never holds up its neighbours.
func (inv *invocation) handle(ctx context.Context, records []event.Record) []result {
	results := make([]result, len(records))
	latest, of := inv.gather(ctx, records, results)
	if len(latest) == 0 {
		return results
	}
	tasks, unconfirmed := inv.beforeConverge(ctx, latest)
	sightings := inv.Instances.Describe(ctx, slices.Collect(maps.Keys(tasks)))
	batch := inv.Converger.Begin(ctx, sightings)
	var mu sync.Mutex
	converge := func(ref facts.Ref) {
		t, s := tasks[ref], sightings[ref]
		if err := unconfirmed[ref]; err != nil && s.Facts.State != facts.Terminated {
			s.Err = err
		}
		t.Batch = batch
		r := inv.converge(ctx, t, s)
		for _, i := range of[ref] {
			answered := inv.afterConverge(ctx, records[i].Event, r)
			mu.Lock()
			results[i] = answered
			mu.Unlock()
		}
	}
	// The same goroutines converge all instances: the AWS SDK's calls go so deep that each new goroutine's stack is copied several times
	// as it grows.
	next := make(chan facts.Ref)
	var group sync.WaitGroup
	for range min(len(tasks), atOnce(len(tasks))) {
		group.Go(func() {
			for ref := range next {
				converge(ref)
			}
		})
	}
	for ref := range tasks {
		next <- ref
	}
	close(next)
	group.Wait()
	for ref, err := range inv.tagInstances(ctx) {
		for _, i := range of[ref] {
			if results[i].err == nil && records[i].Event.Hook == nil {
				results[i].err = err // the rest is done, and doing it again costs nothing
			}
		}
	}
	return results
}

// gather returns one event for each instance and the indices of its records. A record without a usable event has its
// error among the results.
func (inv *invocation) gather(ctx context.Context, records []event.Record, results []result) (latest map[facts.Ref]event.Event, of map[facts.Ref][]int) {
	latest, of = map[facts.Ref]event.Event{}, map[facts.Ref][]int{}
	begun := inv.Now()
	for i, r := range records {
		if !r.Sent.IsZero() {
			inv.metrics.Time(observe.QueueAge, begun.Sub(r.Sent))
		}
		if r.Err == nil {
			r.Err = inv.Hooks.check(r.Event.Hook)
		}
		if r.Err == nil {
			r.Err = checkTime(r.Event, begun)
		}
		if r.Err == nil {
			r.Err = inv.Findings.check(ctx, r.Event)
		}
		if r.Err != nil {
			results[i].err = inv.reportUnusable(ctx, r)
			continue
		}
		ref := r.Event.Ref
		of[ref] = append(of[ref], i)
		latest[ref] = merge(latest[ref], r.Event)
	}
	return latest, of
}

// checkTime refuses an event whose time is ahead of now. The sender chose that time, and converge would wait for EC2 to
// catch up with it.
func checkTime(e event.Event, now time.Time) error {
	if !e.Time.After(now.Add(clockSkew)) {
		return nil
	}
	return fault.Refusef("the event of instance %s: its time %s is ahead of now (%s) by more than %s", e.ID,
		e.Time.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), clockSkew)
}

// finality orders states: a terminated instance never changes again, and one that is shutting down only ends.
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

// merge returns one event for two of the same instance. The more final state wins, then the later time, since the sender
// of a message chooses its time. The result has the hook and the Verify of either, and the finding
// that was seen last. A hook sets Verify: it waits for Vault's contents, whatever the ledger says.
func merge(a, b event.Event) event.Event {
	first, second := finality(a.State), finality(b.State)
	if (first > second) || (first == second && a.Time.After(b.Time)) {
		a, b = b, a
	}
	if b.Hook == nil {
		b.Hook = a.Hook
	}
	if a.Finding != nil && (b.Finding == nil || a.Finding.LastSeen.After(b.Finding.LastSeen)) {
		b.Finding = a.Finding
	}
	b.Verify = b.Verify || a.Verify || b.Hook != nil
	if b.Hook != nil && !b.Hook.Terminating && b.State == facts.Pending {
		b.State = facts.Running // a hook waits: missing facts are tried again, and not left to the next event
	}
	return b
}

// reportUnusable logs and counts a record without a usable event, and returns its error.
func (inv *invocation) reportUnusable(ctx context.Context, r event.Record) error {
	level, metric, text := slog.LevelError, observe.Malformed, "event refused"
	switch {
	case errors.Is(r.Err, event.ErrIgnored):
		level, metric, text = slog.LevelInfo, observe.Ignored, "event ignored"
	case fault.KindOf(r.Err) == fault.Retry:
		level, metric, text = slog.LevelWarn, observe.Retried, "not done, to be tried again"
	}
	inv.metrics.Count(metric)
	inv.log.Log(ctx, level, text, observe.KeyMessage, r.MessageID, observe.KeyError, r.Err)
	return r.Err
}

// failures returns the answer to SQS: the messages to deliver again.
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
