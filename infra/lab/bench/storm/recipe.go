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

// recipe is the calls of a warm function for one instance: one stage after the other, the lanes of a stage side by side, the
// steps of a lane in sequence. It is recorded from the function itself, so that bare HTTP makes the same calls.
type recipe struct {
	of     fleet.Instance // whose ID, address and name the steps contain
	stages [][]lane
}

type lane []step

type step struct {
	service, action, method, path string
	body                          string
	status                        int
}

// slow is the delay of each recorded call, which makes concurrent calls overlap.
const slow = 40 * time.Millisecond

// record invokes a function for one instance and returns its calls as a recipe.
func (w *way) record(ctx context.Context, function string, i fleet.Instance, state string) (recipe, error) {
	taps := []*tap.Tap{w.Taps.Vault, w.Taps.Dynamo, w.cloud}
	for _, t := range taps {
		t.Reset()
		t.SetFault(func(tap.Call) *tap.Fault { return &tap.Fault{Delay: slow} })
		defer t.SetFault(nil)
	}
	if err := invoke(ctx, w.Functions[function], event(i, state)); err != nil {
		return recipe{}, fmt.Errorf("recording %s of one instance: %w", state, err)
	}
	var calls []tap.Call
	for _, t := range taps {
		calls = append(calls, t.Calls()...)
	}
	slices.SortFunc(calls, func(a, b tap.Call) int { return a.Time.Compare(b.Time) })
	r := recipe{of: i}
	var ended time.Time
	for _, c := range calls {
		if c.Status == http.StatusForbidden || c.Status >= http.StatusInternalServerError {
			return r, fmt.Errorf("recording %s of one instance: %s %s returned status %d", state, c.Service, c.Action, c.Status)
		}
		s := step{service: c.Service, action: c.Action, method: c.Method, path: c.Path, body: string(c.Body), status: c.Status}
		r.add(s, c.Time.After(ended))
		if end := c.Time.Add(c.Duration); end.After(ended) {
			ended = end
		}
	}
	if r.steps() == 0 {
		return r, errors.New("recording one instance: the function made no call")
	}
	return r, nil
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
func isWrite(s step) bool  { return !toVault(s) || s.method != http.MethodGet } // all but the reads before and after a write
func toLedger(s step) bool { return s.service == dynamoService && !ofBatch(s) }

// ofBatch reports whether a batch makes the call once and not for each instance: the look-up in EC2, the events, and the read
// of the teardown item.
func ofBatch(s step) bool {
	return !toVault(s) && s.service != dynamoService || s.action == "GetItem" && strings.Contains(s.body, `"teardown"`)
}

var writeID = regexp.MustCompile(`"write_id":\{"S":"([0-9a-f]{32})"\}`)

// play makes a recipe's calls for another instance.
func (r *recipe) play(ctx context.Context, c *caller, i fleet.Instance) error {
	replace := r.replacer(i)
	for _, stage := range r.stages {
		done := make(chan error, len(stage))
		for _, l := range stage {
			run := func() error {
				for _, s := range l {
					if err := c.call(ctx, s, replace.Replace(s.path), s.fresh(replace.Replace(s.body), i.ID)); err != nil {
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

// replacer replaces the recorded instance's ID, address and name by those of another.
func (r *recipe) replacer(i fleet.Instance) *strings.Replacer {
	const domain = ".ec2.internal"
	return strings.NewReplacer(r.of.ID, i.ID, r.of.PrivateIP, i.PrivateIP,
		strings.TrimSuffix(r.of.PrivateDNS, domain), strings.TrimSuffix(i.PrivateDNS, domain))
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
