package scenes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/alarms"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/dashboard"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/queue"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const (
	provision   = "ProvisionFunction"
	deprovision = "DeprovisionFunction"
	reconciler  = "ReconcileFunction"
	// everyQueue is the time between two looks at the queues.
	everyQueue = 500 * time.Millisecond
)

// queues are the queues of the dashboard, by their logical IDs.
func queues() []string {
	return []string{
		"ProvisionQueue", "ProvisionDeadLetterQueue", "DeprovisionQueue", "DeprovisionDeadLetterQueue", "ReconcileQueue", "ReconcileDeadLetterQueue",
	}
}

// scene is a scene's plan. before prepares it unrecorded; play runs it.
type scene struct {
	name, title string
	scale       int           // drawn seconds for a second of the lab
	length      time.Duration // by the lab's clock; play may end earlier
	before      func(context.Context, *recorder) error
	play        func(context.Context, *recorder) error
}

// run is one invocation of a function.
type run struct {
	started  time.Time
	duration time.Duration
	failed   bool
}

// recorder plays one scene and collects its metrics.
type recorder struct {
	world *lab.World
	begin time.Time
	fleet []fleet.Instance // what before launched

	mu      sync.Mutex
	runs    map[string][]run // the direct invocations, by function
	visible []dashboard.Sample
}

// record plays a scene and returns its recording.
func record(ctx context.Context, w *lab.World, s scene) (dashboard.Recording, error) {
	r := &recorder{world: w, runs: map[string][]run{}}
	if err := s.before(ctx, r); err != nil {
		return dashboard.Recording{}, fmt.Errorf("preparing the scene %s: %w", s.name, err)
	}
	r.begin = time.Now()
	sampling, stop := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { r.watch(sampling) })
	err := s.play(ctx, r)
	r.until(ctx, s.length)
	stop()
	watching.Wait()
	if err = errors.Join(err, ctx.Err()); err != nil {
		return dashboard.Recording{}, fmt.Errorf("playing the scene %s: %w", s.name, err)
	}
	out := dashboard.Recording{Name: s.name, Title: s.title, Scale: s.scale, Length: s.length}
	if out.Samples, err = r.samples(s.length); err != nil {
		return dashboard.Recording{}, fmt.Errorf("reading the metrics of the scene %s: %w", s.name, err)
	}
	return out, r.empty(ctx)
}

// samples returns all metrics of the scene.
func (r *recorder) samples(length time.Duration) ([]dashboard.Sample, error) {
	all := r.visible
	for id, poller := range r.world.Pollers {
		for _, b := range poller.Batches() {
			r.runs[id] = append(r.runs[id], run{b.Started, b.Duration, b.FunctionError != ""})
		}
	}
	for id := range r.world.Functions {
		text, err := os.ReadFile(filepath.Join(r.world.RunDir, id+".log"))
		if err != nil {
			return nil, fmt.Errorf("reading the log of %s: %w", id, err)
		}
		own, err := dashboard.ReadLines(string(text), r.begin)
		if err != nil {
			return nil, fmt.Errorf("reading the log of %s: %w", id, err)
		}
		all = append(append(all, own...), r.ofLambda(id)...)
	}
	var within []dashboard.Sample
	for _, s := range all {
		if s.At < length {
			within = append(within, s)
		}
	}
	return within, nil
}

// ofLambda returns the metrics that Lambda would report of a function's runs.
func (r *recorder) ofLambda(function string) []dashboard.Sample {
	var out []dashboard.Sample
	for _, one := range r.runs[function] {
		if one.started.Before(r.begin) {
			continue
		}
		errs, beside := 0.0, 0.0
		if one.failed {
			errs = 1
		}
		for _, other := range r.runs[function] {
			if !other.started.After(one.started) && other.started.Add(other.duration).After(one.started) {
				beside++
			}
		}
		for name, value := range map[string]float64{"Errors": errs, "ConcurrentExecutions": beside, "Duration": float64(one.duration.Milliseconds())} {
			out = append(out, sample(one.started.Sub(r.begin), alarms.Metric{Namespace: "AWS/Lambda", Name: name, Of: function}, value))
		}
	}
	return out
}

