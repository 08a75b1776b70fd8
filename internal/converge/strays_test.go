package converge_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// verify is a trigger of reconcile's.
func verify(w *world, state facts.State, strays ...string) converge.Request {
	t := trigger(idA, state, w.clock())
	t.Verify, t.Untracked = true, strays
	return t
}

func TestVerifyingComparesWithVaultWhateverTheLedgerSays(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.calls = nil
	if got, err := w.handleAt(c, verify(w, facts.Running)); err != nil || got.Action != converge.Unchanged {
		t.Fatalf("want nothing to do, got %+v, %v", got, err)
	}
	if w.count("vault read") != 4 || w.count("vault write") != 0 || w.count("ledger put") != 0 {
		t.Errorf("want each object read and nothing written, got %q", w.calls)
	}
	delete(w.Objects, policyA)
	w.must(c, idA, facts.Running, converge.Unchanged) // an event trusts the ledger
	if got, err := w.handleAt(c, verify(w, facts.Running)); err != nil || got.Action != converge.Provisioned || got.Objects != 1 {
		t.Fatalf("want the one missing object made, got %+v, %v", got, err)
	}
	if err := w.granted(idA); err != nil {
		t.Error(err)
	}
}

func marked(deployment, id string) map[string]any {
	return map[string]any{"policy": grant.Marker{Deployment: deployment, InstanceID: id, Profile: "a-b"}.String()}
}

// TestAStrayIsRemovedOnlyIfItIsOurs has what stands under the instance's name and is in no record.
func TestAStrayIsRemovedOnlyIfItIsOurs(t *testing.T) {
	const oldPolicy, oldRole = "sys/policies/acl/ec2-" + idA + "-old", "alice_cluster/pki/k8s/roles/" + idA + "-old"
	for name, c := range map[string]struct {
		stands map[string]map[string]any
		record *ledger.Record
		left   []string
		adopt  bool
	}{
		"a policy of ours and a role beside it, the record lost": {
			stands: map[string]map[string]any{oldPolicy: marked("vault-ec2", idA), oldRole: {"x": true}, roleA: {"role_id": "r", "token_policies": []any{"ec2-" + idA + "-old"}}},
		},
		"a policy of ours and an auth role that does not give it": {
			stands: map[string]map[string]any{oldPolicy: marked("vault-ec2", idA), roleA: {"role_id": "r", "token_policies": []any{"admin"}}}, left: []string{roleA},
		},
		"a role alone": {stands: map[string]map[string]any{oldRole: {"x": true}}, left: []string{oldRole}},
		"a policy without a marker, and what stands beside it": {
			stands: map[string]map[string]any{oldPolicy: {"policy": "path \"x\" {}"}, oldRole: {"x": true}}, left: []string{oldRole, oldPolicy},
		},
		"one policy of ours and one of another deployment": {
			stands: map[string]map[string]any{policyA: marked("vault-ec2", idA), oldPolicy: marked("other", idA), oldRole: {"x": true}},
			left:   []string{oldRole, oldPolicy},
		},
		"a policy with another instance's marker": {
			stands: map[string]map[string]any{oldPolicy: marked("vault-ec2", idB)}, left: []string{oldPolicy},
		},
		"what is not ours, where settings say to adopt": {
			stands: map[string]map[string]any{oldPolicy: {"policy": "path \"x\" {}"}, oldRole: {"x": true}}, left: []string{oldRole, oldPolicy}, adopt: true,
		},
		"an auth role that somebody made after the removal": {
			record: &ledger.Record{InstanceID: idA, State: ledger.Deleted, Profile: "a-b", Version: 3},
			stands: map[string]map[string]any{roleA: {"role_id": "r"}}, left: []string{roleA},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var strays []string
			for path, fields := range c.stands {
				w.Objects[path] = fields
				strays = append(strays, path)
			}
			if c.record != nil {
				w.Records[idA] = *c.record
			}
			slices.Sort(strays)
			converger := w.converger(both, func(o *converge.Options) { o.Adopt = c.adopt })
			if _, err := w.handleAt(converger, verify(w, facts.Terminated, strays...)); err != nil {
				t.Fatal(err)
			}
			var left []string
			for path := range w.Objects {
				left = append(left, path)
			}
			slices.Sort(left)
			if !slices.Equal(left, c.left) {
				t.Errorf("want %q left, got %q", c.left, left)
			}
			if first := w.index("vault delete"); first >= 0 && w.index("ledger put deprovisioning") > first {
				t.Errorf("want the record to name what is deleted first, got %q", w.calls)
			}
			if r := w.Records[idA]; r.State != ledger.Deleted || len(r.Objects) > 0 {
				t.Errorf("want a tombstone, got %+v", r)
			}
		})
	}
}

