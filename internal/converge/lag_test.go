package converge_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
)

// through has a converger reach Vault through a server that is behind.
func (w *world) through(s *vaulttest.Standby) func(*converge.Options) {
	s.Vault = w.Vault
	login := func(context.Context, *vault.Conn) (*api.SecretAuth, error) {
		return &api.SecretAuth{ClientToken: "token", LeaseDuration: 3600}, nil
	}
	client := vault.New(vault.Options{Addr: s.Start(w.t.Cleanup), Login: login})
	return func(o *converge.Options) { o.Vault = client }
}

// behind returns servers that are behind by a few reads, by whether they name their state.
func behind(each func(name string, s *vaulttest.Standby)) {
	for reads := range 3 {
		each(fmt.Sprintf("%d reads behind, without a state", reads), &vaulttest.Standby{Behind: reads})
		each(fmt.Sprintf("%d reads behind, and refuses", reads), &vaulttest.Standby{Behind: reads, Index: true})
		each(fmt.Sprintf("%d reads behind, and forwards", reads+10), &vaulttest.Standby{Behind: reads + 10, Index: true, Forwards: true})
	}
}

func TestLaggingRead_DelaysNoGrant(t *testing.T) {
	behind(func(name string, s *vaulttest.Standby) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := provisioned(t, mayMake)
			w.show(idA, addAddress)
			c := w.converger(mayMake, w.through(s))
			w.must(c, idA, facts.Running, converge.Provisioned)
			w.wantGranted(idA)
			if s.Behind > 0 && s.Index && s.Count("412") == 0 {
				t.Error("want a read that required a state refused, or the case shows nothing")
			}
		})
	})
}

func TestLaggingRead_IsRetriedBeforeItRefuses(t *testing.T) {
	w, _ := provisioned(t, mayMake)
	w.pass(time.Hour)
	w.show(idA, addAddress)
	s := &vaulttest.Standby{Behind: 1000}
	c := w.converger(mayMake, w.through(s))
	const says = "reads back with other values"
	w.wantFault(c, w.event(idA, facts.Running), fault.Retry, "a server that is behind for seconds", says)
	if r := w.Records[idA]; r.State != ledger.Provisioning || !strings.Contains(r.LastError, says) {
		t.Errorf("want the intent left in the record, got %+v", r)
	}
	w.wantFault(c, w.event(idA, facts.Running), fault.Retry, "the same a moment later", says)
	w.pass(2 * time.Minute)
	t.Run("caught up", func(t *testing.T) {
		s.FallBehind(0, nil)
		s.Behind = 0
		records, objects := maps.Clone(w.Records), maps.Clone(w.Objects)
		w.must(c, idA, facts.Running, converge.Provisioned)
		w.wantGranted(idA)
		w.Records, w.Objects = records, objects
	})
	t.Run("never", func(t *testing.T) {
		s.FallBehind(1000, map[string]map[string]any{})
		s.Behind = 1000
		w.wantFault(c, w.event(idA, facts.Running), fault.Retry, "absent objects may appear", "absent when read back")
	})
}

// A Vault that changes what it is sent is no lag: the refusal comes at the second try, two minutes later.
func TestChangedObject_IsRefusedAtTheSecondTry(t *testing.T) {
	w, c := launched(t, mayMake, func(o *converge.Options) { o.Vault = loosening{o.Vault} })
	const says = "reads back with other values in [allow_localhost]"
	w.wantFault(c, w.event(idA, facts.Running), fault.Retry, "it may be a lag", says)
	if _, exists := w.Objects[roleA]; exists {
		t.Error("want no auth role beside an object that is not as sent")
	}
	w.pass(2 * time.Minute)
	w.wantFault(c, w.event(idA, facts.Running), fault.Refuse, "no lag lasts so long", says)
}

// loosening is a Vault that stores another value than it is sent.
type loosening struct{ converge.Vault }

func (l loosening) Write(ctx context.Context, path string, fields map[string]any) (map[string]any, error) {
	if _, _, isRole := grant.SplitPKIRolePath(path); isRole {
		fields = maps.Clone(fields)
		fields["allow_localhost"] = true
	}
	return l.Vault.Write(ctx, path, fields)
}

