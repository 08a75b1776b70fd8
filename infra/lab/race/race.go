// Package race measures which comes first: an instance's first login or its auth role.
package race

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

const (
	provision     = "ProvisionFunction"
	role          = "alice-worker"
	fewInstances  = 5   // instances of most rows of the table
	manyInstances = 200 // instances of the last rows
	// senders bounds the events that are sent side by side: moto is one process.
	senders = 8
	// giveUp bounds one instance's tries.
	giveUp = 3 * time.Minute
	// Vault Agent's waits as set in infra/instance: they double from min to max, each shortened by up to a quarter.
	minBackoff, maxBackoff = time.Second, 10 * time.Second
)

// row is one case of the table.
type row struct {
	instances int
	first     time.Duration // from an instance's event to its first login
	cold      bool          // the functions have no running process
}

// boot is the result of one instance.
type boot struct {
	atOnce bool          // the first login succeeded
	waited time.Duration // from its first try to its token
	err    error
}

// Run measures on a world with running functions and pollers, and prints a table. Instances log in with their signed
// documents from their own addresses, and retry as Vault Agent does with infra/instance's configuration. Run takes some
// three minutes and leaves no instance running.
func Run(ctx context.Context, w *lab.World, out io.Writer) error {
	fmt.Fprintf(out, "| functions | instances | first login after | successful at once | wait of the others: median | longest |\n| --- | --- | --- | --- | --- | --- |\n")
	var rows []row
	for _, cold := range []bool{true, false} {
		for _, first := range []time.Duration{0, time.Second, 5 * time.Second, 20 * time.Second} {
			rows = append(rows, row{fewInstances, first, cold})
		}
	}
	for _, first := range []time.Duration{0, 5 * time.Second, 20 * time.Second} {
		rows = append(rows, row{manyInstances, first, true})
	}
	for _, r := range rows {
		boots, err := measure(ctx, w, r)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, line(r, boots))
	}
	return nil
}

func measure(ctx context.Context, w *lab.World, r row) ([]boot, error) {
	instances, err := w.Fleet.Launch(ctx, fleet.Spec{Role: role, Count: r.instances})
	if err != nil {
		return nil, err
	}
	if r.cold {
		if err := w.Functions[provision].Kill(); err != nil {
			return nil, fmt.Errorf("ending the provision function's processes: %w", err)
		}
	}
	boots := make([]boot, len(instances))
	var group sync.WaitGroup
	gate := make(chan struct{}, senders)
	for n, i := range instances {
		group.Go(func() { boots[n] = bootOne(ctx, w, i, r.first, gate) })
	}
	group.Wait()
	for n, b := range boots {
		if b.err != nil {
			return nil, fmt.Errorf("instance %s: %w", instances[n].ID, b.err)
		}
	}
	return boots, end(ctx, w, instances)
}

// bootOne sends an instance's event when gate has room, waits for first, and logs in until it succeeds.
func bootOne(ctx context.Context, w *lab.World, i fleet.Instance, first time.Duration, gate chan struct{}) boot {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	gate <- struct{}{}
	err := w.Fleet.Deliver(ctx, "running", fleet.Event(i, "running", time.Now()))
	<-gate
	if err != nil {
		return boot{err: err}
	}
	if err := sleep(ctx, first); err != nil {
		return boot{err: err}
	}
	begun := time.Now()
	for wait, tries := minBackoff, 0; ; tries++ {
		_, err = w.Fleet.Login(ctx, w.AuthMount, i, "")
		if err == nil {
			return boot{atOnce: tries == 0, waited: time.Since(begun)}
		}
		if sleep(ctx, wait-rand.N(wait/4)) != nil { // spreads the tries
			return boot{err: fmt.Errorf("it never logged in: %w", err)}
		}
		wait = min(2*wait, maxBackoff)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// end terminates the instances and waits until Vault has no object of theirs, so that the next row starts with empty queues.
func end(ctx context.Context, w *lab.World, instances []fleet.Instance) error {
	if err := w.Fleet.Terminate(ctx, instances...); err != nil {
		return err
	}
	for _, i := range instances {
		if err := w.Fleet.Deliver(ctx, "terminated", fleet.Event(i, "terminated", time.Now())); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	for {
		left, err := w.Objects(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(instances, func(i fleet.Instance) bool { return len(left[i.ID]) > 0 }) {
			return nil
		}
		if err := sleep(ctx, time.Second); err != nil {
			return fmt.Errorf("waiting for the removal of %d instances: %w", len(instances), err)
		}
	}
}

func line(r row, boots []boot) string {
	var waits []time.Duration
	for _, b := range boots {
		if !b.atOnce {
			waits = append(waits, b.waited)
		}
	}
	slices.Sort(waits)
	median, longest := "", ""
	if len(waits) > 0 {
		median, longest = seconds(waits[len(waits)/2]), seconds(waits[len(waits)-1])
	}
	state := map[bool]string{true: "cold", false: "warm"}[r.cold]
	return "| " + strings.Join([]string{
		state, fmt.Sprint(r.instances), fmt.Sprintf("%d s", int(r.first.Seconds())), fmt.Sprintf("%d of %d", len(boots)-len(waits), len(boots)), median, longest,
	}, " | ") + " |"
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
