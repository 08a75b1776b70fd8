package converge_test

import (
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// loggedIn returns a world in which instance A has its grant and has logged in, under the auth role's role_id as alias.
func loggedIn(t *testing.T) (*world, *converge.Converger) {
	t.Helper()
	w, c := provisioned(t, both)
	w.logIn(w.roleID())
	return w, c
}

// changeRole has Vault hold an auth role of another type, which Vault cannot change in place.
func (w *world) changeRole() {
	w.Objects[roleA]["auth_type"] = "iam"
	w.edit(func(r *ledger.Record) { r.Objects[len(r.Objects)-1].SHA256 = "before" })
}

// An alias that only the ledger records proves nothing. The role in Vault proves it, while it exists.
func TestCut_FollowsTheRoleInVault(t *testing.T) {
	for name, alias := range map[string]string{"role_id": "role_id", "instance ID since the login": "instance_id"} {
		w, c := loggedIn(t)
		w.EC2Alias = alias
		if w.mustEnd(c); len(w.Entities) > 0 {
			t.Errorf("%s: want the token cut, got entities %v", name, w.Entities)
		}
	}
}

// A role that Vault cannot change in place is replaced and its tokens are cut: a session that the new role refuses may hold
// one.
func TestReplacedRole_CutsTheOldTokens(t *testing.T) {
	w, c := loggedIn(t)
	w.EC2Alias = "role_id"
	old := w.roleID()
	w.changeRole()
	w.must(c, idA, facts.Running, converge.Provisioned)
	if w.hasTokens(old) || w.roleID() == old {
		t.Errorf("want a new role and the old role's tokens cut, got %v, %+v", w.Entities, w.Records[idA])
	}
	w.mustEnd(c)
}

// Tokens from before a change of login type may be out of reach. The change is made, and the removal waits for their end.
func TestTypeChange_RemembersUncutTokens(t *testing.T) {
	w, c := loggedIn(t)
	w.EC2Alias, w.IAMAlias = "image_id", "unique_id"
	w.changeRole()
	w.must(c, idA, facts.Running, converge.Provisioned)
	until := w.Records[idA].UncutUntil
	if until == nil || w.Objects[roleA] == nil {
		t.Fatalf("want the new role made and the end of the old tokens noted, got %+v", w.Records[idA])
	}
	w.EC2Alias, w.IAMAlias = "instance_id", "role_id"
	w.setState(facts.Terminated)
	w.wantFault(c, w.event(idA, facts.Terminated), fault.Conflict, "the removal is open until those tokens have ended")
	w.now = until.Add(time.Second)
	w.mustRemove(c)
}

// An entity that may not be the instance's is forgotten once its tokens have ended.
func TestUnprovenAlias_IsForgottenWithItsTokens(t *testing.T) {
	w, c := loggedIn(t)
	w.logIn("former")
	w.edit(func(r *ledger.Record) { r.FormerRoleIDs = []string{"former"} })
	w.setState(facts.Terminated)
	w.wantFault(c, w.event(idA, facts.Terminated), fault.Conflict, "only the ledger records the alias")
	w.now = w.Records[idA].UncutUntil.Add(time.Second)
	w.must(c, idA, facts.Terminated, converge.Deprovisioned)
	if r := w.Records[idA]; len(r.FormerRoleIDs) > 0 || r.State != ledger.Deleted || !w.hasTokens("former") {
		t.Errorf("want the entity left and its alias forgotten, or reconcile would report it each hour, got %+v, %v", r, w.Entities)
	}
}

func TestTokenLifetime_OfARecordOnlyGrows(t *testing.T) {
	w, c := loggedIn(t)
	w.edit(func(r *ledger.Record) {
		r.State, r.TokenMaxTTL = ledger.Provisioning, int64((48 * time.Hour).Seconds())
	}) // by an earlier profile
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.EC2Alias = "image_id"
	before := w.now
	w.setState(facts.Terminated)
	w.wantFault(c, w.event(idA, facts.Terminated), fault.Conflict, "no cut reaches the tokens")
	if until := w.Records[idA].UncutUntil; until.Before(before.Add(48 * time.Hour)) {
		t.Errorf("want the removal to wait for the longest token that the instance could get, 48h after %s, got %s", before, until)
	}
}
