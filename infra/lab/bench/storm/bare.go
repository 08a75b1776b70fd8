package storm

import (
	"context"
	"fmt"
	"time"
)

// bare makes the functions' calls by bare HTTP, as many instances at once as the functions would.
type bare struct {
	*way
	recipes
	n int
}

type grantAndRemoval struct{ grant, removal time.Duration }

// measure makes those calls that pass, for instances that EC2 never hears of.
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
		// Connections are made before, as the functions' are.
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
