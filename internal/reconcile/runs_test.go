package reconcile

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance/instancetest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// queue records the times of its calls, and how often each instance was sent.
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

// TestEnqueued_IsSentAndCountedOnce mixes repairs for provision with repairs for this function only, which
// take longer than one invocation.
func TestEnqueued_IsSentAndCountedOnce(t *testing.T) {
	const n = 120
	w := newWorld(t, n)
	enqueued := w.spoil(2)
	for i := 1; i < n; i += 2 {
		w.loosen(grant.AuthRolePath("aws", id(i)), "auth_type", "iam") // Vault cannot change it in place
	}
	w.tick["converge"] = 40 * time.Second
	q := &queue{world: w, times: map[string]int{}}
	a, invocations := w.goOn(Input{Mode: Correct}, func(Answer) {}, func(o *Options) { o.Queue = q })
	want := Summary{Missing: enqueued, Changed: n - enqueued, Corrected: n - enqueued, Enqueued: enqueued}
	if a.Summary != want || invocations < 3 {
		t.Errorf("want %+v over at least three invocations, got %d and\n%s", want, invocations, answerText(a))
	}
	sent := 0
	for _, times := range q.times {
		sent += times
	}
	if len(q.times) != enqueued || sent != enqueued {
		t.Errorf("want each of %d instances enqueued once, got %d messages for %d instances", enqueued, sent, len(q.times))
	}
}

// TestEnqueue_StopsBeforeTheDeadline has a comparison that leaves less time than all messages take.
func TestEnqueue_StopsBeforeTheDeadline(t *testing.T) {
	const n = 150
	w := newWorld(t, n)
	w.spoil(1)
	const compared = RunTime - reserve - 30*time.Second
	w.tick["read"], w.tick["send"] = compared/(4*n), 4*time.Second // for each ten
	q := &queue{world: w, times: map[string]int{}}
	began := w.clock()
	first := true
	a, _ := w.goOn(Input{Mode: Correct}, func(a Answer) {
		if took := w.clock().Sub(began); first && (a.Cursor == nil || len(q.began) != 2 || took >= RunTime) {
			t.Errorf("want two calls, and the rest left to the next invocation, got %d in %s\n%s", len(q.began), took, answerText(a))
		}
		for _, at := range q.began {
			if at.Sub(began) >= RunTime-reserve {
				t.Errorf("want no call begun within %s of the invocation's end, which could lose its count: one began after %s", reserve, at.Sub(began))
			}
		}
		q.began, began, first = nil, w.clock(), false
		w.tick["read"] = 0
	}, func(o *Options) { o.Queue = q })
	if a.Summary != (Summary{Missing: n, Enqueued: n}) || len(q.times) != n {
		t.Errorf("want all %d enqueued in the end, got %d\n%s", n, len(q.times), answerText(a))
	}
}

// TestRun_ReportsWithheldDeletesInEachAnswer has a list that fails in the first invocation only. The cursor has passed the
// withheld deletion, and a person reads the last answer only.
func TestRun_ReportsWithheldDeletesInEachAnswer(t *testing.T) {
	w := newWorld(t, 60)
	spoiled := w.spoil(1)
	w.terminate(2)
	w.tick["converge"] = 30 * time.Second
	const entries = "list auth/aws/identity-accesslist"
	w.fail[entries] = errStorage
	a, invocations := w.goOn(Input{Mode: Correct}, func(a Answer) {
		delete(w.fail, entries)
		if !a.Blocked || !strings.Contains(a.BlockedReason, errStorage.Error()) {
			t.Errorf("want the reason in every answer why nothing was deleted, got\n%s", answerText(a))
		}
	})
	if invocations < 2 || w.Records[id(2)].State != ledger.Active || a.Summary.Corrected != spoiled-1 {
		t.Errorf("want the removal left to the next run, and all other repairs made over several invocations, got %d, the record %s\n%s", invocations, w.Records[id(2)].State, answerText(a))
	}
}

// unknownRoles is EC2 with listings in which IAM does not know the role of an instance without one.
type unknownRoles struct{ instancetest.EC2 }

