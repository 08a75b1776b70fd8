// Package converge makes Vault and ledger agree with EC2 for one instance: Vault holds the instance's grant and nothing
// else, or nothing at all. It is level-triggered: an event says which instance to look at, and never what to do.
//
// Converge chooses by the instance's state: make.go makes a grant (decide.go decides whether), leave.go chooses what an
// ending instance loses, remove.go removes it, and cut.go cuts its tokens.
package converge

import (
	"context"
	"errors"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ownership"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// ErrUnfinished says that all objects are removed and every token is cut, and that a part is left to a later run: the
// second token cut, when no login can be in flight, or the rest of a revocation. Its kind is fault.Retry.
var ErrUnfinished = errors.New("removed; a later run finishes the rest")

// ErrCertificatesLeft says that the certificates of a removed instance are not all revoked. An error with it is an ErrUnfinished too.
var ErrCertificatesLeft = errors.New("its certificates are not all revoked")

// ErrReplacing says that the root volume of an instance is being replaced: a later run resets the login. Its kind is fault.Retry.
var ErrReplacing = errors.New("the root volume is being replaced; a later run resets the login")

// Vault holds the objects.
type Vault interface {
	// Read returns the object at a path; nil if there is none.
	Read(ctx context.Context, path string) (map[string]any, error)
	// Write returns the object as the answer shows it: a PKI role as stored; nil where Vault answers nothing.
	Write(ctx context.Context, path string, fields map[string]any) (stored map[string]any, err error)
	// Delete succeeds for an absent object.
	Delete(ctx context.Context, path string) error
}

// Cutter ends the power of live tokens and certificates.
type Cutter interface {
	LoginMount(ctx context.Context, authMount string) (vault.LoginMount, error)
	// CutOff deletes the identity entities behind aliases on an auth mount and counts them.
	CutOff(ctx context.Context, m vault.LoginMount, cut vault.Cut) (int, error)
	// RevokePrefix starts a revocation and does not wait for its end.
	RevokePrefix(ctx context.Context, prefix string) error
}

// Certificates revokes the certificates that the ledger has of an instance.
type Certificates interface {
	Revoke(ctx context.Context, instanceID string) error
}

// Mounts returns the owners of PKI mounts.
type Mounts interface {
	// Owner returns the deployment that a PKI mount is marked for; empty for a mount without a mark.
	Owner(ctx context.Context, mount string) (string, error)
}

// Ledger holds the records and claims. Its errors wrap ledger.ErrChanged and *ledger.ClaimedError.
type Ledger interface {
	Get(ctx context.Context, instanceID string) (*ledger.Record, error)
	Holder(ctx context.Context, name ledger.Name) (*ledger.Claim, error)
	Put(ctx context.Context, w ledger.Write) (*ledger.Record, error)
	// TornDown returns when the deployment was torn down; nil while grants are made.
	TornDown(ctx context.Context) (*time.Time, error)
}

// Instances asks AWS about instances again.
type Instances interface {
	// Describe is called for the holder of a name that another instance claims.
	Describe(ctx context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting
	// RoleNow returns f with the role in its instance profile, as IAM named it after the instance was observed.
	RoleNow(ctx context.Context, f facts.Instance) (facts.Instance, error)
}

// Duties are what a function may do. Each function has a Vault role of its own, and only those that remove may
// delete auth roles and identity entities.
type Duties struct {
	Make   bool
	Remove bool
}

// Options are the parts and settings of a Converger.
type Options struct {
	Duties   Duties
	Profiles *grant.Set
	Realm    grant.Realm
	Vault    Vault
	Cutter   Cutter
	Ledger   Ledger
	// Records reads the records of a batch; nil: each run reads its own.
	Records   Records
	Instances Instances
	Mounts    Mounts
	// Lists shows which paths of a batch's first grants are absent; nil: each path is read.
	Lists *Lists
	// Waiters remembers the instances that wait for a name; nil for none. Where it is set, Ledger is a Waker.
	Waiters Waiting
	// Adopt takes over objects with another marker or none, instead of refusing.
	Adopt bool
	// OnShuttingDown removes as soon as an instance shuts down, and not only when it is terminated.
	OnShuttingDown bool
	// RevokeCertificates revokes the leases of the certificates that the instance's PKI roles issued.
	RevokeCertificates bool
	// Certificates revokes the stored certificates of an instance whose grant is removed; nil: they are left valid.
	Certificates Certificates
	// Looks repeats reads that may lag behind writes.
	Looks vault.Looks
	// NewOwner returns the name of one run in the lease it takes; never the same name twice.
	NewOwner func() string
	Now      func() time.Time
}

// Converger converges instances. It keeps no state and is safe for concurrent use.
type Converger struct {
	Options
}

// Action names the effect of one run of Converge.
type Action string

// The actions.
const (
	Provisioned   Action = "provisioned"   // the grant was made or changed
	Unchanged     Action = "unchanged"     // the grant was as it should be
	Deprovisioned Action = "deprovisioned" // the grant was removed
	Unmatched     Action = "unmatched"     // no profile fits the instance
	NotYet        Action = "not-yet"       // a pending instance's facts are not complete yet; its running event comes
	LeftAlone     Action = "left-alone"    // the state asks for nothing from this function
	LoginReset    Action = "login-reset"   // the instance may log in with a new nonce: its root volume was replaced
	TornDown      Action = "torn-down"     // the deployment is torn down: nothing is granted
	InQuarantine  Action = "in-quarantine" // the instance is in quarantine, and has nothing left to remove
)

// Outcome describes one run of Converge.
type Outcome struct {
	Action  Action
	Profile string
	FQDN    string
	Objects int // written or removed
	Cut     int // identity entities deleted
	// Paths are the paths of the grant, or of the removed objects.
	Paths     []string
	Addresses []string // of the instance
	// Retained are the paths of objects that a removal left in Vault, as the profile says.
	Retained []string
	// CutAt is when every token of the instance was refused; zero unless its grant was removed.
	CutAt time.Time
	// Holds reports whether the instance keeps the objects of an earlier grant, by the ledger; set only with an error.
	Holds bool
	// SecondCut reports whether this run made only the second token cut of an earlier removal.
	SecondCut bool
	// Quarantined is the mark that this run wrote, also with an error; nil for none.
	Quarantined *ledger.Quarantine
	// Released is the mark that this run ended; nil for none.
	Released *ledger.Quarantine
	// Closest returns the profile that comes closest to an instance which no profile fits, with the conditions that it does not meet;
	// nil for any other instance. It is called only where a person is to read it.
	Closest func() string
	// RemovedHolders are instances that EC2 shows as gone and that held names of this one: their grants were removed.
	RemovedHolders []RemovedHolder
}

// RemovedHolder is an instance whose grant was removed because another instance claims one of its names.
type RemovedHolder struct {
	facts.Ref
	// Unfinished reports whether a part of the removal is left to a later run, as with ErrUnfinished.
	Unfinished bool
	// Err is the conflict of its removal; nil if there was none.
	Err     error
	Outcome Outcome
}

const (
	// Grace is how long AWS's answers may lag behind an event, and how long EC2 may not show a new instance.
	Grace = 10 * time.Minute
	// MaxFactsAge is the largest age of facts that may make a grant, or remove the grant of a live instance.
	MaxFactsAge = 30 * time.Second
	// RunTime bounds one run of Converge.
	RunTime = 45 * time.Second
	// AnswerTime is the time before the invocation's deadline at which a run ends, to answer and to return the lease.
	AnswerTime = 5 * time.Second
	// Reserve is the time before an invocation's deadline in which no caller begins an instance.
	Reserve = 20 * time.Second
	// leaseMargin is the part of a lease that must be left to start a call. A run that was not frozen always has it left, and a
	// login and a call fit into it.
	leaseMargin = ledger.LeaseTime - RunTime - AnswerTime
)

// Converge makes Vault and ledger agree with a sighting of the requested instance. The fault kind of an error says whether
// to try again. A refusal and a conflict are recorded in the ledger before it returns.
func (c *Converger) Converge(ctx context.Context, req Request, s instance.Sighting) (Outcome, error) {
	limit := RunTime
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)-AnswerTime)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	switch {
	case req.Teardown:
		return c.removeTornDown(ctx, req)
	case req.Gone:
		return c.removeGone(ctx, req)
	case req.Quarantine != nil:
		return c.convergeQuarantined(ctx, req, s)
	case req.Release != nil:
		return c.release(ctx, req)
	}
	return c.convergeBySighting(ctx, req, s)
}

