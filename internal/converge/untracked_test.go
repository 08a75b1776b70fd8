package converge_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// verify returns a request of reconcile.
func verify(w *world, state facts.State, untracked ...string) converge.Request {
	req := request(idA, state, w.clock())
	req.Verify, req.Untracked = true, untracked
	return req
}

func TestVerify_ComparesWithVaultNotTheLedger(t *testing.T) {
	w, c := provisioned(t, both)
	w.calls = nil
	w.mustAt(c, verify(w, facts.Running), converge.Unchanged)
	if w.count("vault read") != 4 || w.count("vault write") != 0 || w.count("ledger put") != 0 {
		t.Errorf("want each object read and nothing written, got %q", w.calls)
	}
	delete(w.Objects, policyA)
	w.must(c, idA, facts.Running, converge.Unchanged) // an event trusts the ledger
	if got := w.mustAt(c, verify(w, facts.Running), converge.Provisioned); got.Objects != 1 {
		t.Fatalf("want the missing object made, got %+v", got)
	}
	w.wantGranted(idA)
}

// TestUntracked_RemovedOnlyIfOurs has objects with the instance's name that no record names.
func TestUntracked_RemovedOnlyIfOurs(t *testing.T) {
	const oldPolicy, oldRole = "sys/policies/acl/ec2-" + idA + "-old", "alice_cluster/pki/k8s/roles/" + idA + "-old"
	for name, c := range map[string]struct {
		exist  map[string]map[string]any
		record *ledger.Record
		left   []string
		adopt  bool
	}{
		"a policy of ours and a role beside it, the record lost": {
			exist: map[string]map[string]any{oldPolicy: marked("vault-ec2", idA), oldRole: {"x": true}, roleA: {"role_id": "r", "token_policies": []any{"ec2-" + idA + "-old"}}},
		},
		"a policy of ours and an auth role that does not give it": {
			exist: map[string]map[string]any{oldPolicy: marked("vault-ec2", idA), roleA: {"role_id": "r", "token_policies": []any{"admin"}}}, left: []string{roleA},
		},
		"a role alone": {exist: map[string]map[string]any{oldRole: {"x": true}}, left: []string{oldRole}},
		"a policy without a marker, and a role beside it": {
			exist: map[string]map[string]any{oldPolicy: {"policy": "path \"x\" {}"}, oldRole: {"x": true}}, left: []string{oldRole, oldPolicy},
		},
		"one policy of ours and one of another deployment": {
			exist: map[string]map[string]any{policyA: marked("vault-ec2", idA), oldPolicy: marked("other", idA), oldRole: {"x": true}},
			left:  []string{oldRole, oldPolicy},
		},
		"a policy with another instance's marker": {
			exist: map[string]map[string]any{oldPolicy: marked("vault-ec2", idB)}, left: []string{oldPolicy},
		},
		"objects of unknown owners, with Adopt": {
			exist: map[string]map[string]any{oldPolicy: {"policy": "path \"x\" {}"}, oldRole: {"x": true}}, left: []string{oldRole, oldPolicy}, adopt: true,
		},
		"an auth role made by hand after the removal": {
			record: &ledger.Record{InstanceID: idA, State: ledger.Deleted, Profile: "a-b", Version: 3},
			exist:  map[string]map[string]any{roleA: {"role_id": "r"}}, left: []string{roleA},
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			maps.Copy(w.Objects, c.exist)
			if c.record != nil {
				w.Records[idA] = *c.record
			}
			converger := w.converger(both, func(o *converge.Options) { o.Adopt = c.adopt })
			if _, err := w.handleAt(converger, verify(w, facts.Terminated, slices.Sorted(maps.Keys(c.exist))...)); err != nil {
				t.Fatal(err)
			}
			if left := slices.Sorted(maps.Keys(w.Objects)); !slices.Equal(left, c.left) {
				t.Errorf("want %q left, got %q", c.left, left)
			}
			if first := w.index("vault delete"); first >= 0 && w.index("ledger put deprovisioning") > first {
				t.Errorf("want the record to name objects before they are deleted, got %q", w.calls)
			}
			if r := w.Records[idA]; r.State != ledger.Deleted || len(r.Objects) > 0 {
				t.Errorf("want a tombstone, got %+v", r)
			}
		})
	}
}

