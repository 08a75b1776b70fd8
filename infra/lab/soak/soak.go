package soak

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const (
	provision   = "ProvisionFunction"
	deprovision = "DeprovisionFunction"
	reconciler  = "ReconcileFunction"
)

// Options configure a soak: its duration, the number of instances, and the seed of its random numbers.
type Options struct {
	For       time.Duration
	Instances int
	Seed      uint64

	sessions map[string]*fleet.Session // of terminated instances, by ID
}

const (
	// reconcileEvery replaces the schedule.
	reconcileEvery = 20 * time.Second
	// visibility is the queues' visibility timeout in seconds: shorter than in the template, so that more is retried.
	visibility = "15"
	// idleTimeout bounds the time until no work is left: the lease of a killed run, then a removal that waits out Vault's
	// longest request, with a reserve. An instance whose tag may still come is retried for five minutes besides.
	idleTimeout = 10 * time.Minute
)

// Run soaks a world where the functions call Vault through a tap. In a world with a cluster, nodes go down and come back. The error names every disagreement at the end.
func Run(ctx context.Context, w *lab.World, o Options, out io.Writer) error {
	o.sessions = map[string]*fleet.Session{}
	client := sqs.NewFromConfig(w.AWS)
	for _, m := range w.Stack.Mappings {
		if m.FunctionLogicalID == reconciler {
			continue
		}
		if _, err := client.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{
			QueueUrl: &m.QueueURL, Attributes: map[string]string{"VisibilityTimeout": visibility},
		}); err != nil {
			return fmt.Errorf("shortening the visibility timeout of %s: %w", m.QueueURL, err)
		}
	}
	fmt.Fprintf(out, "soak: %d instances are launched and terminated within %s, seed %d\n", o.Instances, o.For, o.Seed)
	dice := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(o.Seed, n)) }
	faults := &injector{world: w, rng: dice(1), counts: map[string]int{}}
	life := &churn{world: w, rng: dice(2), plan: o}
	watch := &watch{world: w, out: out, memory: map[string][]int64{}}

	during, end := context.WithTimeout(ctx, o.For)
	defer end()
	nodes := &striker{cluster: w.Cluster, counts: faults, rng: dice(3)}
	var running sync.WaitGroup
	running.Go(func() { faults.run(during) })
	running.Go(func() { watch.run(during) })
	if w.Cluster != nil {
		running.Go(func() { nodes.run(during) })
	}
	life.run(during)
	end()
	running.Wait()
	if err := errors.Join(ctx.Err(), errors.Join(nodes.errs...)); err != nil {
		return err
	}
	quietAfter, err := watch.waitForIdle(ctx)
	if err != nil {
		return errors.Join(err, errors.Join(life.errs...))
	}
	verdict, disagree := judge(ctx, w, life)
	report(out, faults, life, watch, verdict, quietAfter)
	return errors.Join(errors.Join(disagree...), errors.Join(life.errs...), errors.Join(grew(watch.memory)...))
}

// watch runs reconcile as the schedule does and samples the functions' memory.
type watch struct {
	world      *lab.World
	out        io.Writer
	memory     map[string][]int64 // largest process of each function, over time
	runs       int
	failedRuns int
	summary    reconcile.Summary
	blocked    int
}

func (w *watch) run(ctx context.Context) {
	sample := time.NewTicker(2 * time.Second)
	defer sample.Stop()
	next := time.Now().Add(reconcileEvery)
	for {
		select {
		case <-ctx.Done():
			return
		case <-sample.C:
			w.sample()
		}
		if time.Now().After(next) {
			next = time.Now().Add(reconcileEvery)
			if _, err := w.reconcile(ctx, reconcile.Correct); err != nil && ctx.Err() == nil {
				w.failedRuns++ // faults also hit reconcile
			}
		}
	}
}

func (w *watch) sample() {
	for name, f := range w.world.Functions {
		most := int64(0)
		for _, r := range f.Resident() {
			most = max(most, r)
		}
		if most > 0 {
			w.memory[name] = append(w.memory[name], most)
		}
	}
}

func (w *watch) reconcile(ctx context.Context, mode reconcile.Mode) (reconcile.Answer, error) {
	var a reconcile.Answer
	payload, err := json.Marshal(reconcile.Input{Mode: mode})
	if err != nil {
		return a, err
	}
	result, err := w.world.Functions[reconciler].Invoke(ctx, payload)
	if err == nil {
		err = result.Err()
	}
	if err == nil {
		err = json.Unmarshal(result.Payload, &a)
	}
	if err != nil {
		return a, fmt.Errorf("invoking reconcile: %w", err)
	}
	w.runs++
	if a.Blocked {
		w.blocked++
	}
	s := a.Summary
	w.summary.Missing += s.Missing
	w.summary.Changed += s.Changed
	w.summary.Orphaned += s.Orphaned
	w.summary.Conflicting += s.Conflicting
	w.summary.Corrected += s.Corrected
	w.summary.Failed += s.Failed
	return a, nil
}

// waitForIdle runs reconcile as the schedule does until no work is left: the queues are empty, no record is in work and
// reconcile finds no drift. It returns the time that this took.
func (w *watch) waitForIdle(ctx context.Context) (time.Duration, error) {
	begin := time.Now()
	for {
		idle := true
		for _, p := range w.world.Pollers {
			depth, err := p.Depth(ctx)
			if err != nil {
				return 0, err
			}
			idle = idle && depth.Visible+depth.InFlight == 0
		}
		a, err := w.reconcile(ctx, reconcile.Correct)
		if err != nil {
			return 0, err
		}
		busy, err := inWork(ctx, w.world)
		if err != nil {
			return 0, err
		}
		if idle && len(a.Drift) == 0 && !a.Blocked && busy == 0 {
			return time.Since(begin), nil
		}
		if time.Since(begin) > idleTimeout {
			return 0, fmt.Errorf("not idle after %s: queues empty: %v, records in work: %d, reconcile answers %+v", idleTimeout, idle, busy, a)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(3 * time.Second):
		}
	}
}