// convergeBySighting converges an instance by what AWS says of it.
func (c *Converger) convergeBySighting(ctx context.Context, req Request, s instance.Sighting) (Outcome, error) {
	switch {
	case s.Err != nil && !s.LacksRole():
		return Outcome{}, s.Err
	case !s.Found:
		return c.convergeAbsent(ctx, req)
	case req.Leaving:
		return c.removeLeaving(ctx, req, s.Facts)
	case req.Volume != "" && s.Facts.State == facts.Running:
		return c.resetLogin(ctx, req, s.Facts)
	case lags(s.Facts.State, req.Told) && c.Now().Sub(req.At) < Grace:
		return Outcome{}, fault.Retryf("instance %s is %s by its event, but EC2 still shows it as %s", req.ID, req.Told, s.Facts.State)
	}
	switch s.Facts.State {
	case facts.Terminated:
		return c.removeGone(ctx, req)
	case facts.ShuttingDown:
		// There is no way back from here; after a terminated event there is nothing to wait for either.
		if c.OnShuttingDown || req.Told == facts.Terminated {
			return c.removeGone(ctx, req)
		}
	case facts.Pending, facts.Running:
		switch {
		case c.Duties.Make && s.LacksRole():
			return c.keepWithoutRole(ctx, req, s)
		case c.Duties.Make:
			return c.make(ctx, req, s.Facts)
		}
	case facts.Stopping, facts.Stopped:
		// A stopped instance may start again; Vault lets it log in only while it runs.
	}
	return Outcome{Action: LeftAlone}, nil
}