func sample(at time.Duration, m alarms.Metric, value float64) dashboard.Sample {
	return dashboard.Sample{At: at.Truncate(time.Millisecond), Metric: m, Values: []dashboard.Value{{Value: value, Count: 1}}}
}

// watch counts the visible messages of the queues until the context ends.
func (r *recorder) watch(ctx context.Context) {
	client := sqs.NewFromConfig(r.world.AWS)
	for n := 0; ; n++ {
		for _, id := range queues() {
			url := r.world.Stack.Resources[id]
			depth, err := queue.DepthOf(ctx, client, url)
			if err != nil {
				continue // a missing point; the test misses the metric if all are missing
			}
			m := alarms.Metric{Namespace: "AWS/SQS", Name: "ApproximateNumberOfMessagesVisible", Of: id}
			r.visible = append(r.visible, sample(time.Since(r.begin), m, float64(depth.Visible)))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(r.begin.Add(time.Duration(n) * everyQueue))):
		}
	}
}

// empty removes what a scene left in the queues, so that the next one begins without it.
func (r *recorder) empty(ctx context.Context) error {
	client := sqs.NewFromConfig(r.world.AWS)
	for _, id := range queues() {
		if _, err := client.PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: aws.String(r.world.Stack.Resources[id])}); err != nil {
			return fmt.Errorf("emptying the queue %s: %w", id, err)
		}
	}
	return nil
}

// until waits until a time of the scene.
func (r *recorder) until(ctx context.Context, at time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(r.begin.Add(at))):
	}
}

// compare runs reconcile as its schedule does. A failed run is part of a scene.
func (r *recorder) compare(ctx context.Context) error {
	payload, err := json.Marshal(reconcile.Input{Mode: reconcile.Correct})
	if err != nil {
		return err
	}
	return r.invoke(ctx, reconciler, payload)
}

// invoke runs a function directly and records the run.
func (r *recorder) invoke(ctx context.Context, function string, payload []byte) error {
	started := time.Now()
	result, err := r.world.Functions[function].Invoke(ctx, payload)
	if err != nil {
		return fmt.Errorf("invoking %s: %w", function, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs[function] = append(r.runs[function], run{started, result.Duration, result.Err() != nil})
	return nil
}

// send puts a message into a queue.
func (r *recorder) send(ctx context.Context, queueID string, body []byte) error {
	_, err := sqs.NewFromConfig(r.world.AWS).SendMessage(ctx, &sqs.SendMessageInput{
		QueueUrl: aws.String(r.world.Stack.Resources[queueID]), MessageBody: aws.String(string(body)),
	})
	if err != nil {
		return fmt.Errorf("sending a message to %s: %w", queueID, err)
	}
	return nil
}

// launch launches workers and keeps them in the recorder's fleet.
func (r *recorder) launch(ctx context.Context, n int) error {
	launched, err := r.world.Fleet.Launch(ctx, fleet.Spec{Count: n, Role: "alice-worker"})
	r.fleet = append(r.fleet, launched...)
	return err
}

// start launches a worker and announces it.
func (r *recorder) start(ctx context.Context) error {
	if err := r.launch(ctx, 1); err != nil {
		return err
	}
	return r.world.Fleet.Announce(ctx, r.fleet[len(r.fleet)-1], "running")
}

// end terminates the oldest workers of the fleet and announces them.
func (r *recorder) end(ctx context.Context, n int) error {
	for _, i := range r.fleet[:n] {
		if err := r.world.Fleet.Terminate(ctx, i); err != nil {
			return err
		}
		if err := r.world.Fleet.Announce(ctx, i, "terminated"); err != nil {
			return err
		}
	}
	r.fleet = r.fleet[n:]
	return nil
}

// granted announces the fleet and waits until the provision function is done with it.
func (r *recorder) granted(ctx context.Context) error {
	for _, i := range r.fleet {
		if err := r.world.Fleet.Announce(ctx, i, "running"); err != nil {
			return err
		}
	}
	return r.world.Pollers[provision].Drained(ctx)
}
