package reconcile

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// queue notes when it was sent to and how often each instance was.
type queue struct {
	*world
	began []time.Time
	times map[string]int
}

func (q *queue) Send(ctx context.Context, events []event.Event) []error {
	q.began = append(q.began, q.clock())
	for _, t := range events {
		q.times[t.ID]++
	}
	return q.world.Send(ctx, events)
}

// TestWhatIsHandedOnIsSentAndCountedOnceOverAllInvocations mixes what provision repairs with what only this function
// may, which takes longer than one invocation.
func TestWhatIsHandedOnIsSentAndCountedOnceOverAllInvocations(t *testing.T) {
	const n = 120
	w := newWorld(t, n)
	handedOn := w.spoil(2)
	for i := 1; i < n; i += 2 {
		w.loosen(grant.AuthRolePath("aws", id(i)), "auth_type", "iam") // Vault cannot change it in place
	}
	w.tick["converge"] = 40 * time.Second
	q := &queue{world: w, times: map[string]int{}}
	a, invocations := w.goOn(Input{Mode: Correct}, func(Answer) {}, func(o *Options) { o.Queue = q })
	want := Summary{Missing: handedOn, Changed: n - handedOn, Corrected: n - handedOn, Enqueued: handedOn}
	if a.Summary != want || invocations < 3 {
		t.Errorf("want %+v over at least three invocations, got %d and\n%s", want, invocations, told(a))
	}
	sent := 0
	for _, times := range q.times {
		sent += times
	}
	if len(q.times) != handedOn || sent != handedOn {
		t.Errorf("want each of %d instances handed on once, for one that was handed on is being repaired: got %d messages for %d instances", handedOn, sent, len(q.times))
	}
}

// TestNothingIsSentInTheLastOfTheTime has the comparison leave less time than sending all would take.
func TestNothingIsSentInTheLastOfTheTime(t *testing.T) {
	const n = 150
	w := newWorld(t, n)
	w.spoil(1)
	const compared = runTime - reserve - 30*time.Second
	w.tick["read"], w.tick["send"] = compared/(4*n), 4*time.Second // for each ten
	q := &queue{world: w, times: map[string]int{}}
	began := w.clock()
	first := true
	a, _ := w.goOn(Input{Mode: Correct}, func(a Answer) {
		if took := w.clock().Sub(began); first && (a.Cursor == nil || len(q.began) != 2 || took >= runTime) {
			t.Errorf("want two chunks sent and the rest left to the next invocation, got %d in %s\n%s", len(q.began), took, told(a))
		}
		for _, at := range q.began {
			if at.Sub(began) >= runTime-reserve {
				t.Errorf("want nothing begun within %s of the invocation's end, where it is cut off and its count lost: a chunk was sent after %s", reserve, at.Sub(began))
			}
		}
		q.began, began, first = nil, w.clock(), false
		w.tick["read"] = 0
	}, func(o *Options) { o.Queue = q })
	if a.Summary != (Summary{Missing: n, Enqueued: n}) || len(q.times) != n {
		t.Errorf("want all %d handed on in the end, %d were\n%s", n, len(q.times), told(a))
	}
}

// TestARunThatWithheldADeletionSaysSoInItsLastAnswer has a list fail in the first invocation only. The cursor has
// passed what was withheld, and nobody reads the answers in between.
func TestARunThatWithheldADeletionSaysSoInItsLastAnswer(t *testing.T) {
	w := newWorld(t, 60)
	spoiled := w.spoil(1)
	w.terminate(2)
	w.tick["converge"] = 30 * time.Second
	const entries = "list auth/aws/identity-accesslist"
	w.fail[entries] = errStorage
	a, invocations := w.goOn(Input{Mode: Correct}, func(a Answer) {
		delete(w.fail, entries)
		if !a.Blocked || !strings.Contains(a.BlockedReason, errStorage.Error()) {
			t.Errorf("want every answer to say why nothing was deleted, got\n%s", told(a))
		}
	})
	if invocations < 2 || w.Records[id(2)].State != ledger.Active || a.Summary.Corrected != spoiled-1 {
		t.Errorf("want the removal left to the next run and all else repaired over several invocations, got %d, the record %s\n%s", invocations, w.Records[id(2)].State, told(a))
	}
}

