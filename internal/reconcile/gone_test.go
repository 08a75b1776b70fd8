package reconcile

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// answering is EC2 that answers a Describe of the member account with an error.
type answering struct {
	Instances
	err error
}

func (e answering) Describe(ctx context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	out := e.Instances.Describe(ctx, refs)
	for ref := range out {
		if ref.Account == there.Account && e.err != nil {
			out[ref] = instance.Sighting{Err: fmt.Errorf("describing: %w", e.err)}
		}
	}
	return out
}

var (
	errRefusedByAWS      = &smithy.GenericAPIError{Code: "AccessDenied", Message: "the account is suspended"}
	errRefusedBySettings = fault.Refusef("account %s is neither the function's own nor one of ALLOWED_ACCOUNTS", there.Account)
	throttled            = &smithy.GenericAPIError{Code: "RequestLimitExceeded"}
)

// say runs a removal by word with the real converger. err is EC2's answer about the member account.
func (w *world) say(in Input, err error) Answer {
	w.t.Helper()
	if why := CheckInput(in); why != nil {
		w.t.Fatal(why)
	}
	r := w.reconciler(func(o *Options) { o.Instances = answering{w.instances(), err} })
	return r.RemoveGone(w.t.Context(), in, w.converger(both, false), silent)
}

func theirAccount(atMost int) Input {
	return Input{Mode: Correct, Force: true, Gone: &Gone{Accounts: []string{there.Account}, AtMost: atMost}}
}

func (w *world) countRemoved(first, n int) (removed int) {
	for i := range n {
		if w.Records[id(first+i)].State == ledger.Deleted && len(w.under(id(first+i))) == 0 {
			removed++
		}
	}
	return removed
}

// A closed account: each of its instances is removed, tokens first, and nothing else.
func TestGoneAccount_IsRemovedByWord(t *testing.T) {
	for name, err := range map[string]error{"AWS refuses": errRefusedByAWS, "the settings do": errRefusedBySettings} {
		w := twoAccounts(t, 7)
		delete(w.ec2, id(1)) // gone too, and not named
		w.Add(alias(id(100)), id(100))
		detect := theirAccount(0)
		detect.Mode, detect.Force = Detect, false
		a := w.say(detect, err)
		if a.Summary.Orphaned != 7 || a.Blocked || len(w.deleted) > 0 {
			t.Errorf("%s: mode detect: want seven rows and nothing removed\n%s", name, answerText(a))
		}
		a = w.say(theirAccount(7), err)
		if a.Blocked || a.Summary.Corrected != 7 || w.countRemoved(100, 7) != 7 {
			t.Errorf("%s: want the seven removed\n%s", name, answerText(a))
		}
		if w.countRemoved(0, 10) > 0 {
			t.Errorf("%s: want the home account untouched\n%s", name, answerText(a))
		}
		if len(w.Entities) > 0 {
			t.Errorf("%s: want the tokens cut, left are %v", name, w.Entities)
		}
		for claim, c := range w.Claims {
			if c.Account == there.Account {
				t.Errorf("%s: want the name %v free", name, claim)
			}
		}
		if a := w.say(theirAccount(7), err); a.Blocked || a.Summary != (Summary{}) {
			t.Errorf("%s: want nothing left\n%s", name, answerText(a))
		}
	}
}

func TestGoneAccount_IsRefusedOnDoubt(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		change func(*world)
		atMost int
		says   string
	}{
		"EC2 shows one alive": {nil, func(w *world) {
			for n := range 6 {
				w.terminate(100 + n)
			}
		}, 7, "EC2 shows it as running"},
		"EC2 is throttled":        {throttled, nil, 7, "did not answer"},
		"EC2 does not answer":     {errStorage, nil, 7, "did not answer"},
		"more than the word says": {errRefusedByAWS, nil, 6, "7 instances are recorded there, more than the 6"},
		"a list fails":            {errRefusedByAWS, func(w *world) { w.fail["list auth/aws/role"] = errStorage }, 7, errStorage.Error()},
		"its folder fails":        {errRefusedByAWS, func(w *world) { w.fail["list "+workerFolder] = errStorage }, 7, errStorage.Error()},
		"too new for EC2": {nil, func(w *world) {
			for n := range 7 {
				delete(w.ec2, id(100+n))
				w.edit(id(100+n), func(r *ledger.Record) { r.UpdatedAt = start })
			}
		}, 7, "younger than"},
	} {
		w := twoAccounts(t, 7)
		if c.change != nil {
			c.change(w)
		}
		a := w.say(theirAccount(c.atMost), c.err)
		if text := answerText(a); !a.Blocked || a.Summary.Corrected > 0 || len(w.deleted) > 0 || !strings.Contains(text+a.BlockedReason, c.says) {
			t.Errorf("%s: want nothing removed, and %q\n%s", name, c.says, text)
		}
	}
}

