package reconcile

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance/instancetest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// troubled is EC2 with listings that call before first, and may fail by it.
type troubled struct {
	instancetest.EC2
	before func(ctx context.Context, p facts.Place) error
}

func (e troubled) List(ctx context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error {
	if err := e.before(ctx, p); err != nil {
		return err
	}
	return e.EC2.List(ctx, p, ids, each)
}

// member returns the n-th instance, running in the member account.
func member(n int) facts.Instance {
	f := worker(n)
	f.Account, f.Region = there.Account, there.Region
	f.IAMRoleARN = strings.Replace(f.IAMRoleARN, here.Account, there.Account, 1)
	f.IAMInstanceProfileARN = strings.Replace(f.IAMInstanceProfileARN, here.Account, there.Account, 1)
	return f
}

// twoAccounts returns a world with ten instances in its own account, and some in the member account, numbered from 100 on.
func twoAccounts(t *testing.T, members int) *world {
	t.Helper()
	w := newWorld(t, 10)
	for n := range members {
		w.provision(w.launch(member(100 + n)))
	}
	return w
}

func bothAccounts(o *Options) { o.Places = []facts.Place{here, there} }

// inRegions compares the same accounts in these regions.
func inRegions(regions ...string) func(*Options) {
	return func(o *Options) {
		var out []facts.Place
		for _, p := range o.Places {
			for _, region := range regions {
				out = append(out, facts.Place{Account: p.Account, Region: region})
			}
		}
		o.Places = out
	}
}

// inTrouble has listings of the member account call before first.
func (w *world) inTrouble(before func(context.Context) error) func(*Options) {
	return func(o *Options) {
		bothAccounts(o)
		o.Instances = troubled{w.instances(), func(ctx context.Context, p facts.Place) error {
			if p != there {
				return nil
			}
			return before(ctx)
		}}
	}
}

// The administrator of a member account breaks its role. The home account is cleaned all the same.
func TestFailedPlace_WithholdsOnlyItsOwnDeletes(t *testing.T) {
	for _, force := range []bool{false, true} {
		w := twoAccounts(t, 10)
		delete(w.ec2, id(1))
		delete(w.ec2, id(101))
		untracked := grant.PolicyPath(grant.PolicyName(id(300), "node")) // ours, of an instance in an unknown place
		w.Objects[untracked] = map[string]any{"policy": grant.Marker{Deployment: w.realm.Deployment, InstanceID: id(300), Profile: "p"}.String()}
		a := w.reconcile(Input{Mode: Correct, Force: force}, w.inTrouble(func(context.Context) error { return errStorage }))
		w.wantRemoved(id(1), "in the home account", a)
		if w.Objects[untracked] == nil || len(w.under(id(101))) == 0 {
			t.Errorf("force %v: want all objects left whose instance may be in the member account\n%s", force, answerText(a))
		}
		if !a.Blocked || !strings.Contains(a.BlockedReason, there.Name()) || !strings.Contains(a.BlockedReason, "the next run deletes") || strings.Contains(a.BlockedReason, here.Account) {
			t.Errorf("force %v: want the run blocked for the member account alone, got %q", force, a.BlockedReason)
		}
		for _, d := range a.Drift {
			if d.InstanceID == id(300) && (d.Action != None || !strings.Contains(d.Error, there.Name())) {
				t.Errorf("force %v: want the reason in the withheld row, got %+v", force, d)
			}
		}
		w.now = w.now.Add(time.Hour)
		if a := w.reconcile(Input{Mode: Correct}, bothAccounts); a.Blocked || w.removed(id(101)) != nil || w.Objects[untracked] != nil {
			t.Errorf("force %v: want all removed once the account can be listed\n%s", force, answerText(a))
		}
	}
}

func TestEmptyPlace_WithholdsOnlyItsOwnDeletes(t *testing.T) {
	w := twoAccounts(t, 3)
	delete(w.ec2, id(1))
	for n := range 3 {
		delete(w.ec2, id(100+n))
	}
	a := w.reconcile(Input{Mode: Correct}, bothAccounts)
	if err := w.removed(id(1)); err != nil || !a.Blocked || !strings.Contains(a.BlockedReason, "no instance at all in "+there.Name()) {
		t.Errorf("want the home account cleaned and the empty one named: %v\n%s", err, answerText(a))
	}
	if a.Summary.Corrected != 1 || len(w.under(id(100))) == 0 {
		t.Errorf("want nothing removed in the empty account\n%s", answerText(a))
	}
	if a := w.reconcile(Input{Mode: Correct, Force: true}, bothAccounts); a.Blocked || a.Summary.Corrected != 3 {
		t.Errorf("forced: want its three removed\n%s", answerText(a))
	}
}

// The member account loses most of its instances, in stretches of two and over several invocations.
func TestDeleteLimit_AppliesToEachAccount(t *testing.T) {
	w := twoAccounts(t, 20)
	const gone = alwaysDeleted + 2
	for n := range gone {
		delete(w.ec2, id(100+n))
	}
	delete(w.ec2, id(9))
	w.tick["scan"] = 5 * time.Minute
	a, invocations := w.goOn(Input{Mode: Correct, Cursor: &Cursor{Limit: 2}}, func(Answer) {}, bothAccounts)
	if !a.Blocked || !strings.Contains(a.BlockedReason, "in account "+there.Account+": 7 instances would be removed of 20") || invocations < 2 {
		t.Errorf("want the member account blocked by its own limit over %d invocations\n%s", invocations, answerText(a))
	}
	if w.Records[id(9)].State != ledger.Deleted || a.Summary.Corrected != 1 {
		t.Errorf("want the home account's one removed\n%s", answerText(a))
	}
	w.tick["scan"] = 0
	if a := w.run(w.reconciler(bothAccounts), Input{Mode: Correct, Force: true}); a.Blocked || a.Summary.Corrected != gone {
		t.Errorf("forced: want its %d removed\n%s", gone, answerText(a))
	}
}

// Each invocation removes two of six in one account, which only together are more than it may lose.
func TestDeleteLimit_CountsAcrossInvocations(t *testing.T) {
	w := twoAccounts(t, 12)
	w.remove(id(100))
	w.remove(id(101))
	for n := range 6 {
		delete(w.ec2, id(100+n))
	}
	delete(w.ec2, id(9))
	in := Input{Mode: Correct, Cursor: &Cursor{Limit: stretch, Removed: 2, RemovedByAccount: map[string]int{there.Account: 2}}}
	a := w.run(w.reconciler(bothAccounts), in)
	if !strings.Contains(a.BlockedReason, there.Account+": 6 instances would be removed of 12") || a.Summary.Corrected != 1 {
		t.Errorf("want the two of the invocation before counted in their account\n%s", answerText(a))
	}
}

func TestCursor_OfAnEarlierVersionIsRead(t *testing.T) {
	var c Cursor
	if err := json.Unmarshal([]byte(`{"after":"","limit":10,"removed":7,"summary":{},"startedMs":1}`), &c); err != nil {
		t.Fatal(err)
	}
	removed := c.removedByAccount()
	if len(removed) != 1 || removed[""] != 7 {
		t.Fatalf("want seven of an unknown account, got %v", removed)
	}
	removed[here.Account] = 3
	c.setRemoved(removed)
	text, err := json.Marshal(c)
	if err != nil || !strings.Contains(string(text), `"removed":10,"removedByAccount":{"123456789012":3}`) {
		t.Errorf("want the sum and its known part, got %s, %v", text, err)
	}
	if again := c.removedByAccount(); again[""] != 7 || again[here.Account] != 3 {
		t.Errorf("want the same read back, got %v", again)
	}
}

// A listing that never ends takes half of the invocation only.
func TestSlowAccount_LeavesTimeForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := twoAccounts(t, 10)
		delete(w.ec2, id(1))
		began := time.Now()
		hangs := w.inTrouble(func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		a := w.reconcile(Input{Mode: Correct}, hangs, inRegions(here.Region, "us-west-2"))
		if err := w.removed(id(1)); err != nil || !a.Blocked || !strings.Contains(a.BlockedReason, there.Name()) || !strings.Contains(a.BlockedReason, "too long") {
			t.Errorf("want the home account cleaned and the slow one named: %v\n%s", err, answerText(a))
		}
		if took := time.Since(began); took > RunTime/2 {
			t.Errorf("want it to take no more than half of the invocation's time, it took %s", took)
		}
	})
}

// The time in which a listing waits for the comparison of its page is not counted.
func TestPatience_CountsTheAccountsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPatience(time.Minute)
		err := p.list(t.Context(), here, func(ctx context.Context, each func(func() error) error) error {
			for range 5 {
				time.Sleep(10 * time.Second) // the account's
				if err := each(func() error { time.Sleep(time.Hour); return nil }); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
		if err != nil {
			t.Errorf("want fifty seconds within a minute, got %v", err)
		}
		pages := 0
		err = p.list(t.Context(), here, func(_ context.Context, each func(func() error) error) error {
			for range 5 {
				time.Sleep(6 * time.Second) // and ignores its context
				if err := each(func() error { pages++; return nil }); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), here.Name()) || pages != 1 {
			t.Errorf("want the second region of the account ended in its second page, got %v after %d", err, pages)
		}
		if err := p.list(t.Context(), there, func(context.Context, func(func() error) error) error { return nil }); err != nil {
			t.Errorf("want another account to have its own time, got %v", err)
		}
	})
}
