package storm

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

// batchRecipe is the calls of a warm function for a full batch: those that it makes once for all its instances, and those that
// it makes for each.
type batchRecipe struct{ shared, each recipe }

// split compares the calls for a batch with those for one instance alone. A call that the batch makes for each of its instances
// keeps the place that it has alone. A call that the batch makes less often is left out there: the batch makes all its other
// calls once.
func split(alone recipe, steps []recorded, batch []fleet.Instance) batchRecipe {
	ofAlone, ofBatch := alone.shapes(), shapesOf(batch)
	made := map[string]int{}
	for _, s := range steps {
		made[ofBatch(s.step)]++
	}
	// The number of each shape's calls that are each instance's own.
	own, left := map[string]int{}, map[string]int{}
	each := alone.only(func(s step) bool {
		shape := ofAlone(s)
		if made[shape] < (own[shape]+1)*len(batch) {
			return false
		}
		own[shape]++
		left[shape] = own[shape] * len(batch)
		return true
	})
	var shared []recorded
	for _, s := range steps {
		if shape := ofBatch(s.step); left[shape] > 0 {
			left[shape]--
		} else {
			shared = append(shared, s)
		}
	}
	return batchRecipe{shared: recipeOf(shared, batch...), each: each}
}

// shapes returns a function that replaces the recipe's instances in a step.
func (r *recipe) shapes() func(step) string { return shapesOf(r.of) }

// shapesOf returns a function that returns a step's shape: steps of one shape are the same call, with the same outcome, for
// different instances.
func shapesOf(instances []fleet.Instance) func(step) string {
	var pairs []string
	for _, i := range instances {
		for n, v := range valuesOf(i) {
			pairs = append(pairs, v, fmt.Sprintf("{%d}", n))
		}
	}
	replace := strings.NewReplacer(pairs...)
	return func(s step) string {
		what := s.action
		if toVault(s) {
			what = s.method + replace.Replace(s.path)
		}
		return fmt.Sprint(s.service, " ", what, " ", s.status, " ", ofTeardown(s))
	}
}

// only returns the recipe with only the steps that pass.
func (r batchRecipe) only(pass func(step) bool) batchRecipe {
	return batchRecipe{shared: r.shared.only(pass), each: r.each.only(pass)}
}

// perInstance returns the number of steps for an instance, with its share of the batch's.
func (r batchRecipe) perInstance(pass func(step) bool) float64 {
	return float64(r.each.count(pass)) + float64(r.shared.count(pass))/float64(len(r.shared.of))
}

// playAll makes a recipe's calls for many instances, atOnce of them at a time. The first instance of each batch makes the
// batch's shared calls before its own; the others do not wait for them.
func (r batchRecipe) playAll(ctx context.Context, c *caller, instances []fleet.Instance, atOnce int) error {
	group, ctx := errgroup.WithContext(ctx)
	size := len(r.shared.of)
	var next atomic.Int64
	for range atOnce {
		group.Go(func() error {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(instances) {
					return nil
				}
				var err error
				if n%size == 0 {
					err = r.shared.play(ctx, c, instances[n:min(n+size, len(instances))]...)
				}
				if err == nil {
					err = r.each.play(ctx, c, instances[n])
				}
				if err != nil {
					return fmt.Errorf("instance %d of %d: %w", n+1, len(instances), err)
				}
			}
		})
	}
	return group.Wait()
}

// batchOf returns the instances' state changes as one batch of SQS.
func batchOf(instances []fleet.Instance, state string) []byte {
	type message struct {
		ID   string `json:"messageId"`
		Body string `json:"body"`
	}
	var in struct{ Records []message }
	for _, i := range instances {
		in.Records = append(in.Records, message{ID: i.ID, Body: string(event(i, state))})
	}
	body, _ := json.Marshal(in) // strings only: cannot fail
	return body
}
