package storm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const (
	// sideBySide is the number of instances of a batch that a function converges at once.
	sideBySide = 10
	// writesToGrant and writesToRemove are the ledger writes of an instance: intent and active, tombstone and deleted.
	writesToGrant, writesToRemove = 2, 2
	// sample is the number of instances that log in before they end; askEvery is the time between two uses of their tokens.
	sample   = 20
	askEvery = 100 * time.Millisecond
)

// load describes a storm to measure.
type load struct {
	report.Setup
	N int // instances
}

// isShort reports whether only the start and the end are measured, beside the calls to Vault.
func (o load) isShort() bool { return o.Setup != report.Setup{} }

// delay returns the time that is added to every call to Vault.
func (o load) delay() time.Duration {
	if o.Delayed {
		return network
	}
	return 0
}

// Storms measures the start, the repetition and the end of all instances at once. The limits are measured before and after.
func (r *Rig) Storms(ctx context.Context, all recipes, o load) (out measured, err error) {
	r.storms++
	w, err := r.way(ctx, wayOptions{name: fmt.Sprintf("storm-%d", r.storms), delay: o.delay(), inMemory: o.LedgerInMemory})
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	b := &bare{way: w, recipes: all, n: o.N}
	before, err := b.limits(ctx, !o.isShort())
	if err != nil {
		return out, err
	}
	ours, err := w.lives(ctx, o)
	if err != nil {
		return out, err
	}
	after, err := b.limits(ctx, false)
	if err != nil {
		return out, err
	}
	return measured{load: o, recipes: all, lives: ours, limits: limits{
		calls: before.calls.and(after.calls), writes: before.writes.and(after.writes), withLedger: before.withLedger,
	}}, nil
}

// lives holds the storms of one fleet.
type lives struct {
	grant, repeat, removal storm
	cutOff                 []time.Duration // until the cut, for each instance of the sample
}

// lives lets a fleet start, sends its events again and ends it.
func (w *way) lives(ctx context.Context, o load) (lives, error) {
	var l lives
	first := w.rig.launch(w.rig.mapping(provision).MaximumConcurrency)
	if err := w.warm(ctx, provision, "running", first); err != nil {
		return l, err
	}
	fleet := w.rig.launch(o.N)
	var err error
	if l.grant, err = w.drain(ctx, provision, "running", fleet); err != nil {
		return l, err
	}
	if err := w.want(ctx, fleet, ledger.Active, writesToGrant); err != nil {
		return l, err
	}
	if !o.isShort() {
		if l.repeat, err = w.repeat(ctx, fleet); err != nil {
			return l, err
		}
	}
	w.rig.cloud.terminate(first...)
	if err := w.warm(ctx, deprovision, "terminated", first); err != nil {
		return l, err
	}
	tokens, err := w.logIn(ctx, fleet)
	if err != nil {
		return l, err
	}
	w.rig.cloud.terminate(fleet...)
	cut := tokens.watch(ctx)
	if l.removal, err = w.drain(ctx, deprovision, "terminated", fleet); err != nil {
		return l, err
	}
	if l.cutOff, err = cut(); err != nil {
		return l, err
	}
	return l, w.want(ctx, fleet, ledger.Deleted, writesToGrant+writesToRemove)
}

// repeat sends the events of instances that are granted already.
func (w *way) repeat(ctx context.Context, fleet []fleet.Instance) (storm, error) {
	start := time.Now()
	s, err := w.drain(ctx, provision, "running", fleet)
	s.took = time.Since(start) // no record was written that would hold a time
	if err != nil {
		return s, err
	}
	return s, w.want(ctx, fleet, ledger.Active, writesToGrant)
}

// live holds the sessions of the sample.
type live struct{ sessions []*fleet.Session }

// logIn logs in a sample of the instances, spread over the queue.
func (w *way) logIn(ctx context.Context, all []fleet.Instance) (live, error) {
	var l live
	for n := range min(sample, len(all)) {
		s, err := w.rig.Fleet.Login(ctx, w.rig.AuthMount, all[n*len(all)/min(sample, len(all))], "")
		if err != nil {
			return l, fmt.Errorf("logging in with the grant: %w", err)
		}
		l.sessions = append(l.sessions, s)
	}
	return l, nil
}

// watch uses each token until Vault refuses it. The function it returns waits for the last and returns the times.
func (l live) watch(ctx context.Context) func() ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	start := time.Now()
	times, errs := make([]time.Duration, len(l.sessions)), make([]error, len(l.sessions))
	var group sync.WaitGroup
	for n, s := range l.sessions {
		group.Go(func() {
			for ctx.Err() == nil {
				response, err := s.Logical().ReadRawWithContext(ctx, "auth/token/lookup-self")
				if response != nil {
					_ = response.Body.Close()
					if response.StatusCode == http.StatusForbidden {
						times[n] = time.Since(start)
						return
					}
				}
				if err != nil && response == nil {
					errs[n] = err
					return
				}
				time.Sleep(askEvery)
			}
			errs[n] = errors.New("a token was still valid after five minutes")
		})
	}
	return func() ([]time.Duration, error) {
		defer cancel()
		group.Wait()
		return times, errors.Join(errs...)
	}
}
