package storm

import (
	"context"
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// recipes are the functions' calls.
type recipes struct{ grant, removal recipeOfFunction }

// recipeOfFunction is a warm function's calls for one instance alone, and for a full batch.
type recipeOfFunction struct {
	alone   recipe
	inBatch batchRecipe
}

// Record returns the calls that the warm functions make for one instance and for a batch.
func (r *Rig) Record(ctx context.Context) (all recipes, err error) {
	w, err := r.way(ctx, wayOptions{name: "record", tapAll: true, one: true})
	if err != nil {
		return all, err
	}
	defer func() { _ = w.close() }() // the recording is complete
	both, batch := r.launch(2), r.launch(r.mapping(provision).BatchSize)
	for _, part := range []struct {
		function, state string
		recipe          *recipeOfFunction
	}{{provision, "running", &all.grant}, {deprovision, "terminated", &all.removal}} {
		if part.function == deprovision {
			r.cloud.terminate(append(both, batch...)...)
		}
		if err := invoke(ctx, w.Functions[part.function], event(both[0], part.state)); err != nil {
			return all, err
		}
		alone, err := w.record(ctx, part.function, part.state, slow, both[1])
		if err != nil {
			return all, err
		}
		together, err := w.record(ctx, part.function, part.state, 0, batch...)
		if err != nil {
			return all, err
		}
		part.recipe.alone = recipeOf(alone, both[1])
		part.recipe.inBatch = split(part.recipe.alone, together, batch)
		r.opts.Progress("%s: %d calls to Vault for one instance alone; in a batch of %d %d calls for each and %d for all", part.state,
			part.recipe.alone.count(toVault), len(batch), part.recipe.inBatch.each.count(toVault), part.recipe.inBatch.shared.count(toVault))
	}
	return all, nil
}

// idle is an event that the functions ignore. Its time is that of the way into the function and back.
const idle = `{"Records":[{"messageId":"m","body":"{\"source\":\"aws.tag\",\"detail-type\":\"Tag Change on Resource\"}"}]}`

// Warm measures one instance at a time, from the event to the warm function's answer, by which the auth role is active,
// beside the bare chain of the same calls. All alternate, so that other load on the machine weighs on them alike.
func (r *Rig) Warm(ctx context.Context, all recipes, rounds int) (result report.Warm, rows []report.Row, err error) {
	w, err := r.way(ctx, wayOptions{name: "warm", one: true})
	if err != nil {
		return result, nil, err
	}
	defer func() { _ = w.close() }() // the measurement is complete
	c, err := w.caller(ctx, provision)
	if err != nil {
		return result, nil, err
	}
	f, grant := w.Functions[provision], all.grant.alone
	play := func(what recipe) func(fleet.Instance) error {
		return func(i fleet.Instance) error { return what.play(ctx, c, i) }
	}
	work := []func(fleet.Instance) error{
		func(i fleet.Instance) error {
			return invoke(ctx, f, event(i, "running"))
		},
		play(grant),
		play(grant.only(isWrite)),
		func(fleet.Instance) error {
			return invoke(ctx, f, []byte(idle))
		},
	}
	times := make([][]time.Duration, len(work))
	for round := range rounds + 5 {
		for n, do := range work {
			i := r.launch(1)[0]
			start := time.Now()
			if err := do(i); err != nil {
				return result, nil, fmt.Errorf("measuring the warm path: %w", err)
			}
			if round >= 5 { // the first rounds only warm connections and caches
				times[n] = append(times[n], time.Since(start))
			}
		}
	}
	ours, chain, writes, hop := report.Median(times[0]), report.Median(times[1]), report.Median(times[2]), report.Median(times[3])
	reads := grant.steps() - grant.count(isWrite)
	result = report.Warm{Ours: ours.Seconds(), SameCalls: chain.Seconds(), Writes: writes.Seconds()}
	return result, []report.Row{
		{What: fmt.Sprintf("one instance, warm: event → auth role active; the same %d calls", grant.steps()),
			Bare: report.Millis(chain), Ours: report.Millis(ours), Ratio: report.Times(ours, chain)},
		{What: "the same without Lambda's way in and back (" + report.Millis(hop) + ")",
			Bare: report.Millis(chain), Ours: report.Millis(ours - hop), Ratio: report.Times(ours-hop, chain)},
		{What: fmt.Sprintf("beside the chain without its %d reads of Vault before and after", reads),
			Bare: report.Millis(writes), Ours: report.Millis(ours), Ratio: report.Times(ours, writes), Target: "≤ 1.4 ×"},
	}, nil
}
