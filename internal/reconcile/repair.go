package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/lifecycle"
)

const (
	// sideBySide is how many instances converge at once; see function.Handler.
	sideBySide = 8
	// chunk is how many are looked at once more together, just before.
	chunk = 50
)

// job is one instance to put right.
type job struct {
	rows    []*Change
	removes bool
	here    bool // not to be handed to provision, which may not remove
	strays  []string
	places  []instance.Place // where it may be
}

// jobs are the instances of a plan that something can be done about, in the order of their IDs.
func (r *Reconciler) jobs(p plan, places []instance.Place) []*job {
	var out []*job
	var last *job
	for i := range p.changes {
		c := &p.changes[i]
		if c.Action == None {
			continue
		}
		if last == nil || last.rows[0].InstanceID != c.InstanceID {
			last = &job{places: places}
			out = append(out, last)
		}
		last.rows = append(last.rows, c)
		last.removes = last.removes || c.removes
		last.here = last.here || c.removes || c.here
		if c.place != (instance.Place{}) {
			last.places = []instance.Place{c.place}
		}
		if stray := r.stray(c); stray != "" && !slices.Contains(last.strays, stray) {
			last.strays = append(last.strays, stray)
		}
	}
	return out
}

// stray is the path that lifecycle is to take into the record and remove. What logins left goes with the auth role.
func (r *Reconciler) stray(c *Change) string {
	switch {
	case c.Action != Delete || c.Object == KindRecord:
		return ""
	case c.Object == grant.KindAuthRole && !strings.Contains(c.Path, "/role/"):
		return grant.AuthRolePath(r.Realm.AuthMount, c.InstanceID)
	}
	return c.Path
}

func (j *job) id() string { return j.rows[0].InstanceID }

// end notes on every row of the job what became of it.
func (j *job) end(s *Summary, count *int, err error) {
	if err == nil {
		*count += len(j.rows)
		return
	}
	s.Failed += len(j.rows)
	for _, c := range j.rows {
		c.Error = err.Error()
	}
}

// repair puts right what the plan asks for, in the order of the instances' IDs. It gives the last instance that it is
// done with when time ends before the plan does.
func (r *Reconciler) repair(ctx context.Context, run *run, p plan, s *Summary) (upTo string, finished bool) {
	var remote, here []*job
	for _, j := range r.jobs(p, run.places) {
		if r.Queue != nil && !j.here {
			remote = append(remote, j)
		} else {
			here = append(here, j)
		}
	}
	r.send(ctx, remote, s)
	for jobs := range slices.Chunk(here, chunk) {
		if !r.Now().Before(run.until) {
			return upTo, false
		}
		r.repairHere(ctx, run, jobs, s)
		upTo = jobs[len(jobs)-1].id()
	}
	return "", true
}

// send hands live instances to the provision queue.
func (r *Reconciler) send(ctx context.Context, jobs []*job, s *Summary) {
	triggers := make([]event.Trigger, len(jobs))
	for i, j := range jobs {
		p := j.places[0]
		triggers[i] = event.Trigger{InstanceID: j.id(), Account: p.Account, Region: p.Region, State: facts.Running, Time: r.Now()}
	}
	if len(jobs) == 0 {
		return
	}
	for i, err := range r.Queue.Send(ctx, triggers) {
		jobs[i].end(s, &s.Enqueued, err)
	}
}

// repairHere looks at a few instances once more, by their IDs, and converges them.
func (r *Reconciler) repairHere(ctx context.Context, run *run, jobs []*job, s *Summary) {
	var refs []instance.Ref
	for _, j := range jobs {
		refs = append(refs, j.refs()...)
	}
	sightings := r.Instances.Look(ctx, refs)
	errs := make([]error, len(jobs))
	var group errgroup.Group
	group.SetLimit(sideBySide)
	for i, j := range jobs {
		group.Go(func() error {
			errs[i] = r.converge(ctx, run.converger, j, sightings)
			return nil
		})
	}
	_ = group.Wait() // the functions above keep their errors in errs
	for i, j := range jobs {
		j.end(s, &s.Corrected, errs[i])
		if j.removes && errs[i] == nil {
			run.removed++
		}
	}
}

func (j *job) refs() []instance.Ref {
	refs := make([]instance.Ref, len(j.places))
	for i, p := range j.places {
		refs[i] = instance.Ref{ID: j.id(), Account: p.Account, Region: p.Region}
	}
	return refs
}

// converge has lifecycle put one instance right, by what the second look shows and not by what the plan says.
func (r *Reconciler) converge(ctx context.Context, converger Converger, j *job, sightings map[instance.Ref]instance.Sighting) error {
	ref, seen := j.refs()[0], instance.Sighting{}
	for _, at := range j.refs() {
		s := sightings[at]
		if s.Err != nil {
			return s.Err
		}
		if s.Found {
			ref, seen = at, s
			break
		}
	}
	t := event.Trigger{InstanceID: ref.ID, Account: ref.Account, Region: ref.Region, State: seen.Facts.State, Time: r.Now(), Verify: true, Strays: j.strays}
	live := t.State == facts.Running || t.State == facts.Pending
	switch {
	case !j.removes && !live:
		return fmt.Errorf("EC2 does not show instance %s as running any more: left to the next run", ref.ID)
	case !seen.Found:
		t.State = facts.Terminated // by two complete answers of EC2
	}
	outcome, err := converger.Converge(ctx, t, seen)
	switch {
	case err != nil && !errors.Is(err, lifecycle.ErrSettling):
		return err
	case outcome.Action == lifecycle.LeftAlone, outcome.Action == lifecycle.NotYet:
		return fmt.Errorf("instance %s is left alone (%s): EC2 shows it as %s", ref.ID, outcome.Action, t.State)
	}
	return nil
}

// run is one invocation's part of a run.
type run struct {
	converger Converger
	log       *slog.Logger
	places    []instance.Place
	until     time.Time
	passes    int // begun in this invocation
	removed   int // instances, over all invocations of the run
}