func TestWhatLoginsLeftIsSweptWhereTheLedgerKnowsTheInstance(t *testing.T) {
	for granted, left := range map[string]bool{"a-b": false, "": true} {
		w := newWorld(t)
		w.Records[idA] = ledger.Record{InstanceID: idA, State: ledger.Deleted, Profile: granted, Version: 3}
		w.logIn(idA)
		if _, err := w.handleAt(w.converger(both), verify(w, facts.Terminated, roleA)); err != nil {
			t.Fatal(err)
		}
		if w.hasTokens(idA) != left {
			t.Errorf("profile %q in the tombstone: the entity is left: %v, want %v", granted, w.hasTokens(idA), left)
		}
	}
}

// TestAStrayOfALiveInstanceGoesAndItsGrantStays also names the grant's own paths as strays: reconcile took the instance
// for gone, and it was not.
func TestAStrayOfALiveInstanceGoesAndItsGrantStays(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	delete(w.Records, idA)
	old := strings.TrimSuffix(policyA, "node") + "old"
	w.Objects[old] = marked("vault-ec2", idA)
	if _, err := w.handleAt(c, verify(w, facts.Terminated, old, policyA, roleA)); err == nil {
		t.Error("want a running instance that was taken for gone looked at again, by its age")
	}
	if _, err := w.handleAt(c, verify(w, facts.Running, old, policyA, roleA)); err != nil {
		t.Fatal(err)
	}
	if err := w.granted(idA); err != nil {
		t.Error(err)
	}
}

// TestAnInstanceThatAnotherDeploymentTookOverIsLeftUntouched has a running instance that no profile fits any more, as
// after its move to another deployment: that one has adopted the policy, and with it, as far as anybody can tell, all
// beside it.
func TestAnInstanceThatAnotherDeploymentTookOverIsLeftUntouched(t *testing.T) {
	old := strings.TrimSuffix(policyA, "node") + "old"
	for name, asked := range map[string]func(*world) converge.Request{
		"by an event":                func(w *world) converge.Request { return trigger(idA, facts.Running, w.clock()) },
		"by reconcile":               func(w *world) converge.Request { return verify(w, facts.Running) },
		"by reconcile, with a stray": func(w *world) converge.Request { return verify(w, facts.Running, old) },
	} {
		w := newWorld(t)
		f := w.launch(idA, 4)
		c := w.converger(both, func(o *converge.Options) { o.Adopt, o.RevokeCertificates = true, true })
		w.must(c, idA, facts.Running, converge.Provisioned)
		w.Objects[policyA], w.Objects[old] = marked("other", idA), marked("vault-ec2", idA)
		w.logIn(idA)
		f.IAMRoleARN = "arn:aws:iam::123456789012:role/other"
		w.ec2[idA] = f
		w.calls = nil
		_, err := w.handleAt(c, asked(w))
		if fault.KindOf(err) != fault.Conflict || !strings.Contains(fmt.Sprint(err), policyA) || !strings.Contains(fmt.Sprint(err), "deployment other") {
			t.Errorf("%s: want a conflict that names the policy and whose it is, got %v", name, err)
		}
		for _, touches := range []string{"vault write", "vault delete", "vault cut", "vault revoke", "ledger put"} {
			if w.count(touches) > 0 {
				t.Errorf("%s: want nothing touched of an instance that works for somebody else, got %q", name, w.calls)
			}
		}
		if !w.hasTokens(idA) || w.Objects[roleA] == nil || w.Records[idA].State != ledger.Active {
			t.Errorf("%s: want its login, its tokens and its record as they were, got %v, record %+v", name, w.Objects[roleA], w.Records[idA])
		}
	}
}

func TestVerifyingTakesALostClaimAgain(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	clear(w.Claims)
	w.calls = nil
	got, err := w.handleAt(c, verify(w, facts.Running))
	if err != nil || got.Action != converge.Provisioned || got.Objects != 0 || w.count("vault write")+w.count("vault delete") > 0 {
		t.Errorf("want the claim taken and Vault, where all is as it should be, left alone, got %+v, %v\n%q", got, err, w.calls)
	}
	if err := w.granted(idA); err != nil {
		t.Error(err)
	}
}

// TestALostClaimThatAnotherHoldsByNowStaysWithThatOne has two live instances of one name, which no claim kept apart.
// Neither may take it from the other.
func TestALostClaimThatAnotherHoldsByNowStaysWithThatOne(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	clear(w.Claims)
	w.launch(idB, 4)
	w.must(c, idB, facts.Running, converge.Provisioned)
	if _, err := w.handleAt(c, verify(w, facts.Running)); fault.KindOf(err) != fault.Refuse || !strings.Contains(fmt.Sprint(err), idB) {
		t.Errorf("want it refused, naming the holder, got %v", err)
	}
	if err := w.granted(idB); err != nil {
		t.Errorf("want the holder to keep the name and the grant: %v", err)
	}
	if r := w.Records[idA]; r.LastError == "" {
		t.Errorf("want the refusal recorded, got %+v", r)
	}
}
