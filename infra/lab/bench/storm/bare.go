package storm

import (
	"context"
	"fmt"
	"time"
)

// bare makes the functions' calls by bare HTTP, for as many instances at once as the functions would.
type bare struct {
	*way
	recipes
	n int
}

// pass is one way of doing a wave's work: its time and the processor time of each part.
type pass struct {
	took time.Duration
	used usage
}

// and returns the mean of two passes.
func (p pass) and(other pass) pass {
	return pass{took: (p.took + other.took) / 2, used: p.used.and(other.used)}
}

type grantAndRemoval struct{ grant, removal pass }

func (p grantAndRemoval) and(other grantAndRemoval) grantAndRemoval {
	return grantAndRemoval{grant: p.grant.and(other.grant), removal: p.removal.and(other.removal)}
}

// measure times the calls that pass, for new instances of which the functions get no event.
func (b *bare) measure(ctx context.Context, passes func(step) bool) (grantAndRemoval, error) {
	var all grantAndRemoval
	atOnce := b.rig.mapping(provision).MaximumConcurrency * sideBySide
	first, instances := b.rig.launch(atOnce), b.rig.launch(b.n)
	for _, part := range []struct {
		function string
		recipe   batchRecipe
		pass     *pass
	}{{provision, b.grant.inBatch.only(passes), &all.grant}, {deprovision, b.removal.inBatch.only(passes), &all.removal}} {
		c, err := b.caller(ctx, part.function)
		if err != nil {
			return all, err
		}
		// Connections exist before the measurement, as the functions' do.
		if err := part.recipe.playAll(ctx, c, first, atOnce); err != nil {
			return all, fmt.Errorf("making the calls of %s by bare HTTP: %w", part.function, err)
		}
		before, start := b.usage(), time.Now()
		if err := part.recipe.playAll(ctx, c, instances, atOnce); err != nil {
			return all, fmt.Errorf("making the calls of %s by bare HTTP: %w", part.function, err)
		}
		part.pass.took, part.pass.used = time.Since(start), b.usage().since(before)
		c.http.CloseIdleConnections()
	}
	return all, nil
}

// limits are the bare passes of a storm.
type limits struct{ calls, withLedger, writes grantAndRemoval }

// limits measures the bare calls to Vault and the writes among them, and on request the calls with the ledger's.
func (b *bare) limits(ctx context.Context, withLedger bool) (l limits, err error) {
	if l.calls, err = b.measure(ctx, toVault); err != nil {
		return l, err
	}
	if l.writes, err = b.measure(ctx, func(s step) bool { return toVault(s) && isWrite(s) }); err != nil || !withLedger {
		return l, err
	}
	l.withLedger, err = b.measure(ctx, func(s step) bool { return toVault(s) || toLedger(s) })
	return l, err
}
