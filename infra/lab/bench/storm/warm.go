package storm

import (
	"context"
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// recipes are the functions' calls for one instance.
type recipes struct{ grant, removal recipe }

// Record returns the calls that the warm functions make for one instance.
func (r *Rig) Record(ctx context.Context) (recipes, error) {
	w, err := r.way(ctx, wayOptions{name: "record", tapAll: true, one: true})
	if err != nil {
		return recipes{}, err
	}
	defer func() { _ = w.close() }() // the recording is complete
	var all recipes
	both := r.launch(2)
	if err := invoke(ctx, w.Functions[provision], event(both[0], "running")); err != nil {
		return all, err
	}
	if all.grant, err = w.record(ctx, provision, both[1], "running"); err != nil {
		return all, err
	}
	r.cloud.terminate(both...)
	if err := invoke(ctx, w.Functions[deprovision], event(both[0], "terminated")); err != nil {
		return all, err
	}
	all.removal, err = w.record(ctx, deprovision, both[1], "terminated")
	return all, err
}

// idle is an event that the functions ignore. Its time is that of the way into the function and back.
const idle = `{"Records":[{"messageId":"m","body":"{\"source\":\"aws.tag\",\"detail-type\":\"Tag Change on Resource\"}"}]}`

// Warm measures one instance at a time, from the event to the warm function's answer, by which the auth role is active,
// beside the bare chain of the same calls. All alternate, so that other load on the machine weighs on them alike.
func (r *Rig) Warm(ctx context.Context, all recipes, rounds int) ([]report.Row, error) {
	w, err := r.way(ctx, wayOptions{name: "warm", one: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = w.close() }() // the measurement is complete
	c, err := w.caller(ctx, provision)
	if err != nil {
		return nil, err
	}
	f := w.Functions[provision]
	play := func(what recipe) func(fleet.Instance) error {
		return func(i fleet.Instance) error { return what.play(ctx, c, i) }
	}
	work := []func(fleet.Instance) error{
		func(i fleet.Instance) error {
			return invoke(ctx, f, event(i, "running"))
		},
		play(all.grant),
		play(all.grant.only(isWrite)),
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
				return nil, fmt.Errorf("measuring the warm path: %w", err)
			}
			if round >= 5 { // the first rounds only warm connections and caches
				times[n] = append(times[n], time.Since(start))
			}
		}
	}
	ours, chain, writes, hop := report.Median(times[0]), report.Median(times[1]), report.Median(times[2]), report.Median(times[3])
	reads := all.grant.steps() - all.grant.count(isWrite)
	return []report.Row{
		{What: fmt.Sprintf("one instance, warm: event → auth role active; the same %d calls", all.grant.steps()),
			Bare: report.Millis(chain), Ours: report.Millis(ours), Ratio: report.Times(ours, chain), Target: "≤ 1.15 ×"},
		{What: "the same without Lambda's way in and back (" + report.Millis(hop) + ")",
			Bare: report.Millis(chain), Ours: report.Millis(ours - hop), Ratio: report.Times(ours-hop, chain)},
		{What: fmt.Sprintf("beside the chain without its %d reads of Vault before and after", reads),
			Bare: report.Millis(writes), Ours: report.Millis(ours), Ratio: report.Times(ours, writes)},
	}, nil
}