func (u unknownRoles) List(ctx context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error {
	return u.EC2.List(ctx, p, ids, func(page []instance.Sighting) error {
		for i := range page {
			if page[i].Facts.IAMRoleARN == "" {
				page[i].Err = errors.New("asking IAM for the role: NoSuchEntity")
			}
		}
		return each(page)
	})
}

// TestUnknownRoles_StopNoOtherRepair has more instances with an unknown role than comparisons may fail in
// a row when Vault is down.
func TestUnknownRoles_StopNoOtherRepair(t *testing.T) {
	w := newWorld(t, 3)
	const bad = (3 + 1) * maxFailures
	for n := range bad {
		w.launch(noRole(worker(100 + n)))
	}
	delete(w.Objects, grant.AuthRolePath("aws", id(0)))
	a := w.reconcile(Input{Mode: Correct}, func(o *Options) { o.Instances = unknownRoles{w.instances()} })
	if err := w.granted(id(0)); err != nil || a.Blocked || a.Summary != (Summary{Missing: 1, Corrected: 1, Failed: bad}) {
		t.Errorf("want %d failed rows, which are not Vault's fault, and the one repair made: %v\n%s", bad, err, answerText(a))
	}
}

// lostProfiles is EC2 with instances whose instance profile does not exist any more.
type lostProfiles struct{ instancetest.EC2 }

func (l lostProfiles) List(ctx context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error {
	return l.EC2.List(ctx, p, ids, func(page []instance.Sighting) error {
		for i := range page {
			if page[i].Facts.IAMRoleARN == "" {
				page[i].Err = &instance.RoleError{Err: fault.Refusef("its instance profile does not exist")}
			}
		}
		return each(page)
	})
}

// The rest of a removal depends on no role: an instance that its group terminates must not keep its tokens because IAM is away, or its
// instance profile is gone.
func TestLeavingInstance_IsRemovedWithoutItsRole(t *testing.T) {
	for name, change := range map[string]func(*facts.Instance){
		"its instance profile is gone": func(f *facts.Instance) { f.IAMRoleARN = "" },
		"IAM does not answer":          func(f *facts.Instance) { f.RoleUnconfirmed = true },
	} {
		w := leftHalfRemoved(t)
		f := w.ec2[id(1)]
		change(&f)
		w.ec2[id(1)] = f
		a := w.reconcile(Input{Mode: Correct}, func(o *Options) { o.Instances = lostProfiles{w.instances()} })
		w.wantRemoved(id(1), name, a)
	}
}

func TestLostInstanceProfile_IsOneRow(t *testing.T) {
	w := newWorld(t, 2)
	w.launch(noRole(w.ec2[id(0)]))
	w.launch(noRole(worker(100))) // may belong to anything else
	before := maps.Clone(w.Objects)
	a := w.reconcile(Input{Mode: Correct}, func(o *Options) { o.Instances = lostProfiles{w.instances()} })
	w.wantUntouched(before, "a lost instance profile", a)
	if a.Summary != (Summary{Changed: 1}) || len(a.Drift) != 1 || a.Drift[0].InstanceID != id(0) || a.Drift[0].Action != None || !strings.Contains(a.Drift[0].Error, "does not exist") {
		t.Errorf("want one row with the reason, which is no failure of the run, got\n%s", answerText(a))
	}
}

// TestUnconfirmedRole_ChangesAndRemovesNothing has instances whose role IAM does not confirm: one that no profile fits by it, one that
// another profile fits, one whose grant is damaged, and a new one.
func TestUnconfirmedRole_ChangesAndRemovesNothing(t *testing.T) {
	w := newWorld(t, 4)
	launch := func(f facts.Instance) {
		f.RoleUnconfirmed = true
		w.launch(f)
	}
	launch(noRole(w.ec2[id(0)]))
	other := w.ec2[id(1)]
	other.IAMRoleARN = "arn:aws:iam::123456789012:role/alice-master"
	launch(other)
	launch(w.ec2[id(2)])
	before := maps.Clone(w.Objects)
	delete(w.Objects, grant.AuthRolePath("aws", id(2)))
	launch(worker(100))
	for _, row := range w.reconcile(Input{Mode: Detect}).Drift {
		if (row.InstanceID == id(0) || row.InstanceID == id(1)) && (row.Action != None || !strings.Contains(row.Error, "IAM does not answer")) {
			t.Errorf("want a row without an action that says why, got %+v", row)
		}
	}
	a := w.reconcile(Input{Mode: Correct})
	for path := range before {
		if w.Objects[path] == nil {
			t.Errorf("%s is gone: an old role must not remove", path)
		}
	}
	if r := w.Records[id(1)]; r.Profile != "alice_cluster-worker" {
		t.Errorf("want the grant of the other profile kept, got %s: an old role must not change a grant", r.Profile)
	}
	for _, n := range []int{2, 3, 100} {
		if err := w.granted(id(n)); err != nil {
			t.Errorf("want %s granted by the role that IAM named before: %v", id(n), err)
		}
	}
	if a.Summary.Failed != 2 || a.Summary.Corrected != 2 {
		t.Errorf("want two failed rows and two repairs, got\n%s", answerText(a))
	}
}

// TestRemoval_NamesSettlingInstances has an instance whose tokens have other policies than its own. A second cut
// is due for logins in flight, and the answer names the instance for it.
func TestRemoval_NamesSettlingInstances(t *testing.T) {
	for name, end := range map[string]func(*world){
		"EC2 shows it as terminated": func(w *world) { w.terminate(1) },
		"EC2 does not show it":       func(w *world) { delete(w.ec2, id(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			w.edit(id(1), func(r *ledger.Record) { r.ExtraPolicies = true })
			end(w)
			a := w.reconcile(Input{Mode: Correct})
			if len(a.Unfinished) != 1 || a.Unfinished[0] != id(1) || a.Summary != (Summary{Orphaned: 1, Corrected: 1}) {
				t.Fatalf("want the removal done and the instance named as unfinished, got %q\n%s", a.Unfinished, answerText(a))
			}
			again := Input{Mode: Correct, InstanceIDs: a.Unfinished, Force: true}
			if a := w.reconcile(again); len(a.Drift) > 0 || w.Records[id(1)].State != ledger.Deprovisioning {
				t.Errorf("want it left alone while a login may be in flight, got %s\n%s", w.Records[id(1)].State, answerText(a))
			}
			w.now = w.now.Add(100 * time.Second)
			w.cut = nil
			a = w.reconcile(again)
			if err := w.removed(id(1)); err != nil || len(a.Unfinished) > 0 {
				t.Errorf("want the late login cut and the removal done: %v; unfinished %q\n%s", err, a.Unfinished, answerText(a))
			}
		})
	}
}

// TestLateLogin_IsCutByItsRoleID has an entity whose alias is the auth role's role_id, which only the
// tombstone still names.
func TestLateLogin_IsCutByItsRoleID(t *testing.T) {
	w := newWorld(t, 3)
	w.remove(id(1))
	delete(w.ec2, id(1))
	w.edit(id(1), func(r *ledger.Record) { r.FormerRoleIDs = []string{"former-role"} })
	w.Add(alias("role-of-another"), "")
	w.Add(alias("former-role"), id(1))
	entity := w.Entities[alias("former-role")].ID
	w.now = w.now.Add(time.Hour)
	a := w.reconcile(Input{Mode: Correct})
	if len(a.Drift) != 1 || a.Drift[0].Path != "identity/entity/id/"+entity || a.Summary != (Summary{Orphaned: 1, Corrected: 1}) {
		t.Errorf("want one orphaned row, for that entity, got\n%s", answerText(a))
	}
	if !slices.Contains(w.cut, "former-role") || slices.Contains(w.cut, "role-of-another") {
		t.Errorf("want former-role cut and no other alias, got %q", w.cut)
	}
}

// TestCorrected_CountsOnlyRealChanges has login leftovers of an ended instance beside an auth role that was made by
// hand with its name.
func TestCorrected_CountsOnlyRealChanges(t *testing.T) {
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
			t.Errorf("want the foreign role and its tokens left, and no correction reported: the role exists: %v, cut %q\n%s", w.Objects[role] != nil, w.cut, answerText(a))
		}
	}
}
