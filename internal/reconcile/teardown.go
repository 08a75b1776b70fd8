package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
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

// TearDown removes every object of the deployment that the ledger records or Vault lists, whatever EC2 shows: it is for a
// deployment that is given up while instances still run. It first announces the teardown, and waits until no function can
// begin a grant without knowing of it. Like Run, it has converger do the work and stops in time with a cursor. It removes
// nothing if a list of policies or logins fails, and no instance that may have objects in a folder that could not be listed. With
// instance IDs it only finishes the removal of those.
func (r *Reconciler) TearDown(ctx context.Context, in Input, converger Converger, o Observer) Answer {
	start := r.Now()
	at, a := begin(in, start)
	inv := &invocation{converger: converger, observer: o, until: r.stopTime(ctx, start)}
	// Without Vault's lists nothing can be removed, so the teardown is not announced either: grants go on.
	err := errors.Join(r.list(ctx).failed...)
	if err == nil {
		err = r.announceTeardown(ctx, in)
	}
	if err != nil {
		a.giveUp("nothing is removed: " + err.Error())
	} else {
		a.Compared = true
		at = r.forEachStretch(ctx, inv, at, &a, func(at Cursor) (Cursor, bool) { return r.removeStretch(ctx, inv, in, at, &a) })
		a.Unsettled = len(a.Unfinished)
	}
	a.DurationMs = r.Now().UnixMilli() - at.StartedMs
	r.logAnswer(ctx, o.Log, a)
	return a
}

