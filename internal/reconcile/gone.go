package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// Gone is an operator's word that accounts or instances no longer exist, although EC2 cannot be asked about them.
type Gone struct {
	Accounts    []string `json:"accounts,omitempty"`
	InstanceIDs []string `json:"instanceIds,omitempty"`
	// AtMost is the number of instances that may be removed. It takes the place of the delete limit, and mode correct needs it:
	// mode detect reports the number.
	AtMost int `json:"atMost,omitempty"`
}

// checkGone returns an error for an input that a run by an operator's word does not accept.
func checkGone(in Input) error {
	g := in.Gone
	switch {
	case in.Mode != Detect && in.Mode != Correct:
		return fmt.Errorf("gone needs mode %s or %s", Detect, Correct)
	case len(in.InstanceIDs) > 0 || in.Profile != "" || in.NamesOnly:
		return errors.New("gone names its accounts and instances itself: leave instanceIds, profile and namesOnly out")
	case len(g.Accounts)+len(g.InstanceIDs) == 0:
		return errors.New("gone names no account and no instance")
	case in.Mode == Correct && (!in.Force || g.AtMost < 1):
		return fmt.Errorf(`gone in mode %s needs "force": true, and "atMost" with the number of instances that mode %s reports`, Correct, Detect)
	}
	for _, a := range g.Accounts {
		if !facts.IsAccount(a) {
			return fmt.Errorf("gone: %+q is not the ID of an account", a)
		}
	}
	for _, id := range g.InstanceIDs {
		if !facts.IsInstanceID(id) {
			return fmt.Errorf("gone: %+q is not the ID of an EC2 instance", id)
		}
	}
	return nil
}

// RemoveGone removes what is recorded of the accounts and instances of in.Gone, and compares nothing else. It asks EC2 about each of
// them first. The word counts where AWS or the settings refuse to answer, or where EC2 shows no live instance; an account of which
// EC2 shows one instance as alive, or did not answer about one, keeps all. Mode detect only reports the rows.
func (r *Reconciler) RemoveGone(ctx context.Context, in Input, converger Converger, o Observer) Answer {
	start := r.Now()
	at, a := begin(in, start)
	inv := &invocation{converger: converger, observer: o, until: r.stopTime(ctx, start)}
	at = r.forEachStretch(ctx, inv, at, &a, func(at Cursor) (Cursor, bool) { return r.goneStretch(ctx, inv, in, at, &a) })
	a.DurationMs = r.Now().UnixMilli() - at.StartedMs
	r.logAnswer(ctx, o.Log, a)
	return a
}

// goneStretch removes the named instances of one stretch. It returns where to continue, and whether there is more.
func (r *Reconciler) goneStretch(ctx context.Context, inv *invocation, in Input, at Cursor, a *Answer) (next Cursor, more bool) {
	listing := r.list(ctx)
	if len(listing.failed) > 0 {
		a.block("nothing is removed: " + errors.Join(listing.failed...).Error())
		return at, false
	}
	held, err := r.scan(ctx, listing, at.After, at.Limit)
	if err != nil {
		a.block("nothing is removed: " + err.Error())
		return at, false
	}
	w := &word{r: r, held: held, gone: *in.Gone}
	if err := w.choose(ctx); err != nil {
		a.block("nothing is removed: " + err.Error())
		return at, false
	}
	a.Scanned = Scanned{Records: held.recorded, Policies: listing.policies, AuthRoles: listing.authRoles, PKIRoles: listing.pkiRoles, SSHRoles: listing.sshRoles}
	if n := len(w.places); in.Mode == Correct && n > w.gone.AtMost {
		a.block(fmt.Sprintf("nothing is removed: %d instances are recorded there, more than the %d of atMost: compare with mode %s first", n, w.gone.AtMost, Detect))
		return at, false
	}
	w.ask(ctx, w.refs())
	next = at
	for group := range slices.Chunk(w.inStretch(), sideBySide) {
		// The first group is removed however long the questions took: the next invocation asks them all again.
		if next.After != at.After && !r.Now().Before(inv.until) {
			return next, true
		}
		rows := w.rowsOf(ctx, inv, in.Mode, group)
		for i := range rows {
			if rows[i].Error != "" {
				a.block("some instances are not removed: see the errors of their rows")
			}
			a.addRemoval(&rows[i], in.Mode)
		}
		inv.report(ctx, rows)
		next.After = group[len(group)-1]
	}
	next.After = held.upTo
	return next, held.upTo != ""
}

// word is an operator's word applied to one stretch.
type word struct {
	r    *Reconciler
	held *inventory
	gone Gone
	// places are those of the named instances of the whole fleet that are recorded or have objects; zero if unknown.
	places map[string]facts.Place
	// objections are the reasons why an instance is not removed.
	objections map[string]string
}

// choose sets places.
func (w *word) choose(ctx context.Context) error {
	w.places, w.objections = map[string]facts.Place{}, map[string]string{}
	for id, e := range w.held.entries {
		if e.place != nil && (slices.Contains(w.gone.Accounts, e.place.Account) || slices.Contains(w.gone.InstanceIDs, id)) {
			w.places[id] = *e.place
		}
	}
	s := &survey{r: w.r, inventory: w.held}
	for _, id := range w.gone.InstanceIDs {
		record := w.held.recordOf(id)
		isKnown := record != nil || !w.held.isUnlisted(id)
		if _, recorded := w.places[id]; recorded || !isKnown {
			continue
		}
		if record != nil { // a tombstone with something left
			w.places[id] = record.Place()
			continue
		}
		p, err := s.placeOf(ctx, &subject{id: id})
		if err != nil {
			return err
		}
		w.places[id] = p
	}
	return nil
}

