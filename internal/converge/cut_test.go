package converge_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
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

type ec2Alias string

// EC2Alias returns the source of an ec2 login's alias.
func (a ec2Alias) EC2Alias(context.Context, string) string { return string(a) }

// aliasedBy returns a world in which instance A has its grant, made while the auth mount named logins by a source, and names them by
// the instance ID now.
func aliasedBy(t *testing.T, alias string, change ...func(*converge.Options)) (*world, *converge.Converger) {
	t.Helper()
	change = append(change, func(o *converge.Options) { o.Aliases = ec2Alias(alias) })
	w, c := provisioned(t, both, change...)
	w.EC2Alias, w.calls = "instance_id", nil
	return w, c
}

func TestCut_ByInstanceIDReadsNoRole(t *testing.T) {
	w, c := aliasedBy(t, "instance_id")
	w.logIn(idA)
	if w.mustEnd(c); len(w.Entities) > 0 || w.count("vault read auth/") != 0 || w.count("vault cut aws "+idA) != 2 || strings.Contains(strings.Join(w.calls, "\n"), "cut aws "+idA+" ") {
		t.Errorf("all logins were named by the instance ID: want the token cut by it alone and no read of the role, got entities %v and calls %v", w.Entities, w.calls)
	}
}

// A login under another setting has the auth role's role_id as alias. Its token is cut by that.
func TestCut_ByEveryAliasWhereOneIsUncertain(t *testing.T) {
	for name, change := range map[string]func(w *world, r *ledger.Record){
		"the setting was another when the grant was made": func(_ *world, r *ledger.Record) { r.LoginAlias = "role_id" },
		"the record is of an earlier version":             func(_ *world, r *ledger.Record) { r.LoginAlias = "" },
		"the token has policies of others":                func(_ *world, r *ledger.Record) { r.ExtraPolicies = true },
		"the logins are of type iam":                      func(_ *world, r *ledger.Record) { r.LoginType = "iam" },
		"the role_id is not recorded": func(_ *world, r *ledger.Record) {
			r.Objects[len(r.Objects)-1].RoleID = ""
		},
	} {
		w, c := aliasedBy(t, "instance_id")
		w.logIn(idA, w.roleID())
		w.edit(func(r *ledger.Record) { change(w, r) })
		w.setState(facts.Terminated)
		if _, err := w.handle(c, idA, facts.Terminated); err != nil && !errors.Is(err, converge.ErrUnfinished) || len(w.Entities) > 0 {
			t.Errorf("%s: want every token cut, got entities %v, %v", name, w.Entities, err)
		}
	}
}

// A changed setting makes the alias of earlier logins uncertain for good.
func TestLoginAlias_IsForgottenOnceItChanged(t *testing.T) {
	w, c := aliasedBy(t, "instance_id")
	if got := w.Records[idA].LoginAlias; got != "instance_id" {
		t.Fatalf("want the alias of the logins recorded, got %q", got)
	}
	for _, alias := range []string{"role_id", "instance_id"} {
		c.Aliases = ec2Alias(alias)
		w.show(idA, func(f *facts.Instance) {
			f.IPv4s = append(f.IPv4s, netip.AddrFrom4([4]byte{10, 1, 2, byte(len(alias))}))
		})
		w.must(c, idA, facts.Running, converge.Provisioned)
		if got := w.Records[idA].LoginAlias; got != "" {
			t.Errorf("the setting changed to %s since the first grant: want no alias recorded, got %q", alias, got)
		}
	}
}