// EC2 shows an instance of the account as running, and refuses to describe the others.
func TestGoneAccount_NamedInstanceProtectsItToo(t *testing.T) {
	w := twoAccounts(t, 3)
	in := Input{Mode: Correct, Force: true, Gone: &Gone{Accounts: []string{there.Account}, InstanceIDs: []string{id(100)}, AtMost: 3}}
	r := w.reconciler(func(o *Options) { o.Instances = refusing{w.instances(), id(100)} })
	if a := r.RemoveGone(t.Context(), in, w.converger(both, false), silent); w.countRemoved(100, 3) > 0 || !strings.Contains(answerText(a), "EC2 shows it as running") {
		t.Errorf("the account exists, so that all of its instances must stay\n%s", answerText(a))
	}
}

// The function runs in its own account. A refusal there is a fault of its rights or credentials.
func TestGoneAccount_IsNeverTheFunctionsOwn(t *testing.T) {
	w := twoAccounts(t, 3)
	for _, gone := range []*Gone{{Accounts: []string{here.Account}, AtMost: 100}, {InstanceIDs: []string{id(0), id(1)}, AtMost: 2}} {
		r := w.reconciler(func(o *Options) { o.Instances = refusing{Instances: w.instances()} })
		a := r.RemoveGone(t.Context(), Input{Mode: Correct, Force: true, Gone: gone}, w.converger(both, false), silent)
		if a.Summary.Corrected > 0 || len(w.deleted) > 0 || !strings.Contains(answerText(a)+a.BlockedReason, "another account than the function's own") {
			t.Errorf("want nothing removed of the function's own account\n%s", answerText(a))
		}
	}
}

// refusing is EC2 that refuses to describe every instance but one.
type refusing struct {
	Instances
	but string
}

func (e refusing) Describe(ctx context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	out := e.Instances.Describe(ctx, refs)
	for ref := range out {
		if ref.ID != e.but {
			out[ref] = instance.Sighting{Err: errRefusedByAWS}
		}
	}
	return out
}

func TestGoneInstance_IsRemovedByWord(t *testing.T) {
	w := twoAccounts(t, 3)
	untracked := member(120) // in no record; its auth role says where it is
	w.makeObjects(untracked, w.realm)
	in := Input{Mode: Correct, Force: true, Gone: &Gone{InstanceIDs: []string{id(100), id(0), untracked.ID, id(999)}, AtMost: 3}}
	a := w.say(in, errRefusedByAWS)
	if !a.Blocked || a.Summary.Corrected != 2 || a.Summary.Failed != 1 || w.countRemoved(100, 1) != 1 || len(w.under(untracked.ID)) > 0 {
		t.Errorf("want the two of the member account removed\n%s", answerText(a))
	}
	if w.countRemoved(0, 1)+w.countRemoved(101, 2) > 0 || !strings.Contains(answerText(a), "instance "+id(0)+" is not gone") {
		t.Errorf("want the running instance and those that are not named kept\n%s", answerText(a))
	}
}

// A word over several stretches and invocations ends.
func TestGoneAccount_ContinuesAtItsCursor(t *testing.T) {
	w := twoAccounts(t, 20)
	w.tick["scan"] = 5 * time.Minute
	in, invocations := theirAccount(20), 0
	in.Cursor = &Cursor{Limit: 4}
	for ; invocations < 20; invocations++ {
		a := w.say(in, errRefusedByAWS)
		if in.Cursor = a.Cursor; a.Cursor == nil {
			break
		}
	}
	if invocations == 0 || w.countRemoved(100, 20) != 20 {
		t.Errorf("want all removed over several invocations, got %d after %d", w.countRemoved(100, 20), invocations)
	}
}

// EC2's refusals about a large account take longer than an invocation lasts.
func TestGoneAccount_AdvancesHoweverSlowEC2(t *testing.T) {
	w := twoAccounts(t, 20)
	w.tick["describe"] = time.Hour
	in := theirAccount(20)
	for range 20 {
		a := w.say(in, errRefusedByAWS)
		if in.Cursor = a.Cursor; a.Cursor == nil {
			break
		}
	}
	if n := w.countRemoved(100, 20); n != 20 {
		t.Errorf("want each invocation to remove some, until all 20 are removed, got %d", n)
	}
}

func TestGone_NeedsForceAndANumber(t *testing.T) {
	word := Gone{Accounts: []string{there.Account}, AtMost: 1}
	for name, in := range map[string]Input{
		"no mode":            {Gone: &word},
		"no force":           {Mode: Correct, Gone: &word},
		"no number":          {Mode: Correct, Force: true, Gone: &Gone{Accounts: word.Accounts}},
		"nothing named":      {Mode: Detect, Gone: &Gone{}},
		"no account":         {Mode: Detect, Gone: &Gone{Accounts: []string{"*"}}},
		"no instance":        {Mode: Detect, Gone: &Gone{InstanceIDs: []string{"web-1"}}},
		"with instances":     {Mode: Detect, InstanceIDs: []string{id(1)}, Gone: &word},
		"with a profile":     {Mode: Detect, Profile: "x", Gone: &word},
		"with a teardown":    {Mode: Teardown, Confirm: "x", Gone: &word},
		"doctor, by mistake": {Mode: Doctor, Gone: &word},
	} {
		if err := CheckInput(in); err == nil {
			t.Errorf("%s: want a refusal", name)
		}
	}
	if err := CheckInput(theirAccount(1)); err != nil {
		t.Errorf("want the valid input accepted, got %v", err)
	}
}