// lags reports whether EC2, which answers from copies, shows a state from before the event's. Acting on it would
// acknowledge the only event of the change.
func lags(seen, told facts.State) bool {
	switch told {
	case facts.Terminated, facts.ShuttingDown:
		return !seen.IsEnding()
	case facts.Running:
		return seen == facts.Stopping || seen == facts.Stopped
	default:
		return false
	}
}

// convergeAbsent converges an instance that a complete answer of EC2 does not hold. It counts as gone only if an event says
// so too, or the caller looked in every place; otherwise it is either too new for EC2 to show, or forgotten long ago.
func (c *Converger) convergeAbsent(ctx context.Context, req Request) (Outcome, error) {
	switch {
	case req.Absent, req.Told.IsEnding():
		return c.removeGone(ctx, req)
	case c.Now().Sub(req.At) < Grace:
		return Outcome{}, fault.Retryf("instance %s is %s by its event, but EC2 does not show it yet", req.ID, req.Told)
	}
	return Outcome{Action: LeftAlone}, nil
}

// instance returns an instance in the eyes of this deployment.
func (c *Converger) instance(id string) ownership.Instance {
	return ownership.Instance{Deployment: c.Realm.Deployment, ID: id}
}

// staleError returns an error if the facts of an instance are older than MaxFactsAge: the sandbox may have been frozen
// since EC2 was asked.
func staleError(f facts.Instance, now time.Time) error {
	if age := now.Sub(f.ObservedAt); age > MaxFactsAge {
		return fault.Retryf("the facts of instance %s are %s old: EC2 is asked again", f.ID, age.Round(1e9))
	}
	return nil
}
