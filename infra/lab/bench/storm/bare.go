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

type grantAndRemoval struct{ grant, removal time.Duration }

// measure times the calls that pass, for new instances of which the functions get no event.
func (b *bare) measure(ctx context.Context, pass func(step) bool) (grantAndRemoval, error) {
	var took grantAndRemoval
	atOnce := b.rig.mapping(provision).MaximumConcurrency * sideBySide
	first, instances := b.rig.launch(atOnce), b.rig.launch(b.n)
	for _, part := range []struct {
		function string
		recipe   recipe
		took     *time.Duration
	}{{provision, b.grant.only(pass), &took.grant}, {deprovision, b.removal.only(pass), &took.removal}} {
		c, err := b.caller(ctx, part.function)
		if err != nil {
			return took, err
		}
		// Connections exist before the measurement, as the functions' do.
		if err := part.recipe.playAll(ctx, c, first, atOnce); err != nil {
			return took, fmt.Errorf("making the calls of %s by bare HTTP: %w", part.function, err)
		}
		start := time.Now()
		if err := part.recipe.playAll(ctx, c, instances, atOnce); err != nil {
			return took, fmt.Errorf("making the calls of %s by bare HTTP: %w", part.function, err)
		}
		*part.took = time.Since(start)
		c.http.CloseIdleConnections()
	}
	return took, nil
}