// announceTeardown writes the ledger's teardown item and waits until every function has read it. With instance IDs it only
// checks that the item exists.
func (r *Reconciler) announceTeardown(ctx context.Context, in Input) error {
	if len(in.InstanceIDs) > 0 {
		since, err := r.Teardowns.TornDown(ctx)
		if err == nil && since == nil {
			err = errors.New("instanceIds finishes a teardown, and none was begun: tear down the whole deployment first")
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

// stopped begins the reason of a teardown that stopped in the middle.
const stopped = "the teardown stopped, and nothing is granted: run it again, " +
	"or delete the item teardown from the ledger's table to take the deployment up again: "

// removeStretch removes one stretch of the fleet. It returns where to continue, and whether there is more.
func (r *Reconciler) removeStretch(ctx context.Context, inv *invocation, in Input, at Cursor, a *Answer) (next Cursor, more bool) {
	listing := r.list(ctx)
	if in.isWhole() {
		inv.misnamed = listing.misnamedRows()
	}
	if len(listing.failed) > 0 {
		a.giveUp(stopped + errors.Join(listing.failed...).Error())
		return at, false
	}
	held, err := r.scan(ctx, listing, at.After, at.Limit)
	if err != nil {
		a.giveUp(stopped + err.Error())
		return at, false
	}
	a.addFolders(held)
	a.Scanned = Scanned{Records: held.recorded, Policies: listing.policies, AuthRoles: listing.authRoles, PKIRoles: listing.pkiRoles, SSHRoles: listing.sshRoles}
	next = at
	ids := held.ids()
	if len(in.InstanceIDs) > 0 {
		ids = slices.DeleteFunc(ids, func(id string) bool { return !slices.Contains(in.InstanceIDs, id) })
	}
	for group := range slices.Chunk(ids, sideBySide) {
		if !r.Now().Before(inv.until) {
			return next, true
		}
		outcomes := make([]removedOne, len(group))
		var removals errgroup.Group
		for i, id := range group {
			removals.Go(func() error {
				outcomes[i] = r.removeOne(ctx, inv.converger, held, id)
				return nil
			})
		}
		_ = removals.Wait() // the functions above keep their errors in outcomes
		for _, o := range outcomes {
			a.addRetained(o.retained)
			if o.row == nil {
				continue
			}
			a.addRemoval(o.row, in.Mode)
			inv.report(ctx, []Change{*o.row})
			if o.unfinished {
				inv.unfinished = append(inv.unfinished, o.row.InstanceID)
			}
		}
		next.After = group[len(group)-1]
	}
	next.After = held.upTo
	return next, held.upTo != ""
}

// addFolders adds the folders that could not be listed, for which the answer of a teardown is blocked: objects in no record may be
// left there. It also adds those without a mount, which hold nothing.
func (a *Answer) addFolders(held *inventory) {
	var troubles []trouble
	for _, folder := range slices.Sorted(maps.Keys(held.unlisted)) {
		reason := fmt.Sprintf("instances with objects in %s are not removed: %v; repair that, and tear down again", folder, held.unlisted[folder])
		a.block(reason)
		troubles = append(troubles, trouble{PlaceTrouble: held.folderTrouble(folder, held.unlisted[folder]), reason: reason})
	}
	for folder, err := range held.unmounted {
		troubles = append(troubles, trouble{PlaceTrouble: held.folderTrouble(folder, err)})
	}
	if t, is := held.aliasTrouble(); is {
		troubles = append(troubles, trouble{PlaceTrouble: t})
	}
	a.Places = JoinPlaces(a.Places, placesOf(troubles, nil))
}

// addRemoval adds a row of a teardown, or of a removal by word, and counts it. Mode detect only shows what would be removed.
func (a *Answer) addRemoval(row *Change, mode Mode) {
	switch {
	case row.Reason == Conflicting:
		a.Summary.Conflicting++
	case row.failed:
		a.Summary.Orphaned++
		a.Summary.Failed++
	case mode == Detect:
		a.Summary.Orphaned++
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

// removedOne is the result of removeOne.
type removedOne struct {
	row        *Change // nil if the instance had no object of this deployment
	unfinished bool    // a later run finishes the removal
	retained   []Retained
}

// removalOf returns the request to remove the grant of one instance, recorded or not, and its untracked objects.
func (r *Reconciler) removalOf(ctx context.Context, held *inventory, id string) (converge.Request, error) {
	record, untracked := held.recordOf(id), held.paths(id)
	login := grant.AuthRolePath(r.Realm.AuthMount, id)
	leftovers, err := r.leftoversOf(ctx, held, id, record)
	if err != nil {
		return converge.Request{}, err
	}
	if len(leftovers) > 0 && !slices.Contains(untracked, login) {
		untracked = append(untracked, login)
	}
	req := converge.Request{Ref: facts.Ref{ID: id}, At: r.Now(), Verify: true}
	if record != nil {
		req.Place = record.Place()
		untracked = slices.DeleteFunc(untracked, func(path string) bool { return record.Has(path) || record.Retains(path) })
	}
	req.Untracked = untracked
	return req, nil
}

// removeOne removes the grant of one instance, and its untracked objects.
func (r *Reconciler) removeOne(ctx context.Context, converger Converger, held *inventory, id string) removedOne {
	record := held.recordOf(id)
	s := &subject{id: id, record: record}
	if folder := held.unseenFolder(id); folder != "" {
		row := s.recordRow(Drift{Reason: Orphaned, Action: None, Error: fmt.Sprintf("not removed: %v", held.unlisted[folder])})
		row.failed = true
		return removedOne{row: &row}
	}
	req, err := r.removalOf(ctx, held, id)
	if err != nil {
		row := s.recordRow(Drift{Reason: Orphaned, Action: None, Error: fmt.Sprintf("not removed: %v", err)})
		row.failed = true
		return removedOne{row: &row}
	}
	req.Teardown, s.place = true, req.Place
	outcome, err := converger.Converge(ctx, req, instance.Sighting{})
	if err == nil && outcome.Action != converge.Deprovisioned {
		return removedOne{retained: retainedOf(id, outcome.Retained)}
	}
	row := s.recordRow(Drift{Reason: Orphaned, Action: Delete})
	unfinished := errors.Is(err, converge.ErrUnfinished)
	switch {
	case err == nil || unfinished:
	case fault.KindOf(err) == fault.Conflict: // adopted by another deployment
		row.Reason, row.Action, row.Error = Conflicting, None, err.Error()
	default:
		row.failed, row.Error = true, err.Error()
	}
	return removedOne{row: &row, unfinished: unfinished, retained: retainedOf(id, outcome.Retained)}
}
