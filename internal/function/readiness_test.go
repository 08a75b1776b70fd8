package function_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/function"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/lifecycle"
)

// shown is an EC2 that shows instances with their tags, and takes new ones.
type shown struct {
	seen map[string]instance.Sighting
	told []string
	err  error
}

func (s *shown) Look(_ context.Context, refs []instance.Ref) map[instance.Ref]instance.Sighting {
	out := map[instance.Ref]instance.Sighting{}
	for _, r := range refs {
		out[r] = s.seen[r.ID]
	}
	return out
}

func (s *shown) Tag(_ context.Context, p instance.Place, ids []string, key, value string) error {
	s.told = append(s.told, fmt.Sprint(p.Region, ids, key, value))
	return s.err
}

func readyBench() (*bench, *shown) {
	b, s := newBench(), &shown{seen: map[string]instance.Sighting{}}
	b.handler.Instances = s
	b.handler.Readiness = function.Readiness{Tagger: s, Key: "identity"}
	return b, s
}

func alive(state facts.State, tag string) instance.Sighting {
	s := instance.Sighting{Found: true, Facts: facts.Instance{State: state, Tags: map[string]string{"Name": "x"}}}
	if tag != "" {
		s.Facts.Tags["identity"] = tag
	}
	return s
}

func TestAnInstanceIsTaggedWithWhatBecameOfItOnceAndOnlyWhileItRuns(t *testing.T) {
	unchanged := lifecycle.Outcome{Action: lifecycle.Unchanged, Profile: "a-worker"}
	removed := lifecycle.Outcome{Action: lifecycle.Deprovisioned, Paths: []string{"p"}}
	for name, row := range map[string]struct {
		seen    instance.Sighting
		outcome lifecycle.Outcome
		err     error
		want    string
	}{
		"granted":                            {alive(facts.Running, ""), lifecycle.Outcome{}, nil, "ready"},
		"granted while it still starts":      {alive(facts.Pending, ""), lifecycle.Outcome{}, nil, "ready"},
		"in order, and not tagged yet":       {alive(facts.Running, ""), unchanged, nil, "ready"},
		"granted at last":                    {alive(facts.Running, "refused"), lifecycle.Outcome{}, nil, "ready"},
		"in order, and tagged":               {alive(facts.Running, "ready"), unchanged, nil, ""},
		"nothing to remove":                  {alive(facts.Running, ""), lifecycle.Outcome{Action: lifecycle.Unchanged}, nil, ""},
		"refused":                            {alive(facts.Running, ""), lifecycle.Outcome{}, fault.Refusef("two profiles"), "refused"},
		"refused, with an earlier grant":     {alive(facts.Running, "ready"), lifecycle.Outcome{}, fault.Conflictf("another's"), ""},
		"to be tried again":                  {alive(facts.Running, ""), lifecycle.Outcome{}, errors.New("sealed"), ""},
		"removed as its group terminates it": {alive(facts.Running, "ready"), removed, nil, "removed"},
		"removed, to be looked after":        {alive(facts.Running, "ready"), lifecycle.Outcome{}, fault.New(fault.Retry, lifecycle.ErrSettling), "removed"},
		"removed, and never tagged":          {alive(facts.Running, ""), removed, nil, ""},
		"gone":                               {alive(facts.Terminated, "ready"), removed, nil, ""},
		"not visible":                        {instance.Sighting{}, lifecycle.Outcome{}, nil, ""},
		"not known":                          {instance.Sighting{Err: errors.New("throttled")}, lifecycle.Outcome{}, nil, ""},
		"no profile fits":                    {alive(facts.Running, ""), lifecycle.Outcome{Action: lifecycle.Unmatched}, nil, ""},
	} {
		b, s := readyBench()
		s.seen[id(1)], b.errs[id(1)], b.outcomes[id(1)] = row.seen, row.err, row.outcome
		b.batch(t.Context(), t, body(id(1), "running", at))
		var want []string
		if row.want != "" {
			want = []string{fmt.Sprint("us-east-1", []string{id(1)}, "identity", row.want)}
		}
		if !slices.Equal(s.told, want) {
			t.Errorf("%s: EC2 was told %q, want %q", name, s.told, want)
		}
	}
}

func TestABatchIsTaggedByOneCallForEachValue(t *testing.T) {
	b, s := readyBench()
	for n := range 4 {
		s.seen[id(n)] = alive(facts.Running, "")
	}
	b.errs[id(2)] = fault.Refusef("no")
	b.batch(t.Context(), t, body(id(0), "running", at), body(id(1), "running", at), body(id(2), "running", at), body(id(3), "running", at))
	slices.Sort(s.told)
	want := []string{fmt.Sprint("us-east-1", []string{id(0), id(1), id(3)}, "identity", "ready"), fmt.Sprint("us-east-1", []string{id(2)}, "identity", "refused")}
	if !slices.Equal(s.told, want) {
		t.Errorf("EC2 was told %q, want %q: it allows few writes a second", s.told, want)
	}
}

func TestATagThatMayYetBeTakenIsTriedAgainAndOneThatIsDeniedHoldsNothingUp(t *testing.T) {
	for _, row := range []struct {
		err   error
		again string
	}{{errors.New("RequestLimitExceeded"), "[m0]"}, {fault.Refusef("denied"), "[]"}} {
		b, s := readyBench()
		s.seen[id(1)], s.err = alive(facts.Running, ""), row.err
		if again := b.batch(t.Context(), t, body(id(1), "running", at)); fmt.Sprint(again) != row.again {
			t.Errorf("%v: want %s back, got %v", row.err, row.again, again)
		}
	}
}

func TestWithoutAKeyNoInstanceIsTagged(t *testing.T) {
	b, s := readyBench()
	b.handler.Readiness = function.Readiness{Tagger: s}
	s.seen[id(1)] = alive(facts.Running, "")
	b.batch(t.Context(), t, body(id(1), "running", at))
	if len(s.told) > 0 {
		t.Errorf("EC2 was told %q", s.told)
	}
}
