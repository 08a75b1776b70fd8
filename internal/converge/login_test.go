package converge_test

import (
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// loggedIn launches an instance, grants it and has it log in by its role_id, as on a mount with ec2_alias=role_id.
func (w *world) loggedIn() *converge.Converger {
	w.t.Helper()
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.logIn(w.Records[idA].RoleID(roleA))
	return c
}

// ends terminates the instance and removes it.
func (w *world) ends(c *converge.Converger) error {
	w.t.Helper()
	w.setState(facts.Terminated)
	_, err := w.handle(c, idA, facts.Terminated)
	return err
}

// The alias that the ledger alone records proves nothing. The role in Vault does, as long as it stands.
func TestCut_GoesByTheRoleInVault(t *testing.T) {
	for name, alias := range map[string]string{"by role_id": "role_id", "by instance ID since the login": "instance_id"} {
		w := newWorld(t)
		c := w.loggedIn()
		w.EC2Alias = alias
		if err := w.ends(c); err != nil || len(w.Entities) > 0 {
			t.Errorf("%s: want the token cut, got %v, entities %v", name, err, w.Entities)
		}
	}
}

// A role that Vault cannot change in place is replaced, and what came in by it is cut: a session that the new one does not
// let in may hold a token.
func TestReplacedRole_LeavesNothingToProve(t *testing.T) {
	w := newWorld(t)
	c := w.loggedIn()
	w.EC2Alias = "role_id"
	old := w.Records[idA].RoleID(roleA)
	w.Objects[roleA]["auth_type"] = "iam"
	r := w.Records[idA]
	r.Objects[len(r.Objects)-1].SHA256 = "before"
	w.Records[idA] = r
	w.must(c, idA, facts.Running, converge.Provisioned)
	if w.hasTokens(old) || w.Records[idA].RoleID(roleA) == old {
		t.Errorf("want the old role's tokens cut and a new role, got %v, %+v", w.Entities, w.Records[idA])
	}
	if err := w.ends(c); err != nil {
		t.Errorf("a removal after it must be like any: %v", err)
	}
}

// Tokens from before a change of login type may be out of reach: the change goes on, and the removal waits for their end.
func TestTypeChange_RemembersTokensItCouldNotCut(t *testing.T) {
	w := newWorld(t)
	c := w.loggedIn()
	w.EC2Alias = "image_id"
	w.Objects[roleA]["auth_type"] = "iam"
	r := w.Records[idA]
	r.Objects[len(r.Objects)-1].SHA256 = "before"
	w.Records[idA] = r
	w.IAMAlias = "unique_id"
	w.must(c, idA, facts.Running, converge.Provisioned)
	until := w.Records[idA].UncutUntil
	if until == nil || w.Objects[roleA] == nil {
		t.Fatalf("want the new role made and the old tokens' end noted, got %+v", w.Records[idA])
	}
	w.EC2Alias, w.IAMAlias = "instance_id", "role_id"
	if err := w.ends(c); fault.KindOf(err) != fault.Conflict {
		t.Errorf("want the removal open until those tokens have ended, got %v", err)
	}
	w.now = until.Add(time.Second)
	w.must(c, idA, facts.Terminated, converge.Deprovisioned)
	if err := w.nothing(idA); err != nil {
		t.Error(err)
	}
}

// What could not be shown to be the instance's is not found again once its tokens have ended.
func TestUnprovenAlias_IsForgottenWithItsTokens(t *testing.T) {
	w := newWorld(t)
	c := w.loggedIn()
	w.logIn("former")
	r := w.Records[idA]
	r.FormerRoleIDs = []string{"former"}
	w.Records[idA] = r
	if err := w.ends(c); fault.KindOf(err) != fault.Conflict {
		t.Fatalf("want what only the ledger records left alone and told, got %v", err)
	}
	w.now = w.Records[idA].UncutUntil.Add(time.Second)
	w.must(c, idA, facts.Terminated, converge.Deprovisioned)
	if r := w.Records[idA]; len(r.FormerRoleIDs) > 0 || r.State != ledger.Deleted || !w.hasTokens("former") {
		t.Errorf("want it left for ever and forgotten, so that reconcile does not find it as the instance's each hour, got %+v, %v", r, w.Entities)
	}
}

func TestTokenLifetime_OfARecordOnlyGrows(t *testing.T) {
	w := newWorld(t)
	c := w.loggedIn()
	r := w.Records[idA]
	r.TokenMaxTTL = int64((48 * time.Hour).Seconds()) // by the profile as it was
	r.State = ledger.Provisioning
	w.Records[idA] = r
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.EC2Alias = "image_id"
	before := w.now
	if err := w.ends(c); fault.KindOf(err) != fault.Conflict {
		t.Fatalf("got %v", err)
	}
	if until := w.Records[idA].UncutUntil; until.Before(before.Add(48 * time.Hour)) {
		t.Errorf("want the longest token that the instance ever could get waited for, got %s after %s", until, before)
	}
}