// A read from before this deployment's own writes and deletes shows objects that look foreign, lacks the policies that prove the
// others ours, or shows objects that are gone.
func TestLaggingRead_MakesNoConflict(t *testing.T) {
	for name, row := range map[string]struct {
		old  func(objects map[string]map[string]any)
		want converge.Action
		set  func(w *world)
	}{
		"a foreign policy, replaced by ours": {
			old:  func(objects map[string]map[string]any) { objects[policyA] = marked("another", idA) },
			set:  func(*world) {},
			want: converge.Unchanged,
		},
		"objects that a removal deleted": {
			old:  func(map[string]map[string]any) {},
			set:  removedAMomentAgo,
			want: converge.Provisioned,
		},
		"objects that a removal deleted, without their policy": {
			old:  func(objects map[string]map[string]any) { delete(objects, policyA) },
			set:  removedAMomentAgo,
			want: converge.Provisioned,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := provisioned(t, both)
			old := maps.Clone(w.Objects)
			row.old(old)
			row.set(w)
			s := &vaulttest.Standby{}
			c := w.converger(both, w.through(s))
			s.FallBehind(4, old)
			req := w.event(idA, facts.Running)
			req.Verify = true
			w.mustAt(c, req, row.want)
			w.wantGranted(idA)
		})
	}
}

// removedAMomentAgo removes the grant of instance A, which then fits its profile again.
func removedAMomentAgo(w *world) {
	w.unmatch()
	w.must(w.converger(both), idA, facts.Running, converge.Deprovisioned)
	w.launch(idA, 4)
	w.pass(time.Second)
}

func TestLaggingRead_EndsNoRemovalEarly(t *testing.T) {
	for _, alias := range []string{"role_id", "instance_id"} {
		for _, reads := range []int{1, 2, 1000} {
			t.Run(fmt.Sprintf("%d reads behind, %s", reads, alias), func(t *testing.T) {
				w, _ := provisioned(t, mayMake)
				w.EC2Alias = alias
				w.pass(time.Second)
				token := map[string]string{"role_id": w.roleID(), "instance_id": idA}[alias]
				w.logIn(token)
				s := &vaulttest.Standby{Behind: reads} // a delete makes it fall behind again
				c := w.converger(mayRemove, w.through(s))
				s.FallBehind(reads, map[string]map[string]any{}) // from before the grant
				w.setState(facts.Terminated)
				if reads == 1000 && alias == "role_id" {
					w.wantFault(c, w.event(idA, facts.Terminated), fault.Retry, "a server that is behind for seconds", "granted a moment ago")
					if w.Objects[policyA] == nil || w.Records[idA].State != ledger.Deprovisioning {
						t.Fatalf("want the removal open, got record %+v", w.Records[idA])
					}
					w.pass(2 * time.Minute)
					s.FallBehind(0, nil)
					s.Behind = 0
				}
				w.must(c, idA, facts.Terminated, converge.Deprovisioned)
				w.wantNothing(idA)
				if w.hasTokens(token) {
					t.Error("want the tokens cut")
				}
			})
		}
	}
}

// An object of a grant made long ago is absent because it was deleted: that costs no second look.
func TestAbsentObject_OfOldGrantIsNotLookedForAgain(t *testing.T) {
	w, _ := provisioned(t, mayMake)
	w.pass(time.Hour)
	delete(w.Objects, policyA)
	w.calls = nil
	w.mustEnd(w.converger(mayRemove))
	if n := w.count("vault read " + policyA); n != 1 {
		t.Errorf("want one read of the absent policy, got %d", n)
	}
}

func TestMayLag_EndsWithTheLongestWrite(t *testing.T) {
	now := start
	at := func(d time.Duration) *time.Time { past := now.Add(-d); return &past }
	for name, row := range map[string]struct {
		record *ledger.Record
		want   bool
	}{
		"no record":                           {nil, false},
		"a record of an earlier version":      {&ledger.Record{UpdatedAt: now}, false},
		"an intent of a second ago":           {&ledger.Record{MadeAt: at(time.Second)}, true},
		"an intent of a run just over":        {&ledger.Record{MadeAt: at(80 * time.Second)}, true},
		"an intent of the message's try":      {&ledger.Record{MadeAt: at(2 * time.Minute)}, false},
		"a removal of a second ago":           {&ledger.Record{MadeAt: at(time.Hour), DeletedAt: at(time.Second)}, true},
		"a removal of a while ago":            {&ledger.Record{MadeAt: at(time.Hour), DeletedAt: at(vault.MaxLag)}, false},
		"a time that no run can have written": {&ledger.Record{MadeAt: at(-time.Hour)}, false},
	} {
		if got := converge.MayLag(row.record, now); got != row.want {
			t.Errorf("%s: want %v, got %v", name, row.want, got)
		}
	}
}
