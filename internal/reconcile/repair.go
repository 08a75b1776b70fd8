package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

const (
	// sideBySide is how many instances converge at once; see function.Handler.
	sideBySide = 8
	// chunk is how many are looked at once more together, just before.
	chunk = 50
	// fresh is how long that look is good for: lifecycle makes no grant from an older one than 30 seconds.
	fresh = 15 * time.Second
)

// job is one instance to put right.
type job struct {
	rows        []*Change
	removes     bool
	counts      bool // for the delete limit
	needsRemove bool // not to be handed to provision, which may not remove
	revokes     bool // certificates, and nothing else
	untracked   []string
	places      []facts.Place // where it may be
	account     string        // empty when nothing tells where it is
}

// jobs are the instances of a plan that something can be done about, in the order of their IDs.
func (r *Reconciler) jobs(p plan, places []facts.Place) []*job {
	var out []*job
	var last *job
	for i := range p.changes {
		c := &p.changes[i]
		if c.Action == None {
			continue
		}
		if last == nil || last.rows[0].InstanceID != c.InstanceID {
			last = &job{places: places, revokes: true}
			out = append(out, last)
		}
		last.rows = append(last.rows, c)
		last.removes = last.removes || c.removes
		last.revokes = last.revokes && c.revokes
		last.counts = last.counts || c.counts
		last.needsRemove = last.needsRemove || c.removes || c.needsRemove
		if c.place != (facts.Place{}) {
			last.places, last.account = []facts.Place{c.place}, c.place.Account
		}
		if path := r.untrackedPath(c); path != "" && !slices.Contains(last.untracked, path) {
			last.untracked = append(last.untracked, path)
		}
	}
	return out
}

// untrackedPath is the path that lifecycle is to take into the record and remove. What logins left goes with the auth role.
func (r *Reconciler) untrackedPath(c *Change) string {
	switch {
	case c.Action != Delete || c.Object == KindRecord:
		return ""
	case c.Object == grant.KindAuthRole && !strings.Contains(c.Path, "/role/"):
		return grant.AuthRolePath(r.Realm.AuthMount, c.InstanceID)
	}
	return c.Path
}

func (j *job) id() string { return j.rows[0].InstanceID }

