// Package lifecycle makes true, for one instance, what its present state in EC2 asks for: that Vault holds its grant
// and nothing else, or nothing at all. It is level-triggered: an event says where to look and never what to do.
package converge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// ErrUnfinished says that all is removed and every token cut, and that something is left to do later: a second cut, when no
// login can be under way any more, or the rest of a revocation. It comes with kind fault.Retry.
var ErrUnfinished = errors.New("removed; what is left to do is done by a later run")

// Vault is where the objects are.
type Vault interface {
	// Read gives what stands at a path; nil when nothing does.
	Read(ctx context.Context, path string) (map[string]any, error)
	Write(ctx context.Context, path string, fields map[string]any) error
	// Delete succeeds for what is absent.
	Delete(ctx context.Context, path string) error
}

// Cutter ends what live tokens and certificates can still do.
type Cutter interface {
	LoginMount(ctx context.Context, authMount string) (vault.LoginMount, error)
	// CutOff deletes the identity entities behind aliases on an auth mount and counts them.
	CutOff(ctx context.Context, m vault.LoginMount, cut vault.Cut) (int, error)
	// RevokePrefix starts a revocation and does not wait for its end.
	RevokePrefix(ctx context.Context, prefix string) error
}

// Mounts knows whose PKI mounts are.
type Mounts interface {
	// Owner returns the deployment that a PKI mount is marked for; empty for a mount without a mark.
	Owner(ctx context.Context, mount string) (string, error)
}

// Ledger is what was made for whom. Its errors wrap ledger.ErrChanged and *ledger.ClaimedError.
type Ledger interface {
	Get(ctx context.Context, instanceID string) (*ledger.Record, error)
	Holder(ctx context.Context, name ledger.Name) (*ledger.Claim, error)
	Put(ctx context.Context, w ledger.Write) (*ledger.Record, error)
	// TornDown gives since when nothing is to be granted any more; nil while grants are made.
	TornDown(ctx context.Context) (*time.Time, error)
}

// Instances looks at instances again.
type Instances interface {
	// Look is asked when a name is claimed twice.
	Look(ctx context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting
	// RoleNow returns the ARN of the role in an instance's instance profile, asked for after the instance was observed.
	RoleNow(ctx context.Context, f facts.Instance) (string, error)
}

// Duties are what a function may do. Each function has a Vault role of its own, and only those that remove may
// delete auth roles and identity entities.
type Duties struct {
	Make   bool
	Remove bool
}

// Options are what a Converger works with.
type Options struct {
	Duties    Duties
	Profiles  *grant.Set
	Realm     grant.Realm
	Vault     Vault
	Cutter    Cutter
	Ledger    Ledger
	Instances Instances
	Mounts    Mounts
	// Adopt takes over objects that bear another marker or none, instead of refusing.
	Adopt bool
	// OnShuttingDown removes as soon as an instance shuts down, and not only when it is terminated.
	OnShuttingDown bool
	// RevokeCertificates revokes the leases of what the instance's PKI roles issued.
	RevokeCertificates bool
	// NewOwner names one run of Converge in the lease it takes; never the same twice.
	NewOwner func() string
	Now      func() time.Time
}

// Converger converges instances. It holds no state of its own and is safe for concurrent use.
type Converger struct {
	Options
}

// Action is what Converge did.
type Action string

// The actions.
const (
	Provisioned   Action = "provisioned"   // the grant was made or changed
	Unchanged     Action = "unchanged"     // all was as it should be
	Deprovisioned Action = "deprovisioned" // all was removed
	Unmatched     Action = "unmatched"     // no profile fits: none of our concern
	NotYet        Action = "not-yet"       // EC2 does not say enough yet; the next event will
	LeftAlone     Action = "left-alone"    // the present state asks for nothing from this function
	TornDown      Action = "torn-down"     // the deployment is torn down: nothing is granted
)

// Outcome says what was done for one instance, and to whom it was granted.
type Outcome struct {
	Action  Action
	Profile string
	FQDN    string
	Objects int // written or removed
	Cut     int // identity entities deleted
	// Paths are those of the grant, or of what was removed; Addresses the instance's.
	Paths, Addresses []string
	// CutAt is when every token of the instance's was refused; zero unless it was removed.
	CutAt time.Time
	// Holds tells, beside an error, that the instance has objects of an earlier grant by the ledger, and keeps them.
	Holds bool
	// SecondCut is true where the removal was done before and only its second token cut was made now.
	SecondCut bool
	// RemovedHolders are the instances, gone by EC2, whose grants were removed because this one takes a name of theirs.
	RemovedHolders []RemovedHolder
}

// RemovedHolder is an instance whose grant was removed because another takes a name of its.
type RemovedHolder struct {
	facts.Ref
	// Unfinished reports whether a part of the removal is left to a later run, as with ErrUnfinished.
	Unfinished bool
	// Err is the conflict that its removal met; nil for none.
	Err     error
	Outcome Outcome
}

const (
	// Grace is how long AWS's answers may lag behind an event, and how long EC2 may not show a new instance.
	Grace = 10 * time.Minute
	// stale is how old a look at EC2 may be when a grant is made from it.
	stale = 30 * time.Second
	// convergeTime bounds one run, and it ends this long before the invocation does, so that there is time to answer
	// and to give the lease back.
	convergeTime = 45 * time.Second
	answerTime   = 5 * time.Second
	// leaseMargin is how much of a lease must be left to start a call on it: more than a call, with a login before it
	// and a second try, may take of a run that has not been frozen.
	leaseMargin = ledger.LeaseTime - convergeTime - answerTime
)

// Converge makes true what the sighting asks for. An error's fault kind says whether to try again; a refusal and a
// conflict are recorded in the ledger before it returns.
func (c *Converger) Converge(ctx context.Context, req Request, s instance.Sighting) (Outcome, error) {
	limit := convergeTime
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)-answerTime)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if req.Teardown {
		return c.retire(ctx, req, false, func() error { return nil })
	}
	if s.Err != nil {
		return Outcome{}, s.Err
	}
	if !s.Found {
		return c.absent(ctx, req)
	}
	if req.Leaving {
		return c.leaving(ctx, req, s.Facts)
	}
	if lags(s.Facts.State, req.Told) && c.Now().Sub(req.At) < Grace {
		return Outcome{}, fault.Retryf("instance %s is %s by its event, but EC2 still shows it as %s", req.ID, req.Told, s.Facts.State)
	}
	switch s.Facts.State {
	case facts.Terminated:
		return c.gone(ctx, req)
	case facts.ShuttingDown:
		// There is no way back from here; with a terminated event there is nothing to wait for either.
		if c.OnShuttingDown || req.Told == facts.Terminated {
			return c.gone(ctx, req)
		}
	case facts.Pending, facts.Running:
		if c.Duties.Make {
			return c.make(ctx, req, s.Facts)
		}
	case facts.Stopping, facts.Stopped:
		// A stopped instance may start again; Vault lets it log in only while it runs.
	}
	return Outcome{Action: LeftAlone}, nil
}

