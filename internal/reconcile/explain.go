package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/autoscaling"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// Groups reads the states of instances in their Auto Scaling groups.
type Groups interface {
	States(ctx context.Context, refs []facts.Ref) map[facts.Ref]autoscaling.GroupState
}

// Logins reads the identities of logins in Vault.
type Logins interface {
	// Identity returns the entity behind an alias; nil if there is none.
	Identity(ctx context.Context, m vault.LoginMount, alias string) (*vault.Identity, error)
}

// Waiters reads which instances wait for a name of another.
type Waiters interface {
	Waiting(ctx context.Context, holder string) ([]facts.Ref, error)
}

// Explainer explains single instances. It compares as the Reconciler does, and only reads.
type Explainer struct {
	*Reconciler
	Groups  Groups
	Logins  Logins
	Waiters Waiters
	// Digest is that of the profiles; empty for those that are part of the function.
	Digest string
	// Doubt is why there are no profiles, or others than the wanted ones; nil for the wanted ones.
	Doubt error
}

// explainTime bounds one explanation: each call has a deadline of its own, and a service that hangs takes up several.
const explainTime = 2 * time.Minute

// story is what was read about one instance.
type story struct {
	*subject
	now     time.Time
	listing *listing
	asked   []facts.Place // the places where EC2 was asked
	own     []facts.Place // the places that reconcile compares
	// seenErr is why EC2's answer is not known; nil if it is.
	seenErr error
	// recordErr is why the ledger's record is not known; nil if it is.
	recordErr error
	tornDown  *time.Time
	group     *SeenGroup
	names     []SeenName
	waiting   []string
	login     Login
	// compared reports whether rows are complete.
	compared bool
	rows     []Change
	unread   []fault.Unread
}

// addUnread adds something that could not be read.
func (t *story) addUnread(what string, err error) {
	if err != nil {
		t.unread = append(t.unread, fault.Unread{What: what, Error: err.Error()})
	}
}

// seesVault reports whether Vault answered: without its lists nothing in it is compared.
func (t *story) seesVault() bool { return t.listing.listed[grant.PolicyFolder] }

// Explain explains the instance that the input names. It returns no error: what could not be read is in the explanation, and the rest
// of it goes on. Vault and the ledger are read first and EC2 last, as in a comparison.
func (x *Explainer) Explain(ctx context.Context, in Input) Explanation {
	id := in.InstanceIDs[0]
	if !facts.IsInstanceID(id) {
		return x.malformed(id)
	}
	ctx, cancel := context.WithTimeout(ctx, explainTime)
	defer cancel()
	t := &story{subject: &subject{id: id, contents: map[string]map[string]any{}}, now: x.Now().UTC()}
	t.addUnread("profiles", x.Doubt)
	x.readVault(ctx, t)
	x.readLedger(ctx, t)
	x.readEC2(ctx, t, in)
	x.compareOne(ctx, t)
	x.readLogin(ctx, t)
	return x.explanation(t)
}

// readVault reads Vault's lists.
func (x *Explainer) readVault(ctx context.Context, t *story) {
	t.listing = x.list(ctx)
	if len(t.listing.failed) > 0 {
		t.addUnread("Vault's lists", errors.New(join(texts(t.listing.failed))))
	}
	for folder, err := range t.listing.unlisted {
		t.addUnread("Vault's folder "+folder, err)
	}
	for folder, err := range t.listing.unmounted {
		t.addUnread("Vault's folder "+folder, err)
	}
	slices.SortFunc(t.unread, func(a, b fault.Unread) int { return cmp.Compare(a.What, b.What) })
}

func texts(errs []error) []string {
	out := make([]string, len(errs))
	for i, err := range errs {
		out[i] = err.Error()
	}
	return out
}

// readLedger reads the record, the instances that wait, and whether the deployment is torn down.
func (x *Explainer) readLedger(ctx context.Context, t *story) {
	t.record, t.recordErr = x.Ledger.Get(ctx, t.id)
	t.addUnread("the ledger's record", t.recordErr)
	var err error
	t.tornDown, err = x.Teardowns.TornDown(ctx)
	t.addUnread("whether the deployment is torn down", err)
	refs, err := x.Waiters.Waiting(ctx, t.id)
	t.addUnread("the instances that wait", err)
	for _, ref := range refs {
		t.waiting = append(t.waiting, ref.ID)
	}
}

