package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// Vault is what a comparison reads. It writes nothing.
type Vault interface {
	// Read gives what stands at a path; nil when nothing does.
	Read(ctx context.Context, path string) (map[string]any, error)
	// List gives the whole of a folder, or fails.
	List(ctx context.Context, path string) ([]string, error)
	// Aliases lists the identity aliases on an auth mount.
	Aliases(ctx context.Context, authMount string) ([]vault.Alias, error)
}

// Ledger is what was made for whom.
type Ledger interface {
	Scan(ctx context.Context, v ledger.Visitor) error
	Get(ctx context.Context, instanceID string) (*ledger.Record, error)
	// Holder gives nil for a name that nobody holds.
	Holder(ctx context.Context, name ledger.Name) (*ledger.Claim, error)
}

// Teardowns is the ledger's note that the whole deployment is to go.
type Teardowns interface {
	// TearDown notes that nothing is to be granted any more, and gives since when.
	TearDown(ctx context.Context) (time.Time, error)
	// TornDown gives the same without noting it; nil while grants are made.
	TornDown(ctx context.Context) (*time.Time, error)
}

// Instances are those of EC2.
type Instances interface {
	// Account is the function's own.
	Account(ctx context.Context) (string, error)
	// List shows the instances of a place page by page, or fails.
	List(ctx context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error
	Look(ctx context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting
}

// Queue hands live instances to the provision function; there is one error for each, nil for those it took.
type Queue interface {
	Send(ctx context.Context, events []event.Event) []error
}

// Converger puts one instance right.
type Converger interface {
	Converge(ctx context.Context, req converge.Request, s instance.Sighting) (converge.Outcome, error)
}

// Options are what a Reconciler works with.
type Options struct {
	Profiles  *grant.Set
	Realm     grant.Realm
	Vault     Vault
	Ledger    Ledger
	Teardowns Teardowns
	Instances Instances
	// Queue takes what provision can repair; nil: all is repaired here.
	Queue Queue
	// Accounts are those to compare; empty for the function's own.
	Accounts []string
	// Regions are those to compare, in each account.
	Regions []string
	// DetectOnly is the mode of runs whose input has none.
	DetectOnly bool
	// Adopt takes over what is in conflict.
	Adopt bool
	// OnShuttingDown removes as soon as an instance shuts down.
	OnShuttingDown bool
	// DeleteLimit is the percentage of the recorded instances past which none is removed.
	DeleteLimit int
	Now         func() time.Time
}

// Reconciler compares and repairs fleets. It holds nothing of a run and is safe for concurrent use.
type Reconciler struct {
	Options
}

const (
	// reserve is the time before the deadline in which nothing new is begun; a second more than what the handler keeps for
	// one instance's work.
	reserve = 21 * time.Second
	// runTime is how long a run may take where nothing sets a deadline.
	runTime = 15 * time.Minute
	// stretch is how many recorded instances are held in memory at once, and minStretch how few before a run that gets
	// nowhere is given up.
	stretch    = 20_000
	minStretch = 100
)

// CheckInput holds an input against its forms.
func CheckInput(in Input) error {
	switch in.Mode {
	case "", Detect, Correct, Doctor:
		if in.Confirm != "" {
			return fmt.Errorf("confirm is for mode %s", Teardown)
		}
	case Teardown:
		if in.Profile != "" || in.Force || in.NamesOnly {
			return fmt.Errorf("mode %s takes the whole deployment: leave profile, force and namesOnly out", Teardown)
		}
	default:
		return fmt.Errorf("mode: %q is none of %s, %s, %s, %s", in.Mode, Detect, Correct, Doctor, Teardown)
	}
	for _, id := range in.InstanceIDs {
		if !facts.IsInstanceID(id) {
			return fmt.Errorf("instanceIds: %+q is not the ID of an EC2 instance", id)
		}
	}
	if in.Cursor != nil && in.Cursor.Limit < 1 {
		return errors.New("cursor: its limit is not positive: take it from an answer as it is")
	}
	return nil
}

// Observer is told of a run.
type Observer struct {
	Log *slog.Logger
	// Drift is told of each row after what was done about it, and where the instance is; nil for nobody.
	Drift func(ctx context.Context, d Drift, at facts.Place, profile string)
}

// invocation is one invocation's part of a run.
type invocation struct {
	converger Converger
	observer  Observer
	places    []facts.Place
	until     time.Time
	patience  time.Duration // how long one account's listings may take in a pass
	passes    int           // begun in this invocation
	// removed counts instances, by account, over all invocations of the run.
	removed map[string]int
	// misnamed are the rows of what belongs to no instance.
	misnamed []Change
	// unfinished are removed instances that are to be looked after once more.
	unfinished []string
}

// Run compares the fleet, or what the input names of it, and in mode correct has converger repair it. What keeps it
// from doing so stands in the answer: a run has no error of its own. The observer is told of each row; the answer holds
// the first.
func (r *Reconciler) Run(ctx context.Context, in Input, converger Converger, w Observer) Answer {
	start := r.Now()
	until := r.stopTime(ctx, start)
	if in.Mode == "" {
		in.Mode = Correct
		if r.DetectOnly {
			in.Mode = Detect
		}
	}
	at, a := begin(in, start)
	places, err := r.places(ctx)
	if err == nil && in.Mode == Correct {
		err = r.checkNotTornDown(ctx)
	}
	if err != nil {
		a.block(err.Error())
	} else {
		a.Compared = true
		inv := &invocation{converger: converger, observer: w, places: places, until: until, patience: until.Sub(start) / 2, removed: at.removedByAccount()}
		at = r.forEachStretch(ctx, inv, at, &a, func(at Cursor) (Cursor, bool) { return r.compareStretch(ctx, inv, in, at, &a) })
	}
	a.DurationMs = r.Now().UnixMilli() - at.StartedMs
	r.logAnswer(ctx, w.Log, a)
	return a
}

// forEachStretch goes through the fleet stretch by stretch, until there is no more, or no time: the answer then has a cursor. It
// gives where it came to.
func (r *Reconciler) forEachStretch(ctx context.Context, inv *invocation, at Cursor, a *Answer, stretch func(at Cursor) (next Cursor, more bool)) Cursor {
	for more := true; more; {
		first := at.After == ""
		at, more = stretch(at)
		if first && (at.After != "" || !more) { // once for the whole run, whatever its stretches and invocations
			inv.report(ctx, inv.misnamed)
			a.add(inv.misnamed, summarise(inv.misnamed))
		}
		if more && !r.Now().Before(inv.until) {
			at.setRemoved(inv.removed)
			at.Summary, at.BlockedReason = a.Summary, a.BlockedReason
			a.Truncated, a.Cursor = true, &at
			break
		}
	}
	a.Unfinished = inv.unfinished
	return at
}

// stopTime is when a run stops to begin anything new.
func (r *Reconciler) stopTime(ctx context.Context, start time.Time) time.Time {
	if deadline, ok := ctx.Deadline(); ok {
		return start.Add(time.Until(deadline) - reserve)
	}
	return start.Add(runTime - reserve)
}

// begin gives where a run begins or goes on, and its answer so far.
func begin(in Input, start time.Time) (Cursor, Answer) {
	at := Cursor{Limit: stretch, StartedMs: start.UnixMilli()}
	if in.Cursor != nil {
		at = *in.Cursor
		at.StartedMs = cmp.Or(at.StartedMs, start.UnixMilli())
	}
	return at, Answer{Mode: in.Mode, Drift: []Drift{}, Summary: at.Summary, Blocked: at.BlockedReason != "", BlockedReason: at.BlockedReason}
}

// checkNotTornDown is an error when the deployment was torn down: what would be made again is to be gone.
func (r *Reconciler) checkNotTornDown(ctx context.Context) error {
	since, err := r.Teardowns.TornDown(ctx)
	if err != nil || since == nil {
		return err
	}
	return fmt.Errorf("nothing is repaired: this deployment was torn down at %s; delete the item teardown from the ledger's table to take it up again", since.Format(time.RFC3339))
}

// block notes why nothing is deleted.
func (a *Answer) block(reason string) {
	a.Blocked = true
	if a.BlockedReason == "" {
		a.BlockedReason = reason
	}
}

// giveUp notes that not all was compared, and so nothing is deleted.
func (a *Answer) giveUp(reason string) {
	a.Compared = false
	a.block(reason)
}

// places are all accounts and regions to compare.
func (r *Reconciler) places(ctx context.Context) ([]facts.Place, error) {
	accounts := r.Accounts
	if len(accounts) == 0 {
		own, err := r.Instances.Account(ctx)
		if err != nil {
			return nil, err
		}
		accounts = []string{own}
	}
	var out []facts.Place
	for _, a := range accounts {
		for _, region := range r.Regions {
			out = append(out, facts.Place{Account: a, Region: region})
		}
	}
	return out, nil
}

// compareStretch compares one stretch of the fleet and puts it right. It gives where to go on, if there is more.
func (r *Reconciler) compareStretch(ctx context.Context, inv *invocation, in Input, at Cursor, a *Answer) (next Cursor, more bool) {
	listing := r.list(ctx)
	if in.isWhole() {
		inv.misnamed = listing.misnamedRows()
	}
	if !listing.listed[grant.PolicyFolder] {
		a.giveUp("nothing is compared: " + errors.Join(listing.failed...).Error())
		return at, false
	}
	held, err := r.scan(ctx, listing, at.After, at.Limit)
	if err != nil {
		a.giveUp("nothing is compared: " + err.Error())
		return at, false
	}
	s, err := r.survey(ctx, held, in, inv)
	first := inv.passes == 0
	inv.passes++
	switch {
	case errors.Is(err, errOutOfTime) && !first:
		return at, true // the next invocation gives it all its time
	case errors.Is(err, errOutOfTime) && at.Limit/2 >= minStretch:
		at.Limit /= 2 // nothing was done yet: a shorter stretch next time
		return at, true
	case err != nil:
		a.giveUp("the comparison was given up and nothing was repaired: " + err.Error())
		l := s.limitsOf(in, inv)
		l.doubts = append(l.doubts, err.Error())
		p := decide(s.changes, l)
		inv.report(ctx, p.changes)
		a.add(p.changes, summarise(p.changes))
		return at, false
	}
	a.Scanned = Scanned{
		Instances: len(s.states), Records: len(held.recorded),
		Policies: listing.policies, AuthRoles: listing.authRoles, PKIRoles: listing.pkiRoles,
	}
	p := decide(s.changes, s.limitsOf(in, inv))
	if p.blocked != "" {
		a.block(p.blocked)
	}
	next, more = at, held.upTo != ""
	next.After = held.upTo
	var done Summary
	if in.Mode == Correct {
		upTo, finished := r.repair(ctx, inv, p, &done)
		if !finished {
			more = true
			if next.After = max(upTo, at.After); next.After == at.After {
				next.Limit = max(at.Limit/2, minStretch)
			}
			// The rest is found again.
			p.changes = slices.DeleteFunc(p.changes, func(c Change) bool { return c.InstanceID > next.After })
		}
	}
	done.add(summarise(p.changes))
	inv.report(ctx, p.changes)
	a.add(p.changes, done)
	return next, more
}

// add puts a pass's rows and counts into the answer.
func (a *Answer) add(changes []Change, s Summary) {
	a.Summary.add(s)
	for _, c := range changes {
		if len(a.Drift) == maxRows {
			a.Truncated = true
			return
		}
		a.Drift = append(a.Drift, c.Drift)
	}
}

// report reports every row.
func (inv *invocation) report(ctx context.Context, changes []Change) {
	for _, c := range changes {
		if inv.observer.Drift != nil {
			inv.observer.Drift(ctx, c.Drift, c.place, c.profile)
		}
		inv.observer.Log.WarnContext(ctx, "drift", observe.KeyInstance, c.InstanceID, observe.KeyAccount, c.place.Account, observe.KeyRegion, c.place.Region,
			observe.KeyProfile, c.profile, observe.KeyObject, c.Object, observe.KeyPath, c.Path, observe.KeyReason, c.Reason,
			observe.KeyAction, c.Action, observe.KeyFields, c.Fields, observe.KeyDiff, c.Diff, observe.KeyError, c.Error)
	}
}

// logAnswer logs what came out.
func (r *Reconciler) logAnswer(ctx context.Context, log *slog.Logger, a Answer) {
	level := slog.LevelInfo
	if a.Blocked {
		level = slog.LevelError
	}
	log.Log(ctx, level, "reconciled", observe.KeyMode, a.Mode, observe.KeyScanned, a.Scanned, observe.KeySummary, a.Summary,
		observe.KeyBlocked, a.BlockedReason, observe.KeyDuration, a.DurationMs)
}