// lags tells whether EC2, which answers from copies, shows a state from before the event's. Acting on it would
// acknowledge the one event that tells of the change.
func lags(seen, told facts.State) bool {
	switch told {
	case facts.Terminated, facts.ShuttingDown:
		return seen != facts.Terminated && seen != facts.ShuttingDown
	case facts.Running:
		return seen == facts.Stopping || seen == facts.Stopped
	default:
		return false
	}
}

// absent is for an instance that a complete answer of EC2 does not hold. It counts as gone only when AWS's own event
// says so too; else it is either too new to be seen or too old to be asked about.
func (c *Converger) absent(ctx context.Context, req Request) (Outcome, error) {
	if req.Absent || req.Told == facts.Terminated || req.Told == facts.ShuttingDown {
		return c.gone(ctx, req)
	}
	if c.Now().Sub(req.At) < Grace {
		return Outcome{}, fault.Retryf("instance %s is %s by its event, but EC2 does not show it yet", req.ID, req.Told)
	}
	return Outcome{Action: LeftAlone}, nil
}

// gone is for an instance that has ended, or is ending.
func (c *Converger) gone(ctx context.Context, req Request) (Outcome, error) {
	old, ends, err := c.toEnd(ctx, req)
	if err != nil {
		return Outcome{}, err
	}
	if ends {
		return Outcome{Action: LeftAlone}, nil
	}
	next, err := c.withStrays(ctx, req, old)
	if err != nil {
		return Outcome{}, err
	}
	if len(next.Objects) == 0 && old == nil {
		return c.bury(ctx, old, next)
	}
	return c.remove(ctx, removal{old: old, next: next})
}

// leaving is for an instance that EC2 shows as alive and Auto Scaling as terminating. The mark says so from the first write
// on; one from before the instance was last started is renewed.
func (c *Converger) leaving(ctx context.Context, req Request, f facts.Instance) (Outcome, error) {
	old, ends, err := c.toEnd(ctx, req)
	if err != nil {
		return Outcome{}, err
	}
	if ends {
		return Outcome{Action: LeftAlone}, nil
	}
	next, err := c.fromTheLiving(ctx, req, old, func() error { return c.notStale(f) }) // it may have been stopped and started since
	if err != nil {
		return Outcome{Holds: holds(old)}, err
	}
	marked := next.Leaves(f.LaunchTime)
	if !marked {
		now := c.Now().Round(0).UTC()
		next.LeavingSince = &now
	}
	if len(next.Objects) == 0 && (old == nil || !marked && old.State == ledger.Deleted) {
		return c.bury(ctx, old, next)
	}
	return c.remove(ctx, removal{old: old, next: next}) // with its names: by AWS's own word it ends
}

// toEnd gives the record of an instance that is to lose all; ends tells that this function may not see to it. Only the place
// where an instance is recorded ends it while it has anything, were it names alone.
func (c *Converger) toEnd(ctx context.Context, req Request) (old *ledger.Record, ends bool, err error) {
	if !c.Duties.Remove {
		return nil, true, nil
	}
	old, err = c.Ledger.Get(ctx, req.ID)
	has := old != nil && (old.State != ledger.Deleted || len(old.Names()) > 0)
	if err == nil && has && (old.Account != req.Account || old.Region != req.Region) {
		err = fault.Refusef("instance %s is recorded in account %s, region %s: an event from account %s, region %s does not end it",
			req.ID, old.Account, old.Region, req.Account, req.Region)
	}
	return old, false, err
}

