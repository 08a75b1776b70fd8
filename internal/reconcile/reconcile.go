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

// Vault holds the objects to compare. Only converge writes to it.
type Vault interface {
	// Read returns the object at a path; nil if there is none.
	Read(ctx context.Context, path string) (map[string]any, error)
	// List returns all keys of a folder, or fails.
	List(ctx context.Context, path string) ([]string, error)
	Identities
}

// Identities are the identities of logins in Vault.
type Identities interface {
	// Aliases returns the identity aliases on an auth mount. The error wraps vault.ErrTooLong if there are too many to list.
	Aliases(ctx context.Context, authMount string) ([]vault.Alias, error)
	LoginMount(ctx context.Context, authMount string) (vault.LoginMount, error)
	// Entity returns the ID of the entity behind an alias; empty if there is none.
	Entity(ctx context.Context, m vault.LoginMount, alias string) (string, error)
}

// Ledger holds the records and claims.
type Ledger interface {
	Scan(ctx context.Context, v ledger.Visitor) error
	// Get returns the record of an instance; nil if there is none.
	Get(ctx context.Context, instanceID string) (*ledger.Record, error)
	// Holder returns the claim on a name; nil if no instance holds it.
	Holder(ctx context.Context, name ledger.Name) (*ledger.Claim, error)
}

// Teardowns holds the ledger's item that says that the deployment is torn down.
type Teardowns interface {
	// TearDown writes the item, so that nothing is granted any more, and returns when it was first written.
	TearDown(ctx context.Context) (time.Time, error)
	// TornDown returns when the item was written; nil while grants are made.
	TornDown(ctx context.Context) (*time.Time, error)
}

