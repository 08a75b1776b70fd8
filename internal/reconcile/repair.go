package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

const (
	// sideBySide is the number of instances that converge at once, as in a batch of the queue: with more, each only waits
	// longer for Vault.
	sideBySide = 8
	// chunk is the number of instances that EC2 is asked about together, just before they converge.
	chunk = 50
	// fresh is how long EC2's answers are used: half of MaxFactsAge, so that they are good to the end of a repair.
	fresh = converge.MaxFactsAge / 2
)

// job is the repair of one instance.
type job struct {
	rows        []*Change
	removes     bool          // a row removes the whole grant
	counts      bool          // the removal counts toward the delete limit
	needsRemove bool          // provision cannot do it, since it may not remove
	revokes     bool          // only certificates are left to revoke
	untracked   []string      // paths for converge.Request
	places      []facts.Place // where the instance may be
	account     string        // empty if unknown
}

// jobs returns the repairs of a plan, in the order of the instances' IDs.
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

// untrackedPath returns the path for converge.Request.Untracked; empty if the row needs none. Login leftovers are removed
// with their auth role.
func (r *Reconciler) untrackedPath(c *Change) string {
	_, _, isRole := grant.SplitAuthRolePath(c.Path)
	switch {
	case c.Action != Delete || c.Object == KindRecord:
		return ""
	case c.Object == grant.KindAuthRole && !isRole:
		return grant.AuthRolePath(r.Realm.AuthMount, c.InstanceID)
	}
	return c.Path
}

func (j *job) id() string { return j.rows[0].InstanceID }

// finish adds the number of the job's rows to count; or, with an error, to s.Failed, and sets the error on each row.
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

// repair makes the repairs of a plan in the order of the instances' IDs. When the time ends first, finished is false and upTo
// is the last instance that is done; empty if none is.
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

// send sends live instances to the provision queue.
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

// repairHere asks EC2 about the instances of jobs again, by their IDs, and converges them in groups. It returns the first job
// that it had no time to begin; nil if it began all.
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
			sightings = r.Instances.Describe(ctx, refs(jobs))
		}
		group := independent(jobs[:min(sideBySide, len(jobs))])
		jobs = jobs[len(group):]
		errs, holders := make([]error, len(group)), make([][]converge.RemovedHolder, len(group))
		var tasks errgroup.Group
		for i, j := range group {
			tasks.Go(func() error {
				holders[i], errs[i] = r.converge(ctx, inv.converger, j, sightings)
				return nil
			})
		}
		_ = tasks.Wait() // the functions above keep their errors in errs
		for i, j := range group {
			for _, holder := range holders[i] {
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

// independent returns the first of the jobs that can converge at once. It stops before an instance that takes a name from
// another in the group, or the other way round: both would remove the same holder.
func independent(jobs []*job) []*job {
	for i, j := range jobs {
		if slices.ContainsFunc(jobs[:i], func(o *job) bool { return j.takesFrom(o) || o.takesFrom(j) }) {
			return jobs[:i]
		}
	}
	return jobs
}

// takesFrom reports whether the job takes a name from the instance of another job.
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

// refs returns the instance in each place where it may be.
func (j *job) refs() []facts.Ref {
	out := make([]facts.Ref, len(j.places))
	for i, p := range j.places {
		out[i] = facts.Ref{ID: j.id(), Place: p}
	}
	return out
}

// converge converges one instance by the second look at EC2, whatever the plan says. It returns the holders that were removed
// because the instance takes a name of theirs.
func (r *Reconciler) converge(
	ctx context.Context, converger Converger, j *job, sightings map[facts.Ref]instance.Sighting,
) ([]converge.RemovedHolder, error) {
	ref, seen := j.refs()[0], instance.Sighting{}
	for _, at := range j.refs() {
		s := sightings[at]
		if s.Err != nil && (!s.LacksRole() || !j.removes) {
			return nil, s.Err
		}
		if s.Found {
			ref, seen = at, s
			break
		}
	}
	// Every place where the instance may be was asked without an error.
	req := converge.Request{Ref: ref, At: r.Now(), Verify: true, Absent: !seen.Found, Untracked: j.untracked}
	if !j.removes && !r.isFit(seen) {
		// The plan is to make or mend the grant. Only a plan with a removal, within the delete limit, may remove it.
		return nil, fmt.Errorf("instance %s: not repaired: EC2 no longer shows it as running, or no profile fits it: left to the next run", ref.ID)
	}
	if j.removes && seen.Found && seen.Facts.State.IsLive() && r.CheckProfiles != nil { // it has a grant that no profile gives
		if err := r.CheckProfiles(ctx); err != nil {
			return nil, fmt.Errorf("instance %s: not removed: %w: left to the next run", ref.ID, err)
		}
	}
	outcome, err := converger.Converge(ctx, req, seen)
	switch {
	case err != nil:
		return outcome.RemovedHolders, err
	case outcome.Action == converge.LeftAlone, outcome.Action == converge.NotYet, outcome.Action == converge.InQuarantine && !j.removes:
		return outcome.RemovedHolders, fmt.Errorf("instance %s: not repaired (%s): EC2 shows it as %s: left to the next run", ref.ID, outcome.Action, seen.Facts.State)
	case (outcome.Action == converge.Unchanged || outcome.Action == converge.InQuarantine) && len(j.untracked) > 0, outcome.Action == converge.Unmatched && !j.revokes:
		return outcome.RemovedHolders, fmt.Errorf("instance %s: nothing was removed: on a second read the objects are not this deployment's, or another run works on the instance: left to the next run", ref.ID)
	}
	return outcome.RemovedHolders, nil
}

// isFit reports whether an instance runs and a profile fits it, or more than one does, which converge refuses.
func (r *Reconciler) isFit(s instance.Sighting) bool {
	if !s.Found || (s.Facts.State != facts.Running && s.Facts.State != facts.Pending) {
		return false
	}
	profile, err := r.Profiles.Match(s.Facts)
	return profile != nil || err != nil
}