// bury writes a tombstone for an instance that has nothing: a provision that looked at EC2 a moment earlier, while the
// instance still ran, must find it and not make a grant that nobody would ever remove.
func (c *Converger) bury(ctx context.Context, old *ledger.Record, next ledger.Record) (Outcome, error) {
	_, err := c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: c.NewOwner()})
	return Outcome{Action: Unchanged}, err
}

// retire removes what an instance holds though it may run: the deployment is torn down, or no profile fits. What another
// deployment has taken over stays. still is asked last: an error means that the reason may have passed. keepsNames is for
// an instance that lives on with certificates that are still good: others get its names when those have ended.
func (c *Converger) retire(ctx context.Context, req Request, keepsNames bool, still func() error) (Outcome, error) {
	if !c.Duties.Remove {
		return Outcome{Action: LeftAlone}, nil
	}
	old, err := c.Ledger.Get(ctx, req.ID)
	if err != nil {
		return Outcome{}, err
	}
	next, err := c.fromTheLiving(ctx, req, old, still)
	if err != nil {
		return Outcome{Holds: holds(old)}, err
	}
	return c.remove(ctx, removal{old: old, next: next, keepsNames: keepsNames})
}

// fromTheLiving is the record, with the strays, of what is to be taken from an instance that may run; an error where
// another deployment has taken it over. still is asked last, after every call.
func (c *Converger) fromTheLiving(ctx context.Context, req Request, old *ledger.Record, still func() error) (ledger.Record, error) {
	if err := c.takenOver(ctx, old); err != nil {
		return ledger.Record{}, err
	}
	next, err := c.withStrays(ctx, req, old)
	if err == nil {
		err = still()
	}
	return next, err
}

// take checks that nobody else is at work on a record.
func (c *Converger) take(r *ledger.Record) error {
	if r != nil && r.LeaseOwner != "" && r.LeaseExpiresAt >= c.Now().UnixMilli() {
		return fault.New(fault.Retry, fmt.Errorf("instance %s is being worked on until %s: %w",
			r.InstanceID, time.UnixMilli(r.LeaseExpiresAt).UTC().Format(time.RFC3339), ledger.ErrChanged))
	}
	return nil
}

// notStale is an error when what is known of an instance is too old to make a grant from, or to take one away while the
// instance lives: the sandbox may have been frozen since it looked.
func (c *Converger) notStale(f facts.Instance) error {
	if age := c.Now().Sub(f.ObservedAt); age > stale {
		return fault.Retryf("what is known of instance %s is %s old: it is looked at again", f.ID, age.Round(1e9))
	}
	return nil
}

// refused records why an instance gets nothing, or keeps what it had, and gives the reason back.
func (c *Converger) refused(ctx context.Context, old *ledger.Record, f facts.Instance, reason error) (Outcome, error) {
	return Outcome{Holds: holds(old)}, c.recordRefusal(ctx, old, f, reason)
}

func holds(r *ledger.Record) bool { return r != nil && len(r.Objects) > 0 }

func (c *Converger) recordRefusal(ctx context.Context, old *ledger.Record, f facts.Instance, reason error) error {
	if fault.KindOf(reason) == fault.Retry {
		return reason
	}
	next := ledger.Record{InstanceID: f.ID, Account: f.Account, Region: f.Region, State: ledger.Refused}
	if old != nil {
		if old.LastError == reason.Error() {
			return reason // recorded before
		}
		next = *old
		if old.State == ledger.Deleted {
			next.State = ledger.Refused
		}
	}
	next.LastError = reason.Error()
	next.Attempts++
	_, err := c.Ledger.Put(ctx, ledger.Write{Old: old, New: next, Owner: c.NewOwner()})
	if err != nil {
		// Not recorded, so not done: it comes back.
		return fault.New(fault.Retry, errors.Join(reason, err))
	}
	return reason
}

// failed gives the lease back and notes why the run broke off, so that the next one need not wait for the lease to
// run out. Where time ran out, the run's or a call's, the lease is kept: what was given up on may still take effect in
// Vault.
func (c *Converger) failed(ctx context.Context, w ledger.Write, reason error) error {
	w.KeepLease = ctx.Err() != nil || errors.Is(reason, context.DeadlineExceeded) || errors.Is(reason, context.Canceled)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTime-time.Second)
	defer cancel()
	w.New.LastError = reason.Error()
	w.New.Attempts++
	_, err := c.Ledger.Put(ctx, w)
	switch {
	case errors.Is(err, ledger.ErrChanged):
		// The run was taken over: what it saw may have been the other's work, and says nothing of the instance.
		return fault.New(fault.Retry, errors.Join(reason, err))
	case err != nil:
		return fault.New(fault.KindOf(reason), errors.Join(reason, err))
	}
	return reason
}