// refs returns the named instances, by ID.
func (w *word) refs() []facts.Ref {
	var out []facts.Ref
	for id, p := range w.places {
		out = append(out, facts.Ref{ID: id, Place: p})
	}
	slices.SortFunc(out, func(a, b facts.Ref) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// inStretch returns the named instances of the stretch, by ID.
func (w *word) inStretch() []string {
	var out []string
	for _, ref := range w.refs() {
		if w.held.inStretch(ref.ID) {
			out = append(out, ref.ID)
		}
	}
	return out
}

// ask asks EC2 about instances and adds to the objections. An objection to an instance of a named account holds for all of the
// account.
func (w *word) ask(ctx context.Context, refs []facts.Ref) {
	own, _ := w.r.Instances.Account(ctx) // if it is unknown, no refusal counts
	for part := range slices.Chunk(refs, askedAtOnce) {
		sightings := w.r.Instances.Describe(ctx, part)
		for _, ref := range part {
			s, answered := sightings[ref]
			if !answered {
				s.Err = errors.New("no answer")
			}
			objection := w.objectionTo(ref, s, own)
			if objection == "" {
				continue
			}
			w.objections[ref.ID] = objection
			if slices.Contains(w.gone.Accounts, ref.Account) {
				w.objections[ref.Account] = "account " + ref.Account + " is not removed: " + objection
			}
		}
	}
}

// askedAtOnce bounds the instances of one Describe, which has one deadline for all.
const askedAtOnce = 1000

// objectionTo returns why an instance is not removed by EC2's answer; empty if the word counts. own is the function's account; empty
// if it is unknown.
func (w *word) objectionTo(ref facts.Ref, s instance.Sighting, own string) string {
	record := w.held.recordOf(ref.ID)
	switch {
	case s.Found && !s.Facts.State.IsEnding():
		return fmt.Sprintf("instance %s is not gone: EC2 shows it as %s", ref.ID, s.Facts.State)
	case s.Err != nil && (own == "" || ref.Account == own):
		// The function runs in its own account, so that a refusal there is a fault of its rights.
		return fmt.Sprintf("instance %s: a refusal counts only in another account than the function's own: %v", ref.ID, s.Err)
	case s.Err != nil && !instance.IsRefused(s.Err):
		return fmt.Sprintf("instance %s: EC2 did not answer, and was not refused: %v; try again", ref.ID, s.Err)
	case s.Err == nil && !s.Found && record != nil && record.QuietUntil == nil && isRecent(record.UpdatedAt, w.r.Now()):
		return fmt.Sprintf("instance %s: EC2 can be asked and does not show it yet: its record is younger than %s; try again after that", ref.ID, converge.Grace)
	}
	return ""
}

// objection returns why an instance is not removed; empty if it may be.
func (w *word) objection(id string) string {
	p := w.places[id]
	if p == (facts.Place{}) {
		return "instance " + id + ": neither a record nor an auth role says where it is"
	}
	why := w.objections[id]
	if slices.Contains(w.gone.Accounts, p.Account) {
		why = cmp.Or(why, w.objections[p.Account])
	}
	if folder := w.held.unseenFolder(id); why == "" && folder != "" {
		why = fmt.Sprintf("not removed: %v", w.held.unlisted[folder])
	}
	return why
}

// rowsOf asks EC2 about a group of instances again, removes them in mode correct, and returns their rows.
func (w *word) rowsOf(ctx context.Context, inv *invocation, mode Mode, ids []string) []Change {
	if mode == Correct {
		var refs []facts.Ref
		for _, id := range ids {
			refs = append(refs, facts.Ref{ID: id, Place: w.places[id]})
		}
		w.ask(ctx, refs)
	}
	rows := make([]Change, len(ids))
	errs := make([]error, len(ids))
	var removals errgroup.Group
	for i, id := range ids {
		s := &subject{id: id, record: w.held.recordOf(id), place: w.places[id]}
		state := "no record"
		if s.record != nil {
			state = string(s.record.State)
		}
		rows[i] = s.recordRow(Drift{Reason: Orphaned, Action: Delete, Diff: diffOf("instance", "gone by the operator's word", state)})
		if why := w.objection(id); why != "" {
			rows[i].Action, rows[i].Error, rows[i].failed = None, why, true
			continue
		}
		if mode != Correct {
			continue
		}
		removals.Go(func() error {
			req, err := w.r.removalOf(ctx, w.held, id)
			if err == nil {
				req.Place, req.Gone = s.place, true
				_, err = inv.converger.Converge(ctx, req, instance.Sighting{})
			}
			errs[i] = err
			return nil
		})
	}
	_ = removals.Wait() // the functions above keep their errors in errs
	for i, err := range errs {
		switch {
		case errors.Is(err, converge.ErrCertificatesLeft): // the next comparison, or the same word again, finishes them
			rows[i].Error = err.Error()
		case errors.Is(err, converge.ErrUnfinished):
			inv.unfinished = append(inv.unfinished, ids[i])
		case err != nil:
			rows[i].Error, rows[i].failed = err.Error(), true
			if fault.KindOf(err) == fault.Conflict {
				rows[i].Error = strings.TrimSpace("removed but for a conflict: " + rows[i].Error)
			}
		}
	}
	return rows
}