// readEC2 asks EC2, IAM and Auto Scaling about the instance, where the input, the record and the auth role say that it is, and otherwise
// in each place that reconcile compares.
func (x *Explainer) readEC2(ctx context.Context, t *story, in Input) {
	var err error
	if t.own, err = x.places(ctx); err != nil {
		t.addUnread("the function's own account", err)
	}
	add := func(places ...facts.Place) {
		for _, p := range places {
			if p.Account != "" && p.Region != "" && !slices.Contains(t.asked, p) {
				t.asked = append(t.asked, p)
			}
		}
	}
	add(facts.Place{Account: in.Account, Region: in.Region})
	if t.record != nil {
		add(t.record.Place())
	}
	if len(t.asked) == 0 {
		if t.seesVault() {
			s := x.newSurvey(&inventory{listing: t.listing}, Input{}, &invocation{})
			p, err := s.placeOf(ctx, t.subject)
			t.addUnread("the auth role", err)
			add(p)
		}
		add(t.own...)
	}
	if len(t.asked) == 0 {
		t.seenErr = cmp.Or(err, errors.New("no account and region is known where it may be"))
		return
	}
	refs := make([]facts.Ref, len(t.asked))
	for i, p := range t.asked {
		refs[i] = facts.Ref{ID: t.id, Place: p}
	}
	sightings := x.Instances.Describe(ctx, refs)
	var failed []error
	for _, ref := range refs {
		s, answered := sightings[ref]
		switch {
		case s.Found:
			t.sighting, t.place = s, ref.Place
		case !answered:
			failed = append(failed, fmt.Errorf("EC2 in %s: no answer", ref.Name()))
		case s.Err != nil:
			failed = append(failed, s.Err)
		}
	}
	if len(failed) > 0 {
		err := errors.New(join(texts(failed)))
		t.addUnread("EC2", err)
		if !t.sighting.Found {
			t.seenErr = err
		}
	}
	if t.sighting.Found {
		t.addUnread("the instance in AWS", t.sighting.Err)
		x.readGroup(ctx, t)
	}
}

// readGroup reads the instance's Auto Scaling group.
func (x *Explainer) readGroup(ctx context.Context, t *story) {
	ref := facts.Ref{ID: t.id, Place: t.place}
	state := x.Groups.States(ctx, []facts.Ref{ref})[ref]
	t.addUnread("the Auto Scaling group", state.Err)
	if state.State != "" {
		t.group = &SeenGroup{Name: state.Group, State: state.State}
	}
}

// compareOne compares the instance as a run of reconcile does, by its own record and claims.
func (x *Explainer) compareOne(ctx context.Context, t *story) {
	held := &inventory{listing: t.listing, inFolder: map[string]int{}, limit: stretch, now: t.now}
	if t.record != nil {
		held.addRecord(*t.record)
	}
	inv := &invocation{places: t.own, until: t.now.Add(explainTime), removed: map[string]int{}}
	s := x.newSurvey(held, Input{Mode: Detect, InstanceIDs: []string{t.id}}, inv)
	u := t.subject
	u.leftovers = held.leftovers(t.id)
	u.setPaths(held)
	f := u.sighting.Facts
	if u.sighting.Found {
		s.states[t.id] = f.State
	}
	isLive := u.sighting.Found && f.State.IsLive()
	if isLive && u.sighting.Err == nil {
		if u.profile, u.refusal = x.Profiles.Match(f); u.profile != nil && u.refusal == nil {
			u.grant, u.refusal = s.render(u, f)
		}
	}
	claimsErr := x.readNames(ctx, t, held)
	t.addUnread("the claims in the ledger", claimsErr)
	isUnsure := t.seenErr != nil || t.recordErr != nil || claimsErr != nil || x.hasNoProfiles()
	if !t.seesVault() || isUnsure {
		return
	}
	var rows []Change
	var err error
	switch {
	case isLive || u.sighting.Err != nil:
		rows, err = s.comparePresent(ctx, u)
	case (u.record != nil || !held.isUnlisted(t.id)) && s.isComparedAsGone(t.id):
		complete := map[facts.Place]bool{}
		for _, p := range t.own {
			complete[p] = true
		}
		rows, err = s.compareOneGone(ctx, u, complete)
	}
	if err != nil {
		t.addUnread("the objects in Vault", err)
		return
	}
	s.changes = rows
	s.askAboutHolders(ctx)
	t.rows, t.compared = decide(rows, s.limitsOf(s.input, inv)).changes, true
}

// hasNoProfiles reports whether no profile could be loaded: nothing says what an instance should have.
func (x *Explainer) hasNoProfiles() bool { return x.Doubt != nil && len(x.Profiles.Profiles) == 0 }

// readNames reads the claims on the names of the grant and the record, and adds them to the inventory with the records of their holders.
func (x *Explainer) readNames(ctx context.Context, t *story, held *inventory) error {
	var names []ledger.Name
	if t.grant != nil {
		names = ledger.NamesOf(t.grant)
	}
	granted := len(names)
	if t.record != nil {
		for _, n := range t.record.Names() {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	var failed []error
	asked := map[string]bool{t.id: true}
	for i, n := range names {
		seen := SeenName{Name: n.Text, Under: n.Under, Granted: i < granted}
		if until, isFormer := t.record.HeldUntil(n); isFormer && !until.IsZero() {
			seen.Until = &until
		}
		claim, err := x.Ledger.Holder(ctx, n)
		if err == nil && claim != nil {
			seen.HeldBy = claim.InstanceID
			held.addClaim(n, claim.InstanceID)
			if !asked[claim.InstanceID] {
				asked[claim.InstanceID] = true
				var r *ledger.Record
				if r, err = x.Ledger.Get(ctx, claim.InstanceID); err == nil && r != nil {
					held.addRecord(*r)
				}
			}
		}
		t.names = append(t.names, seen)
		if err != nil {
			failed = append(failed, err)
			break // the ledger is away: each further read would wait for its own timeout
		}
	}
	return errors.Join(failed...)
}
