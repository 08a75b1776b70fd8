package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// TearDown removes all that the ledger records and all that Vault lists of the deployment's, whatever EC2 shows: it is
// for a deployment that is given up while instances still run. It notes first that nothing is granted any more, and
// waits until no grant can be begun that does not know of it. Like Run, it has converger do the work, stops in time with a
// cursor, and removes nothing when a list fails. With instance IDs it only looks after those once more.
func (r *Reconciler) TearDown(ctx context.Context, in Input, converger Converger, w Observer) Answer {
	start := r.Now()
	at, a := begin(in, start)
	now := &run{converger: converger, observer: w, until: r.until(ctx, start)}
	// A Vault that cannot be listed is no reason to stop granting: nothing is noted then.
	err := errors.Join(r.list(ctx).failed...)
	if err == nil {
		err = r.close(ctx, in)
	}
	if err != nil {
		a.giveUp("nothing is removed: " + err.Error())
	} else {
		a.Compared = true
		at = r.through(ctx, now, at, &a, func(at Cursor) (Cursor, bool) { return r.takeAway(ctx, now, in, at, &a) })
		a.Unsettled = len(a.Unfinished)
	}
	a.DurationMs = r.Now().UnixMilli() - at.StartedMs
	r.tell(ctx, w.Log, a)
	return a
}

// close notes the teardown and waits until every function goes by it.
func (r *Reconciler) close(ctx context.Context, in Input) error {
	if len(in.InstanceIDs) > 0 {
		since, err := r.Teardowns.TornDown(ctx)
		if err == nil && since == nil {
			err = errors.New("instanceIds only goes on with a teardown that was begun for the whole deployment")
		}
		return err
	}
	since, err := r.Teardowns.TearDown(ctx)
	if err != nil {
		return err
	}
	wait := time.NewTimer(since.Add(ledger.TeardownTime).Sub(r.Now()))
	defer wait.Stop()
	select {
	case <-wait.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting until every function knows of the teardown: %w", ctx.Err())
	}
}

// stopped is why a teardown stands in the middle.
const stopped = "nothing more is removed, and nothing is granted any more either: run it again, or delete the item teardown from the ledger's table to take the deployment up again: "

// takeAway removes one stretch of the fleet. It gives where to go on, if there is more.
func (r *Reconciler) takeAway(ctx context.Context, now *run, in Input, at Cursor, a *Answer) (next Cursor, more bool) {
	names := r.list(ctx)
	if in.isWhole() {
		now.misnamed = names.misnamedRows()
	}
	if len(names.failed) > 0 {
		a.giveUp(stopped + errors.Join(names.failed...).Error())
		return at, false
	}
	f, err := r.scan(ctx, names, at.After, at.Limit)
	if err != nil {
		a.giveUp(stopped + err.Error())
		return at, false
	}
	a.Scanned = Scanned{Records: len(f.recorded), Policies: names.policies, AuthRoles: names.authRoles, PKIRoles: names.pkiRoles}
	next = at
	ids := f.ids()
	if len(in.InstanceIDs) > 0 {
		ids = slices.DeleteFunc(ids, func(id string) bool { return !slices.Contains(in.InstanceIDs, id) })
	}
	for few := range slices.Chunk(ids, sideBySide) {
		if !r.Now().Before(now.until) {
			return next, true
		}
		outcomes := make([]retired, len(few))
		var group errgroup.Group
		for i, id := range few {
			group.Go(func() error {
				outcomes[i] = r.retire(ctx, now.converger, f, id)
				return nil
			})
		}
		_ = group.Wait() // the functions above keep their errors in outcomes
		for _, o := range outcomes {
			if o.row == nil {
				continue
			}
			a.removed(o.row)
			now.tell(ctx, []Change{*o.row})
			if o.settling {
				now.settling = append(now.settling, o.row.InstanceID)
			}
		}
		next.After = few[len(few)-1]
	}
	next.After = f.upTo
	return next, f.upTo != ""
}

// removed counts a row of a teardown and keeps it.
func (a *Answer) removed(row *Change) {
	switch {
	case row.Reason == Conflicting:
		a.Summary.Conflicting++
	case row.failed:
		a.Summary.Orphaned++
		a.Summary.Failed++
	default:
		a.Summary.Orphaned++
		a.Summary.Corrected++
	}
	if len(a.Drift) == maxRows {
		a.Truncated = true
		return
	}
	a.Drift = append(a.Drift, row.Drift)
}

// retired is what became of one instance.
type retired struct {
	row      *Change // nil when nothing of it was this deployment's
	settling bool    // it is to be looked after once more
}

// retire removes one instance's grant.
func (r *Reconciler) retire(ctx context.Context, converger Converger, f *inventory, id string) retired {
	record, untracked := f.records[id], slices.Clone(f.paths[id])
	login := grant.AuthRolePath(r.Realm.AuthMount, id)
	if len(f.leftovers[id]) > 0 && !slices.Contains(untracked, login) {
		untracked = append(untracked, login)
	}
	if record != nil {
		untracked = slices.DeleteFunc(untracked, record.Has)
	}
	req := converge.Request{Ref: facts.Ref{ID: id}, At: r.Now(), Verify: true, Teardown: true, Untracked: untracked}
	s := &subject{id: id, record: record}
	if record != nil {
		req.Place = facts.Place{Account: record.Account, Region: record.Region}
		s.place = req.Place
	}
	outcome, err := converger.Converge(ctx, req, instance.Sighting{})
	if err == nil && outcome.Action != converge.Deprovisioned {
		return retired{}
	}
	row := s.whole(Drift{Reason: Orphaned, Action: Delete})
	settling := errors.Is(err, converge.ErrUnfinished)
	switch {
	case err == nil || settling:
	case fault.KindOf(err) == fault.Conflict: // another deployment's by now
		row.Reason, row.Action, row.Error = Conflicting, None, err.Error()
	default:
		row.failed, row.Error = true, err.Error()
	}
	return retired{row: &row, settling: settling}
}
