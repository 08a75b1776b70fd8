package storm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// recipe is the calls of a warm function for its instances: one stage after the other, the lanes of a stage side by side, the
// steps of a lane in sequence. It is recorded from the function itself, so that bare HTTP makes the same calls.
type recipe struct {
	of     []fleet.Instance // whose IDs, addresses and names the steps contain
	stages [][]lane
}

type lane []step

type step struct {
	service, action, method, path string
	body                          string
	status                        int
}

// slow is the delay of each call recorded for one instance, which makes concurrent calls overlap. A batch is recorded at full
// speed: it makes some shared calls again after two seconds.
const slow = 40 * time.Millisecond

// recorded is a step with the time at which the function made it.
type recorded struct {
	step
	start, end time.Time
}

// record invokes a function for a batch of instances, each call delayed, and returns its calls in the order of their start.
func (w *way) record(ctx context.Context, function, state string, delay time.Duration, instances ...fleet.Instance) ([]recorded, error) {
	taps := []*tap.Tap{w.Taps.Vault, w.Taps.Dynamo, w.cloud}
	for _, t := range taps {
		t.Reset()
		t.SetFault(func(tap.Call) *tap.Fault { return &tap.Fault{Delay: delay} })
		defer t.SetFault(nil)
	}
	fault := func(err error) error {
		return fmt.Errorf("recording %s of %d instances: %w", state, len(instances), err)
	}
	result, err := w.Functions[function].Invoke(ctx, batchOf(instances, state))
	if err == nil {
		err = result.Err()
	}
	if err == nil && strings.Contains(string(result.Payload), `"itemIdentifier"`) {
		err = fmt.Errorf("events failed: %s\n%s", result.Payload, lastOf(w.Functions[function].Logs()))
	}
	if err != nil {
		return nil, fault(err)
	}
	var steps []recorded
	for _, t := range taps {
		for _, c := range t.Calls() {
			if c.Status == http.StatusForbidden || c.Status >= http.StatusInternalServerError {
				return nil, fault(fmt.Errorf("%s %s returned status %d", c.Service, c.Action, c.Status))
			}
			s := step{service: c.Service, action: c.Action, method: c.Method, path: c.Path, body: string(c.Body), status: c.Status}
			if isList(c) {
				s.path += "?list=true"
			}
			steps = append(steps, recorded{step: s, start: c.Time, end: c.Time.Add(c.Duration)})
		}
	}
	if len(steps) == 0 {
		return nil, fault(errors.New("the function made no call"))
	}
	slices.SortFunc(steps, func(a, b recorded) int { return a.start.Compare(b.start) })
	return steps, nil
}

// isList reports whether the call lists a folder of Vault.
func isList(c tap.Call) bool {
	return c.Service == vaultService && strings.HasPrefix(c.Action, "LIST ")
}

// recipeOf makes a recipe of recorded steps.
func recipeOf(steps []recorded, instances ...fleet.Instance) recipe {
	r := recipe{of: instances}
	var ended time.Time
	for _, s := range steps {
		r.add(s.step, s.start.After(ended))
		if s.end.After(ended) {
			ended = s.end
		}
	}
	return r
}

// add places a step after an earlier one at the same path of Vault, else beside the others of the last stage, or into a new
// stage if all earlier calls had ended before it began (alone).
func (r *recipe) add(s step, alone bool) {
	if len(r.stages) > 0 && toVault(s) {
		last := r.stages[len(r.stages)-1]
		if same := slices.IndexFunc(last, func(l lane) bool { return l[0].path == s.path }); same >= 0 {
			last[same] = append(last[same], s)
			return
		}
	}
	if alone || len(r.stages) == 0 {
		r.stages = append(r.stages, nil)
	}
	last := &r.stages[len(r.stages)-1]
	*last = append(*last, lane{s})
}

const (
	vaultService  = "vault"
	dynamoService = "dynamodb"
)

// only returns the recipe with only the steps that pass.
func (r *recipe) only(pass func(step) bool) recipe {
	out := recipe{of: r.of}
	for _, stage := range r.stages {
		var lanes []lane
		for _, l := range stage {
			var kept lane
			for _, s := range l {
				if pass(s) {
					kept = append(kept, s)
				}
			}
			if len(kept) > 0 {
				lanes = append(lanes, kept)
			}
		}
		if len(lanes) > 0 {
			out.stages = append(out.stages, lanes)
		}
	}
	return out
}

func (r *recipe) steps() int { return r.count(func(step) bool { return true }) }

func (r *recipe) count(pass func(step) bool) int {
	n := 0
	for _, stage := range r.stages {
		for _, l := range stage {
			for _, s := range l {
				if pass(s) {
					n++
				}
			}
		}
	}
	return n
}

// The kinds of steps.
func toVault(s step) bool  { return s.service == vaultService }
func toLedger(s step) bool { return s.service == dynamoService && !ofTeardown(s) }

// isWrite reports whether the step is anything but a read of Vault. Vault takes a look-up of an entity as a POST.
func isWrite(s step) bool {
	return !toVault(s) || (s.method != http.MethodGet && !strings.HasPrefix(s.path, "/v1/identity/lookup/"))
}

// ofTeardown reports whether the step reads the teardown item, as a sandbox does every ten seconds.
func ofTeardown(s step) bool { return s.action == "GetItem" && strings.Contains(s.body, `"teardown"`) }

var writeID = regexp.MustCompile(`"write_id":\{"S":"([0-9a-f]{32})"\}`)

// play makes a recipe's calls for other instances.
func (r *recipe) play(ctx context.Context, c *caller, instances ...fleet.Instance) error {
	replace := r.replacer(instances)
	for _, stage := range r.stages {
		done := make(chan error, len(stage))
		for _, l := range stage {
			run := func() error {
				for _, s := range l {
					if err := c.call(ctx, s, replace.Replace(s.path), s.fresh(replace.Replace(s.body), instances[0].ID)); err != nil {
						return err
					}
				}
				return nil
			}
			if len(stage) == 1 {
				done <- run()
			} else {
				go func() { done <- run() }()
			}
		}
		var errs []error
		for range stage {
			errs = append(errs, <-done)
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// replacer replaces the recorded instances' IDs, addresses and names by those of others.
func (r *recipe) replacer(others []fleet.Instance) *strings.Replacer {
	var pairs []string
	for n := range min(len(r.of), len(others)) {
		recorded, other := valuesOf(r.of[n]), valuesOf(others[n])
		for v := range recorded {
			pairs = append(pairs, recorded[v], other[v])
		}
	}
	return strings.NewReplacer(pairs...)
}

// valuesOf returns the values of an instance that its calls contain.
func valuesOf(i fleet.Instance) [3]string {
	return [3]string{i.ID, i.PrivateIP, strings.TrimSuffix(i.PrivateDNS, ".ec2.internal")}
}

// fresh returns the body with a write ID of its own for a ledger write: DynamoDB takes the same ID for the same transaction.
func (s step) fresh(body, id string) string {
	if s.service != dynamoService {
		return body
	}
	found := writeID.FindStringSubmatch(body)
	if found == nil {
		return body
	}
	// Different for each step of an instance, and of the same length.
	own := (strings.TrimPrefix(id, "i-") + found[1])[:len(found[1])]
	return strings.ReplaceAll(body, found[1], own)
}
