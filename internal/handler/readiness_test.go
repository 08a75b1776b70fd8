package handler_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/autoscaling"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/handler"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// shown is an EC2 that shows instances with their tags, and records new tags.
type shown struct {
	seen map[string]instance.Sighting
	tags []string
	errs map[string]error
}

func (s *shown) Describe(_ context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	out := map[facts.Ref]instance.Sighting{}
	for _, r := range refs {
		out[r] = s.seen[r.ID]
	}
	return out
}

func (s *shown) Tag(_ context.Context, p facts.Place, ids []string, key, value string) map[string]error {
	s.tags = append(s.tags, fmt.Sprint(p.Region, ids, key, value))
	return s.errs
}

func readyBench() (*bench, *shown) {
	b, s := newBench(), &shown{seen: map[string]instance.Sighting{}}
	b.handler.Instances = s
	b.handler.Readiness = handler.Readiness{Tagger: s, Key: "identity"}
	return b, s
}

func alive(state facts.State, tag string) instance.Sighting {
	s := instance.Sighting{Found: true, Facts: facts.Instance{State: state, Tags: map[string]string{"Name": "x"}}}
	if tag != "" {
		s.Facts.Tags["identity"] = tag
	}
	return s
}

func TestReadyTag_IsSetOnceWhileRunning(t *testing.T) {
	unchanged := converge.Outcome{Action: converge.Unchanged, Profile: "a-worker"}
	removed := converge.Outcome{Action: converge.Deprovisioned, Paths: []string{"p"}, CutAt: time.Date(2026, 1, 2, 3, 4, 6, 0, time.UTC)}
	for name, row := range map[string]struct {
		seen    instance.Sighting
		outcome converge.Outcome
		err     error
		want    string
	}{
		"granted":                            {alive(facts.Running, ""), converge.Outcome{}, nil, "ready"},
		"granted while it still starts":      {alive(facts.Pending, ""), converge.Outcome{}, nil, "ready"},
		"in order, and not tagged yet":       {alive(facts.Running, ""), unchanged, nil, "ready"},
		"granted after a refusal":            {alive(facts.Running, "refused"), converge.Outcome{}, nil, "ready"},
		"in order, and tagged":               {alive(facts.Running, "ready"), unchanged, nil, ""},
		"nothing to remove":                  {alive(facts.Running, ""), converge.Outcome{Action: converge.Unchanged}, nil, ""},
		"refused":                            {alive(facts.Running, ""), converge.Outcome{}, fault.Refusef("two profiles"), "refused"},
		"refused, with an earlier grant":     {alive(facts.Running, "ready"), converge.Outcome{}, fault.Conflictf("another's"), ""},
		"refused, with one never tagged":     {alive(facts.Running, ""), converge.Outcome{Holds: true}, fault.Conflictf("another's"), ""},
		"to be retried":                      {alive(facts.Running, ""), converge.Outcome{}, errors.New("sealed"), ""},
		"removed as its group terminates it": {alive(facts.Running, "ready"), removed, nil, "removed"},
		"removed, and a later run finishes":  {alive(facts.Running, "ready"), converge.Outcome{}, fault.New(fault.Retry, converge.ErrUnfinished), "removed"},
		"removed, but for another's policy":  {alive(facts.Running, "ready"), removed, fault.Conflictf("another's"), "removed"},
		"removed, and never tagged":          {alive(facts.Running, ""), removed, nil, ""},
		"gone":                               {alive(facts.Terminated, "ready"), removed, nil, ""},
		"not visible":                        {instance.Sighting{}, converge.Outcome{}, nil, ""},
		"not known":                          {instance.Sighting{Err: errors.New("throttled")}, converge.Outcome{}, nil, ""},
		"no profile fits":                    {alive(facts.Running, ""), converge.Outcome{Action: converge.Unmatched}, nil, ""},
	} {
		b, s := readyBench()
		s.seen[id(1)], b.errs[id(1)], b.outcomes[id(1)] = row.seen, row.err, row.outcome
		b.batch(t.Context(), t, body(id(1), "running", at))
		var want []string
		if row.want != "" {
			want = []string{fmt.Sprint("us-east-1", []string{id(1)}, "identity", row.want)}
		}
		if !slices.Equal(s.tags, want) {
			t.Errorf("%s: EC2 got %q, want %q", name, s.tags, want)
		}
	}
}