// TestInstancesWhoseRoleIAMDoesNotTellKeepNoOtherFromRepair has more of them than may fail in a row when Vault is down,
// however the few others come between.
func TestInstancesWhoseRoleIAMDoesNotTellKeepNoOtherFromRepair(t *testing.T) {
	w := newWorld(t, 3)
	const bad = (3 + 1) * maxFailures
	for n := range bad {
		w.launch(noRole(worker(100 + n)))
	}
	delete(w.Objects, grant.AuthRolePath("aws", id(0)))
	unknown := func(s *instance.Sighting) {
		if s.Facts.IAMRoleARN == "" {
			s.Err = errors.New("asking IAM for the role: NoSuchEntity")
		}
	}
	a := w.reconcile(Input{Mode: Correct}, func(o *Options) { o.Instances = altered{EC2: w.instances(), listed: unknown} })
	if err := w.granted(id(0)); err != nil || a.Blocked || a.Summary != (Summary{Missing: 1, Corrected: 1, Failed: bad}) {
		t.Errorf("want %d rows that could not be compared, which says nothing of Vault, and the one repair made: %v\n%s", bad, err, told(a))
	}
}

// TestARemovalThatSettlesIsNamedToBeLookedAtOnceMore has an instance whose tokens have power beyond its own policies: a
// login that was under way is cut by a second removal, which somebody must come back for.
func TestARemovalThatSettlesIsNamedToBeLookedAtOnceMore(t *testing.T) {
	for name, end := range map[string]func(*world){
		"EC2 shows it as terminated": func(w *world) { w.terminate(1) },
		"EC2 does not show it":       func(w *world) { delete(w.ec2, id(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			r := w.Records[id(1)]
			r.ExtraPolicies = true
			w.Records[id(1)] = r
			end(w)
			a := w.reconcile(Input{Mode: Correct})
			if len(a.Unfinished) != 1 || a.Unfinished[0] != id(1) || a.Summary != (Summary{Orphaned: 1, Corrected: 1}) {
				t.Fatalf("want the removal done and the instance named as settling, got %q\n%s", a.Unfinished, told(a))
			}
			again := Input{Mode: Correct, InstanceIDs: a.Unfinished, Force: true}
			if a := w.reconcile(again); len(a.Drift) > 0 || w.Records[id(1)].State != ledger.Deprovisioning {
				t.Errorf("want it left alone while a login may be under way, got %s\n%s", w.Records[id(1)].State, told(a))
			}
			w.now = w.now.Add(100 * time.Second)
			w.cut = nil
			a = w.reconcile(again)
			if err := w.removed(id(1)); err != nil || len(a.Unfinished) > 0 {
				t.Errorf("want what logged in meanwhile cut and the removal ended: %v; settling %q\n%s", err, a.Unfinished, told(a))
			}
		})
	}
}

// TestALoginThatEndedAfterTheRemovalIsCutWhateverItsAlias has the entity under the auth role's role_id, which is the
// alias unless the mount says otherwise, and which only the tombstone remembers.
func TestALoginThatEndedAfterTheRemovalIsCutWhateverItsAlias(t *testing.T) {
	w := newWorld(t, 3)
	w.remove(id(1))
	delete(w.ec2, id(1))
	r := w.Records[id(1)]
	r.FormerRoleIDs = []string{"former-role"}
	w.Records[id(1)] = r
	w.Add(alias("role-of-somebody"), "")
	w.Add(alias("former-role"), id(1))
	entity := w.Entities[alias("former-role")].ID
	w.now = w.now.Add(time.Hour)
	a := w.reconcile(Input{Mode: Correct})
	if len(a.Drift) != 1 || a.Drift[0].Path != "identity/entity/id/"+entity || a.Summary != (Summary{Orphaned: 1, Corrected: 1}) {
		t.Errorf("want the one entity told as orphaned, got\n%s", told(a))
	}
	if !slices.Contains(w.cut, "former-role") || slices.Contains(w.cut, "role-of-somebody") {
		t.Errorf("want former-role cut: its token lives until its time is over; cut were %q", w.cut)
	}
}

// TestACorrectionIsToldOnlyWhereSomethingWasDone has what logins left of an instance that is gone beside an auth role
// that somebody made since in its name.
func TestACorrectionIsToldOnlyWhereSomethingWasDone(t *testing.T) {
	w := newWorld(t, 3)
	w.remove(id(1))
	delete(w.ec2, id(1))
	w.Add(alias(id(1)), id(1))
	role := grant.AuthRolePath("aws", id(1))
	w.Objects[role] = map[string]any{"auth_type": "ec2", "bound_account_id": []any{here.Account}, "bound_region": []any{here.Region}}
	for range 3 {
		w.now = w.now.Add(time.Hour)
		a := w.reconcile(Input{Mode: Correct})
		if w.Objects[role] == nil || len(w.cut) > 0 || a.Summary.Corrected > 0 || a.Summary.Failed+a.Summary.Conflicting == 0 {
			t.Errorf("want somebody's role and its tokens left, and a run that could do nothing to say so: the role stands: %v, cut %q\n%s", w.Objects[role] != nil, w.cut, told(a))
		}
	}
}
