package storm

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/dynamodb/attributevalue"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// storm is the result of one storm of events.
type storm struct {
	pass      // took is from the first message received to the last instance done
	each      []time.Duration
	describes int
	batches   int
	peak      int64 // bytes of memory, of the largest sandbox
}

// stormLimit is far longer than a storm takes.
const stormLimit = 90 * time.Second

// warm starts every sandbox of a function, with its connections and its login, by the event of one instance each.
func (w *way) warm(ctx context.Context, function, state string, instances []fleet.Instance) error {
	var group errgroup.Group
	for _, i := range instances {
		group.Go(func() error {
			return invoke(ctx, w.Functions[function], event(i, state))
		})
	}
	return group.Wait()
}

// drain puts one event for each instance into a function's queue and then starts the poller. It fails if an event failed.
func (w *way) drain(ctx context.Context, function, state string, instances []fleet.Instance) (storm, error) {
	var s storm
	f := w.Functions[function]
	p := w.poll(function)
	bodies := make([][]byte, len(instances))
	for n, i := range instances {
		bodies[n] = event(i, state)
	}
	w.rig.cloud.send(w.rig.mapping(function).QueueURL, bodies...)
	describes, before, start := w.rig.cloud.count("DescribeInstances"), w.usage(), time.Now()
	p.Resume()
	waiting, cancel := context.WithTimeout(ctx, stormLimit)
	defer cancel()
	err := p.Drained(waiting)
	s.took, s.used = time.Since(start), w.usage().since(before)
	if err := errors.Join(err, p.Close()); err != nil {
		return s, err
	}
	s.describes, s.peak = w.rig.cloud.count("DescribeInstances")-describes, f.Peak()
	events := 0
	for _, b := range p.Batches() {
		events += len(b.Records)
		s.batches++
		if b.Failures > 0 || b.FunctionError != "" {
			return s, fmt.Errorf("%d of a batch of %d %s events failed: %s\n%s", b.Failures, len(b.Records), state, b.FunctionError, lastOf(f.Logs()))
		}
	}
	if events != len(instances) {
		return s, fmt.Errorf("%d %s events were delivered, want %d", events, state, len(instances))
	}
	// A refused, throttled or broken call to Vault shows as a throttle or as a retried message.
	for _, trouble := range []string{`"VaultThrottles":`, `"Retried":`} {
		if logs := f.Logs(); reported(logs, trouble) {
			return s, fmt.Errorf("a storm of %s events made Vault refuse calls (%s)\n%s", state, trouble, lastOf(logs))
		}
	}
	records, err := w.records(ctx)
	if err != nil {
		return s, err
	}
	s.took = 0
	for _, i := range instances {
		r, ok := records[i.ID]
		if !ok {
			return s, fmt.Errorf("after the storm the ledger has no record of instance %s", i.ID)
		}
		done := r.UpdatedAt.Sub(start)
		s.each = append(s.each, done)
		s.took = max(s.took, done)
	}
	return s, nil
}

// reported reports whether the logs hold a count of the metric that is not 0.
func reported(logs, metric string) bool {
	for rest := logs; ; {
		_, after, found := strings.Cut(rest, metric)
		if !found {
			return false
		}
		if !strings.HasPrefix(after, "0") {
			return true
		}
		rest = after
	}
}

func lastOf(logs string) string { return logs[max(0, len(logs)-2000):] }

// records returns the ledger's records by instance.
func (w *way) records(ctx context.Context) (map[string]ledger.Record, error) {
	all := map[string]ledger.Record{}
	pages := dynamodb.NewScanPaginator(w.table, &dynamodb.ScanInput{TableName: aws.String(w.rig.Stack.Tables["Table"]), ConsistentRead: aws.Bool(true)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("scanning the ledger: %w", err)
		}
		for _, item := range page.Items {
			var record ledger.Record
			if err := attributevalue.UnmarshalMap(item, &record); err != nil {
				return nil, fmt.Errorf("scanning the ledger: %w", err)
			}
			if record.State != "" { // else a claim
				all[record.InstanceID] = record
			}
		}
	}
	return all, nil
}

// want checks that the record of every instance has the state and was written that often.
func (w *way) want(ctx context.Context, instances []fleet.Instance, state ledger.State, writes int64) error {
	records, err := w.records(ctx)
	if err != nil {
		return err
	}
	for _, i := range instances {
		if got := records[i.ID]; got.State != state || got.Version != writes {
			return fmt.Errorf("the record of instance %s is %s after %d writes, want %s after %d: %s", i.ID, got.State, got.Version, state, writes, got.LastError)
		}
	}
	return nil
}