func TestReadyTag_NeedsOneCallPerValue(t *testing.T) {
	b, s := readyBench()
	for n := range 4 {
		s.seen[id(n)] = alive(facts.Running, "")
	}
	b.errs[id(2)] = fault.Refusef("no")
	b.batch(t.Context(), t, runs(4)...)
	slices.Sort(s.tags)
	want := []string{fmt.Sprint("us-east-1", []string{id(0), id(1), id(3)}, "identity", "ready"), fmt.Sprint("us-east-1", []string{id(2)}, "identity", "refused")}
	if !slices.Equal(s.tags, want) {
		t.Errorf("EC2 got %q, want %q: it allows few writes a second", s.tags, want)
	}
}

func TestReadyTag_RetriesThrottlingNotDenial(t *testing.T) {
	b, s := readyBench()
	for n := range 3 {
		s.seen[id(n)] = alive(facts.Running, "")
	}
	s.errs = map[string]error{id(1): errors.New("RequestLimitExceeded"), id(2): fault.Refusef("denied")}
	again := b.batch(t.Context(), t, runs(3)...)
	if fmt.Sprint(again) != "[m1]" {
		t.Errorf("want only the message of the throttled tag delivered again, got %v", again)
	}
	b.wrote(t, `"TagFailed":2`)
}

// The first try removed the grant, and its tag was throttled: the second finds nothing to remove.
func TestReadyTag_MarksALeavingInstanceRemoved(t *testing.T) {
	b, s := readyBench()
	g := &groups{states: map[string]autoscaling.GroupState{id(1): {State: "Terminating:Wait"}}}
	b.handler.Hooks = handler.Hooks{Groups: g, Duties: removes, Prefix: "vault-identity-"}
	s.seen[id(1)], b.outcomes[id(1)] = alive(facts.Running, "ready"), converge.Outcome{Action: converge.Unchanged}
	b.batch(t.Context(), t, hookBody(id(1), "vault-identity-gone", "TERMINATING"))
	if want := fmt.Sprint("us-east-1", []string{id(1)}, "identity", "removed"); len(s.tags) != 1 || s.tags[0] != want {
		t.Errorf("EC2 got %q, want %q", s.tags, want)
	}
}

func TestReadyTag_LeavesTimeToAnswer(t *testing.T) {
	b, s := readyBench()
	slow := &patient{shown: s}
	b.handler.Readiness.Tagger = slow
	s.seen[id(1)] = alive(facts.Running, "")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	b.now = time.Now()
	b.batch(ctx, t, body(id(1), "running", at))
	if end, _ := ctx.Deadline(); slow.deadline.IsZero() || end.Sub(slow.deadline) < 4*time.Second {
		t.Errorf("want tagging ended well before the invocation at %s, its deadline is %s", end, slow.deadline)
	}
}

type patient struct {
	*shown
	deadline time.Time
}

func (p *patient) Tag(ctx context.Context, _ facts.Place, _ []string, _, _ string) map[string]error {
	p.deadline, _ = ctx.Deadline()
	return nil
}

func TestReadyTag_NeedsAKey(t *testing.T) {
	b, s := readyBench()
	b.handler.Readiness = handler.Readiness{Tagger: s}
	s.seen[id(1)] = alive(facts.Running, "")
	b.batch(t.Context(), t, body(id(1), "running", at))
	if len(s.tags) > 0 {
		t.Errorf("want no tag, EC2 got %q", s.tags)
	}
}