// finish notes on every row of the job what became of it.
func (j *job) finish(s *Summary, count *int, err error) {
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
func (r *Reconciler) repair(ctx context.Context, inv *invocation, p plan, s *Summary) (upTo string, finished bool) {
	for part := range slices.Chunk(r.jobs(p, inv.places), chunk) {
		if !r.Now().Before(inv.until) {
			return upTo, false
		}
		var remote, local []*job
		for _, j := range part {
			if r.Queue != nil && !j.needsRemove {
				remote = append(remote, j)
			} else {
				local = append(local, j)
			}
		}
		if left := r.repairHere(ctx, inv, local, s); left != nil {
			done := slices.Index(part, left)
			r.send(ctx, slices.DeleteFunc(remote, func(j *job) bool { return j.id() > left.id() }), s)
			if done > 0 {
				upTo = part[done-1].id()
			}
			return upTo, false
		}
		r.send(ctx, remote, s)
		upTo = part[len(part)-1].id()
	}
	return "", true
}

// send hands live instances to the provision queue.
func (r *Reconciler) send(ctx context.Context, jobs []*job, s *Summary) {
	if len(jobs) == 0 {
		return
	}
	events := make([]event.Event, len(jobs))
	for i, j := range jobs {
		events[i] = event.Differs(facts.Ref{ID: j.id(), Place: j.places[0]}, r.Now())
	}
	for i, err := range r.Queue.Send(ctx, events) {
		jobs[i].finish(s, &s.Enqueued, err)
	}
}

// repairHere looks at instances once more, by their IDs, and converges them, a few at a time. It gives the first that
// there was no time to begin; nil for none.
func (r *Reconciler) repairHere(ctx context.Context, inv *invocation, jobs []*job, s *Summary) (left *job) {
	var sightings map[facts.Ref]instance.Sighting
	var lookedAt time.Time
	for len(jobs) > 0 {
		now := r.Now()
		if !now.Before(inv.until) {
			return jobs[0]
		}
		if sightings == nil || now.Sub(lookedAt) > fresh {
			lookedAt = now
			sightings = r.Instances.Look(ctx, refs(jobs))
		}
		group := independent(jobs[:min(sideBySide, len(jobs))])
		jobs = jobs[len(group):]
		errs, takenOver := make([]error, len(group)), make([][]converge.RemovedHolder, len(group))
		var tasks errgroup.Group
		for i, j := range group {
			tasks.Go(func() error {
				takenOver[i], errs[i] = r.converge(ctx, inv.converger, j, sightings)
				return nil
			})
		}
		_ = tasks.Wait() // the functions above keep their errors in errs
		for i, j := range group {
			for _, holder := range takenOver[i] {
				if holder.Unfinished {
					inv.unfinished = append(inv.unfinished, holder.ID)
				}
			}
			if errors.Is(errs[i], converge.ErrUnfinished) {
				inv.unfinished = append(inv.unfinished, j.id())
				errs[i] = nil
			}
			j.finish(s, &s.Corrected, errs[i])
			if j.counts && errs[i] == nil {
				inv.removed[j.account]++
			}
		}
	}
	return nil
}

// independent ends a group before an instance that takes its name from another in it, or gives its own to one: side by side,
// both would remove the same holder.
func independent(jobs []*job) []*job {
	for i, j := range jobs {
		if slices.ContainsFunc(jobs[:i], func(o *job) bool { return j.takesFrom(o) || o.takesFrom(j) }) {
			return jobs[:i]
		}
	}
	return jobs
}

func (j *job) takesFrom(holder *job) bool {
	return slices.ContainsFunc(j.rows, func(c *Change) bool { return c.heldBy == holder.id() })
}

func refs(jobs []*job) []facts.Ref {
	var out []facts.Ref
	for _, j := range jobs {
		out = append(out, j.refs()...)
	}
	return out
}

func (j *job) refs() []facts.Ref {
	out := make([]facts.Ref, len(j.places))
	for i, p := range j.places {
		out[i] = facts.Ref{ID: j.id(), Place: p}
	}
	return out
}

// converge has lifecycle put one instance right, by what the second look shows and not by what the plan says. It returns
// the instances whose names were taken over on the way.
func (r *Reconciler) converge(ctx context.Context, converger Converger, j *job, sightings map[facts.Ref]instance.Sighting) ([]converge.RemovedHolder, error) {
	ref, seen := j.refs()[0], instance.Sighting{}
	for _, at := range j.refs() {
		s := sightings[at]
		if s.Err != nil {
			return nil, s.Err
		}
		if s.Found {
			ref, seen = at, s
			break
		}
	}
	// Every place where it may be was looked at without an error: what was not found is absent.
	req := converge.Request{Ref: ref, At: r.Now(), Verify: true, Absent: !seen.Found, Untracked: j.untracked}
	if !j.removes && !r.isFit(seen) {
		// It was to be made or mended. Taking it away is for a run that plans to, within its limit.
		return nil, fmt.Errorf("EC2 does not show instance %s as running and fit for its profile any more: left to the next run", ref.ID)
	}
	outcome, err := converger.Converge(ctx, req, seen)
	switch {
	case err != nil:
		return outcome.RemovedHolders, err
	case outcome.Action == converge.LeftAlone, outcome.Action == converge.NotYet:
		return outcome.RemovedHolders, fmt.Errorf("instance %s is left alone (%s): EC2 shows it as %s", ref.ID, outcome.Action, seen.Facts.State)
	case outcome.Action == converge.Unchanged && len(j.untracked) > 0, outcome.Action == converge.Unmatched && !j.revokes:
		return outcome.RemovedHolders, fmt.Errorf("instance %s: nothing was removed: looked at once more, what is left is not this deployment's, or somebody is at work on it", ref.ID)
	}
	return outcome.RemovedHolders, nil
}

// isFit tells whether an instance runs and a profile fits it, or more than one does, which lifecycle refuses.
func (r *Reconciler) isFit(s instance.Sighting) bool {
	if !s.Found || s.Facts.State != facts.Running && s.Facts.State != facts.Pending {
		return false
	}
	profile, err := r.Profiles.Match(s.Facts)
	return profile != nil || err != nil
}