func TestLoginLeftovers_RemovedIfOnceGranted(t *testing.T) {
	for granted, left := range map[string]bool{"a-b": false, "": true} {
		w := newWorld(t)
		w.Records[idA] = ledger.Record{InstanceID: idA, State: ledger.Deleted, Profile: granted, Version: 3}
		w.logIn(idA)
		if _, err := w.handleAt(w.converger(both), verify(w, facts.Terminated, roleA)); err != nil {
			t.Fatal(err)
		}
		if w.hasTokens(idA) != left {
			t.Errorf("profile %q in the tombstone: want the entity left: %v, got %v", granted, left, w.hasTokens(idA))
		}
	}
}

// TestUntracked_RemovalKeepsALiveGrant also names the grant's own paths as untracked: reconcile took a live instance
// for gone.
func TestUntracked_RemovalKeepsALiveGrant(t *testing.T) {
	w, c := provisioned(t, both)
	delete(w.Records, idA)
	old := strings.TrimSuffix(policyA, "node") + "old"
	w.Objects[old] = marked("vault-ec2", idA)
	w.wantFault(c, verify(w, facts.Terminated, old, policyA, roleA), fault.Retry, "a running instance that was taken for gone")
	if _, err := w.handleAt(c, verify(w, facts.Running, old, policyA, roleA)); err != nil {
		t.Fatal(err)
	}
	w.wantGranted(idA)
}

// TestForeignInstance_IsLeftUntouched has a running instance that no profile fits any more. Another
// deployment has adopted its policy, and may own the objects beside it too.
func TestForeignInstance_IsLeftUntouched(t *testing.T) {
	old := strings.TrimSuffix(policyA, "node") + "old"
	for name, asked := range map[string]func(*world) converge.Request{
		"by an event":                            func(w *world) converge.Request { return request(idA, facts.Running, w.clock()) },
		"by reconcile":                           func(w *world) converge.Request { return verify(w, facts.Running) },
		"by reconcile, with an untracked object": func(w *world) converge.Request { return verify(w, facts.Running, old) },
	} {
		w, c := provisioned(t, both, func(o *converge.Options) { o.Adopt, o.RevokeCertificates = true, true })
		w.Objects[policyA], w.Objects[old] = marked("other", idA), marked("vault-ec2", idA)
		w.logIn(idA)
		w.unmatch()
		w.calls = nil
		w.wantFault(c, asked(w), fault.Conflict, name, policyA, "deployment other")
		for _, touches := range []string{"vault write", "vault delete", "vault cut", "vault revoke", "ledger put"} {
			if w.count(touches) > 0 {
				t.Errorf("%s: want nothing of another deployment's instance touched, got %q", name, w.calls)
			}
		}
		if !w.hasTokens(idA) || w.Objects[roleA] == nil || w.Records[idA].State != ledger.Active {
			t.Errorf("%s: want its login, tokens and record as they were, got %v, record %+v", name, w.Objects[roleA], w.Records[idA])
		}
	}
}

func TestVerify_TakesALostClaimAgain(t *testing.T) {
	w, c := provisioned(t, both)
	clear(w.Claims)
	w.calls = nil
	got := w.mustAt(c, verify(w, facts.Running), converge.Provisioned)
	if got.Objects != 0 || w.count("vault write")+w.count("vault delete") > 0 {
		t.Errorf("want the claim taken, and no change in Vault, got %+v\n%q", got, w.calls)
	}
	w.wantGranted(idA)
}

// TestVerify_LeavesAClaimToItsNewHolder has two live instances with one name, because a claim was lost. Neither
// may take it from the other.
func TestVerify_LeavesAClaimToItsNewHolder(t *testing.T) {
	w, c := provisioned(t, both)
	clear(w.Claims)
	w.launch(idB, 4)
	w.must(c, idB, facts.Running, converge.Provisioned)
	w.wantFault(c, verify(w, facts.Running), fault.Refuse, "another instance holds the name", idB)
	w.wantGranted(idB)
	if r := w.Records[idA]; r.LastError == "" {
		t.Errorf("want the refusal recorded, got %+v", r)
	}
}