// Instances asks EC2 about instances.
type Instances interface {
	// Account returns the function's own account.
	Account(ctx context.Context) (string, error)
	// List passes the instances of a place to each, page by page, or fails. No IDs mean all.
	List(ctx context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error
	Describe(ctx context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting
}

// Queue sends events of live instances to the provision function.
type Queue interface {
	// Send returns one error for each event; nil for those that were sent.
	Send(ctx context.Context, events []event.Event) []error
}

// Converger makes Vault and ledger agree with EC2 for one instance.
type Converger interface {
	Converge(ctx context.Context, req converge.Request, s instance.Sighting) (converge.Outcome, error)
}

// Options are the parts and settings of a Reconciler.
type Options struct {
	Profiles *grant.Set
	// CheckProfiles returns an error if Profiles are no longer the ones to use; nil: they cannot change.
	CheckProfiles func(ctx context.Context) error
	Realm         grant.Realm
	Vault         Vault
	Ledger        Ledger
	Teardowns     Teardowns
	Instances     Instances
	// Queue takes the repairs that provision can make; nil: all repairs are made here.
	Queue Queue
	// Places are the accounts and regions to compare. An empty account is the function's own.
	Places []facts.Place
	// DetectOnly makes Detect the mode of an input without one; otherwise it is Correct.
	DetectOnly bool
	// Adopt takes over foreign objects at the paths of a live instance's grant.
	Adopt bool
	// OnShuttingDown removes as soon as an instance shuts down, and not only when it is terminated.
	OnShuttingDown bool
	// DeleteLimit is the delete limit in percent of the recorded instances (limits.go).
	DeleteLimit int
	// Looks repeats reads that may lag behind writes.
	Looks vault.Looks
	Now   func() time.Time
}

// Reconciler compares and repairs fleets. It keeps no state and is safe for concurrent use.
type Reconciler struct {
	Options
}

const (
	// reserve is the time before the invocation's deadline in which no instance is begun. It is a second more than
	// converge.Reserve, so that a run stops with a cursor before single instances are sent back.
	reserve = converge.Reserve + time.Second
	// RunTime bounds an invocation without a deadline; the functions have one, Lambda's longest.
	RunTime = 15 * time.Minute
	// stretch is the number of recorded instances in a stretch, which are in memory at once. A fleet that fits into one is read
	// once in an invocation.
	stretch = 200_000
	// heldRows is the number of rows after which a stretch is begun again with fewer instances: rows take more memory than
	// records.
	heldRows = 100_000
	// minStretch is the smallest stretch. A run that cannot compare one in an invocation is given up.
	minStretch = 100
)

// Observer receives the log lines and the rows of a run.
type Observer struct {
	Log *slog.Logger
	// Drift is called with each row after its repair, and with the instance's place and profile; nil for no calls.
	Drift func(ctx context.Context, d Drift, at facts.Place, profile string)
}

// invocation is one invocation's part of a run.
type invocation struct {
	converger Converger
	observer  Observer
	places    []facts.Place // to compare
	until     time.Time     // when to begin nothing new
	patience  time.Duration // bounds the listings of one account in one stretch
	stretches int           // begun in this invocation
	// removed counts the instances removed in all invocations of the run, by account.
	removed map[string]int
	// misnamed are the rows of objects that belong to no instance.
	misnamed []Change
	// unfinished are the instances whose removal a later run finishes.
	unfinished []string
}

// Run compares the fleet, or the part of it that the input names. In mode correct converger makes the repairs. A run returns
// no error: its answer has the reason why it did not compare or repair. The observer gets all rows, the answer the first
// ones.
func (r *Reconciler) Run(ctx context.Context, in Input, converger Converger, o Observer) Answer {
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
		inv := &invocation{
			converger: converger, observer: o, places: places,
			until: until, patience: until.Sub(start) / 2, removed: at.removedByAccount(),
		}
		at = r.forEachStretch(ctx, inv, at, &a, func(at Cursor) (Cursor, bool) { return r.compareStretch(ctx, inv, in, at, &a) })
	}
	a.DurationMs = r.Now().UnixMilli() - at.StartedMs
	r.logAnswer(ctx, o.Log, a)
	return a
}

// forEachStretch calls do for one stretch after the other until the fleet is done or the time is over. In the second case it
// sets the answer's cursor. It returns where it stopped.
func (r *Reconciler) forEachStretch(
	ctx context.Context, inv *invocation, at Cursor, a *Answer, do func(at Cursor) (next Cursor, more bool),
) Cursor {
	for more := true; more; {
		first := at.After == ""
		at, more = do(at)
		if first && (at.After != "" || !more) { // once in a run, when its first stretch is done
			inv.report(ctx, inv.misnamed)
			a.add(inv.misnamed, summarise(inv.misnamed))
		}
		if more && !r.Now().Before(inv.until) {
			at.setRemoved(inv.removed)
			at.Summary, at.Touched, at.BlockedReason = a.Summary, a.Touched, a.BlockedReason
			a.Truncated, a.Cursor = true, &at
			break
		}
	}
	a.Unfinished = inv.unfinished
	return at
}

// stopTime returns when an invocation that began at start begins nothing new.
func (r *Reconciler) stopTime(ctx context.Context, start time.Time) time.Time {
	if deadline, ok := ctx.Deadline(); ok {
		return start.Add(time.Until(deadline) - reserve)
	}
	return start.Add(RunTime - reserve)
}

// begin returns where a run begins or continues, and its answer so far.
func begin(in Input, start time.Time) (Cursor, Answer) {
	at := Cursor{Limit: stretch, StartedMs: start.UnixMilli()}
	if in.Cursor != nil {
		at = *in.Cursor
		at.StartedMs = cmp.Or(at.StartedMs, start.UnixMilli())
	}
	blocked := at.BlockedReason != ""
	return at, Answer{Mode: in.Mode, Drift: []Drift{}, Summary: at.Summary, Touched: at.Touched, Blocked: blocked, BlockedReason: at.BlockedReason}
}

// checkNotTornDown returns an error if the deployment was torn down: a repair would make its grants again.
func (r *Reconciler) checkNotTornDown(ctx context.Context) error {
	since, err := r.Teardowns.TornDown(ctx)
	if err != nil || since == nil {
		return err
	}
	return fmt.Errorf("nothing is repaired: this deployment was torn down at %s; delete the item teardown from the ledger's table to take it up again",
		since.Format(time.RFC3339))
}

// block records why deletes are withheld; the first reason stays.
func (a *Answer) block(reason string) {
	a.Blocked = true
	if a.BlockedReason == "" {
		a.BlockedReason = reason
	}
}

// giveUp records why the fleet was not compared to its end.
func (a *Answer) giveUp(reason string) {
	a.Compared = false
	a.block(reason)
}

// places returns the accounts and regions to compare, with the function's own account by its ID.
func (r *Reconciler) places(ctx context.Context) ([]facts.Place, error) {
	var out []facts.Place
	for _, p := range r.Places {
		if p.Account == "" {
			own, err := r.Instances.Account(ctx)
			if err != nil {
				return nil, err
			}
			p.Account = own
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out, nil
}

// compareStretch compares one stretch of the fleet and, in mode correct, repairs it. It returns where to continue, and whether
// there is more.
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
	first := inv.stretches == 0
	inv.stretches++
	switch {
	case errors.Is(err, errOutOfTime) && !first:
		return at, true // the next invocation has all its time for this stretch
	case errors.Is(err, errOutOfTime) && held.half() >= minStretch:
		at.Limit = held.half() // this invocation had all its time for the stretch: shorten it
		return at, true
	case errors.Is(err, errManyRows):
		at.Limit = min(held.half(), max(s.compared*3/4, minStretch)) // with as many rows for each, it has less than heldRows
		return at, true
	case err != nil:
		a.giveUp("the comparison was given up and nothing was repaired: " + err.Error())
		l := s.limitsOf(in, inv)
		l.doubts = append(l.doubts, err.Error())
		p := decide(s.changes, l)
		a.Places = JoinPlaces(a.Places, p.places)
		inv.report(ctx, p.changes)
		a.add(p.changes, summarise(p.changes))
		return at, false
	}
	a.Scanned = Scanned{
		Instances: len(s.states), Records: held.recorded,
		Policies: listing.policies, AuthRoles: listing.authRoles, PKIRoles: listing.pkiRoles, SSHRoles: listing.sshRoles,
	}
	a.addQuarantined(held.quarantined(in))
	p := decide(s.changes, s.limitsOf(in, inv))
	if p.blocked != "" {
		a.block(p.blocked)
	}
	a.Places = JoinPlaces(a.Places, p.places)
	next, more = at, held.upTo != ""
	next.After = held.upTo
	var done Summary
	if in.Mode == Correct {
		upTo, finished := r.repair(ctx, inv, p, &done)
		if !finished {
			more = true
			next.After = max(upTo, at.After)
			// The rest is compared again: no more of it than the repairs of an invocation keep up with.
			next.Limit = min(at.Limit, max(2*held.recordsUpTo(next.After), held.half(), minStretch))
			// The next stretch compares the other instances again.
			p.changes = slices.DeleteFunc(p.changes, func(c Change) bool { return c.InstanceID > next.After })
		}
	}
	done.add(summarise(p.changes))
	inv.report(ctx, p.changes)
	a.add(p.changes, done)
	return next, more
}

// add adds the rows and counts of a stretch.
func (a *Answer) add(changes []Change, s Summary) {
	a.Summary.add(s)
	a.Touched = a.Touched.add(changes)
	for _, c := range changes {
		if len(a.Drift) == maxRows {
			a.Truncated = true
			return
		}
		a.Drift = append(a.Drift, c.Drift)
	}
}

// report logs each row and passes it to the observer.
func (inv *invocation) report(ctx context.Context, changes []Change) {
	for _, c := range changes {
		if inv.observer.Drift != nil {
			inv.observer.Drift(ctx, c.Drift, c.place, c.profile)
		}
		inv.observer.Log.WarnContext(ctx, "drift",
			observe.KeyInstance, c.InstanceID, observe.KeyAccount, c.place.Account, observe.KeyRegion, c.place.Region,
			observe.KeyProfile, c.profile, observe.KeyObject, c.Object, observe.KeyPath, c.Path, observe.KeyReason, c.Reason,
			observe.KeyAction, c.Action, observe.KeyFields, c.Fields, observe.KeyDiff, c.Diff, observe.KeyError, c.Error)
	}
}

// logAnswer logs the answer's counts: as an error if deletes were withheld.
func (r *Reconciler) logAnswer(ctx context.Context, log *slog.Logger, a Answer) {
	level := slog.LevelInfo
	if a.Blocked {
		level = slog.LevelError
	}
	for _, t := range a.Places {
		log.WarnContext(ctx, "place not compared", observe.KeyAccount, t.Account, observe.KeyRegion, t.Region, observe.KeyPath, t.Folder,
			observe.KeyObjects, t.Recorded, observe.KeyError, t.Error)
	}
	log.Log(ctx, level, "reconciled", observe.KeyMode, a.Mode, observe.KeyScanned, a.Scanned, observe.KeySummary, a.Summary,
		observe.KeyBlocked, a.BlockedReason, observe.KeyDuration, a.DurationMs)
}
