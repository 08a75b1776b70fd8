package converge_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

const (
	policyA = "sys/policies/acl/ec2-" + idA + "-node"
	roleA   = "auth/aws/role/" + idA
	pkiA    = "alice_cluster/pki/k8s/roles/" + idA + "-kubelet"
)

func TestGrant_IsMadeInOrder(t *testing.T) {
	w, _ := provisioned(t, mayMake)
	w.wantGranted(idA)
	intent, active := w.index("ledger put provisioning"), w.index("ledger put active")
	first, login := w.index("vault write"), w.index("vault write "+roleA)
	if intent > first || first > login || w.lastIndex("vault write") != login || login > active {
		t.Errorf("want the intent before the first object, the auth role as the last object, then the active record, got\n%s", strings.Join(w.calls, "\n"))
	}
	for call, want := range map[string]int{
		"ec2": 1, "ledger get": 1, "ledger put": 2, "vault write": 4,
		"vault read": 5, // each path once before its first write, and the auth role after it
	} {
		if got := w.count(call); got != want {
			t.Errorf("%s: %d calls, want %d\n%s", call, got, want, strings.Join(w.calls, "\n"))
		}
	}
}

func TestRepeatedEvent_DoesNotTouchVault(t *testing.T) {
	w, c := provisioned(t, mayMake)
	w.calls = nil
	w.must(c, idA, facts.Running, converge.Unchanged)
	if w.count("vault") != 0 || w.count("ledger put") != 0 || w.count("ledger get") != 1 {
		t.Errorf("want one read of the ledger and no other call, got %v", w.calls)
	}
}

// Else a deployment would write every record of the fleet once.
func TestNewVersion_AloneRewritesNoRecord(t *testing.T) {
	w, c := provisioned(t, mayMake)
	r := w.Records[idA]
	if r.Program != version.Version() {
		t.Fatalf("want the record to name the version that wrote it, %s, got %q", version.Version(), r.Program)
	}
	r.Program = "v0.0.1"
	w.Records[idA] = r
	w.calls = nil
	w.must(c, idA, facts.Running, converge.Unchanged)
	if w.count("ledger put") != 0 {
		t.Errorf("want no write for a record of another version, got %v", w.calls)
	}
}

func TestRemoval_IsDoneInOrder(t *testing.T) {
	w, _ := provisioned(t, mayMake)
	w.logIn(idA, w.roleID())
	w.setState(facts.Terminated)
	w.calls = nil
	c := w.converger(mayRemove, func(o *converge.Options) { o.RevokeCertificates = true })
	out, err := w.handle(c, idA, facts.Terminated)
	if err != nil || out.Action != converge.Deprovisioned || out.Cut != 2 {
		t.Fatalf("want the grant removed and two entities cut, got %+v, %v", out, err)
	}
	w.wantNothing(idA)
	order := []string{
		"ledger put deprovisioning", "vault delete " + roleA, "vault cut",
		"vault delete sys/policies", "vault delete auth/aws/identity-accesslist/", "ledger put deleted", "vault revoke",
	}
	for i := 1; i < len(order); i++ {
		if w.index(order[i-1]) < 0 || w.index(order[i-1]) > w.index(order[i]) {
			t.Errorf("want %q before %q, got\n%s", order[i-1], order[i], strings.Join(w.calls, "\n"))
		}
	}
	if w.count("vault revoke alice_cluster/pki/k8s/issue/"+idA+"-kubelet") != 1 || w.count("vault revoke") != 4 {
		t.Errorf("want the certificates of both PKI roles revoked, issued and signed ones, got %v", w.calls)
	}
	w.calls = nil
	w.must(c, idA, facts.Terminated, converge.Unchanged)
	if w.count("vault") != 0 {
		t.Errorf("want no call of Vault for a repeated event, got %v", w.calls)
	}
}

func TestConverge_FollowsEC2NotTheEvent(t *testing.T) {
	for name, row := range map[string]struct {
		event  facts.State
		age    time.Duration // of the event
		state  facts.State   // empty: EC2's answer does not hold the instance
		duties converge.Duties
		early  bool // OnShuttingDown
		want   converge.Action
		kind   fault.Kind
		left   bool // the earlier grant stays
	}{
		"terminated by a new event, still running by EC2": {facts.Terminated, 0, facts.Running, mayRemove, false, "", fault.Retry, true},
		"terminated by the event, shutting down by EC2":   {facts.Terminated, 0, facts.ShuttingDown, mayRemove, false, converge.Deprovisioned, 0, false},
		"running by a new event, still stopped by EC2":    {facts.Running, 0, facts.Stopped, both, false, "", fault.Retry, true},
		"running by the event, terminated by EC2":         {facts.Running, 0, facts.Terminated, mayRemove, false, converge.Deprovisioned, 0, false},
		"terminated by EC2, function may not remove":      {facts.Running, 0, facts.Terminated, mayMake, false, converge.LeftAlone, 0, true},
		"stopped":                            {facts.Stopped, 0, facts.Stopped, both, false, converge.LeftAlone, 0, true},
		"stopping":                           {facts.Stopping, 0, facts.Stopping, both, false, converge.LeftAlone, 0, true},
		"shutting down":                      {facts.ShuttingDown, 0, facts.ShuttingDown, both, false, converge.LeftAlone, 0, true},
		"shutting down, with OnShuttingDown": {facts.ShuttingDown, 0, facts.ShuttingDown, both, true, converge.Deprovisioned, 0, false},
		"terminated by the event, absent from EC2":     {facts.Terminated, 0, "", both, false, converge.Deprovisioned, 0, false},
		"running by a new event, absent from EC2":      {facts.Running, 0, "", both, false, "", fault.Retry, true},
		"running and unchanged":                        {facts.Running, 0, facts.Running, both, false, converge.Unchanged, 0, true},
		"running by an old event, absent from EC2":     {facts.Running, time.Hour, "", mayRemove, false, converge.LeftAlone, 0, true},
		"terminated by an old event, running by EC2":   {facts.Terminated, time.Hour, facts.Running, mayRemove, false, converge.LeftAlone, 0, true},
		"shutting down by an old event, still running": {facts.ShuttingDown, time.Hour, facts.Running, mayRemove, false, converge.LeftAlone, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := provisioned(t, both)
			w.setState(row.state)
			if row.state == "" {
				delete(w.ec2, idA)
			}
			req := w.event(idA, row.event)
			w.pass(row.age)
			out, err := w.handleAt(w.converger(row.duties, func(o *converge.Options) { o.OnShuttingDown = row.early }), req)
			if out.Action != row.want || (err != nil) != (row.want == "") || err != nil && fault.KindOf(err) != row.kind {
				t.Fatalf("want %q, got %q, %v", row.want, out.Action, err)
			}
			if left := w.granted(idA) == nil; left != row.left {
				t.Errorf("want the grant left: %v, got %v", row.left, left)
			}
		})
	}
}

func TestEvent_FromAnotherPlaceRemovesNothing(t *testing.T) {
	w, _ := provisioned(t, both)
	elsewhere := request(idA, facts.Terminated, w.now)
	elsewhere.Region = "eu-central-1" // where EC2, rightly, does not know it
	w.wantFault(w.converger(both), elsewhere, fault.Refuse, "an event from another place", "eu-central-1")
	w.wantGranted(idA)

	w.unmatch() // it goes on without a grant, and its certificates are still good
	w.must(w.converger(both), idA, facts.Running, converge.Deprovisioned)
	names := func() []ledger.Name { r := w.Records[idA]; return r.Names() }
	kept := names()
	if _, err := w.handleAt(w.converger(both), elsewhere); !isFault(err, fault.Refuse) || len(kept) == 0 || !slices.Equal(names(), kept) {
		t.Errorf("want the names %v kept, got %v, %v", kept, names(), err)
	}
}

func TestSighting_BeforeRemovalMakesNoGrant(t *testing.T) {
	for name, known := range map[string]bool{"of an instance with a grant": true, "of an instance without a record": false} {
		t.Run(name, func(t *testing.T) {
			w, provision := launched(t, mayMake)
			if known {
				w.must(provision, idA, facts.Running, converge.Provisioned)
			}
			seen := sighting(w.ec2[idA])
			seen.Facts.ObservedAt = w.now // the instance runs, and provision is slow
			w.pass(10 * time.Second)
			w.setState(facts.Terminated)
			w.must(w.converger(mayRemove), idA, facts.Terminated, map[bool]converge.Action{true: converge.Deprovisioned, false: converge.Unchanged}[known])
			_, err := provision.Converge(t.Context(), request(idA, facts.Running, start), seen)
			if !isFault(err, fault.Retry) || len(w.Objects) != 0 {
				t.Errorf("want no grant, which would never be removed, got %v, objects %v", err, w.Objects)
			}
		})
	}
}

func TestAuthRole_OnTheFormerMountIsRemoved(t *testing.T) {
	for name, duties := range map[string]converge.Duties{"by a function that may remove": both, "by one that may not": mayMake} {
		t.Run(name, func(t *testing.T) {
			w, _ := provisioned(t, both)
			moved := func(o *converge.Options) { o.Realm.AuthMount = "fleet" }
			w.must(w.converger(duties, moved), idA, facts.Running, converge.Provisioned)
			if w.Objects["auth/fleet/role/"+idA] == nil || (w.Objects[roleA] == nil) != duties.Remove {
				t.Errorf("want the new auth role, and the former one removed: %v, got %v", duties.Remove, w.Records[idA].Objects)
			}
			w.must(w.converger(duties, moved), idA, facts.Running, converge.Unchanged)
			w.mustEnd(w.converger(mayRemove, moved))
		})
	}
}

func TestGrant_NeverOverwritesAnUnknownObject(t *testing.T) {
	w, c := provisioned(t, mayMake)
	w.edit(func(r *ledger.Record) { r.Objects = append(r.Objects[:1:1], r.Objects[2:]...) }) // as if the profile had gained the kubelet's role
	w.Objects[pkiA] = map[string]any{"allow_any_name": true}
	w.show(idA, addAddress)
	w.wantFault(c, w.event(idA, facts.Running), fault.Conflict, "an unknown object", pkiA)
	if w.Objects[pkiA]["allow_any_name"] != true {
		t.Errorf("want %s left as it was, got %v", pkiA, w.Objects[pkiA])
	}
}

func TestLastError_IsClearedOnSuccess(t *testing.T) {
	w, c := provisioned(t, mayMake)
	good := w.ec2[idA]
	w.show(idA, func(f *facts.Instance) { f.PrivateDNSName = "ip_bad" })
	if _, err := w.handle(c, idA, facts.Running); !isFault(err, fault.Refuse) || w.Records[idA].LastError == "" || w.Records[idA].State != ledger.Active {
		t.Fatalf("want the refusal noted in the active record, got %v, %+v", err, w.Records[idA])
	}
	w.ec2[idA] = good
	w.must(c, idA, facts.Running, converge.Unchanged)
	if text := w.Records[idA].LastError; text != "" {
		t.Errorf("want the error removed from the record, got %q", text)
	}
}

func TestPending_WithoutNameAwaitsTheNextEvent(t *testing.T) {
	w, c := launched(t, mayMake)
	w.show(idA, func(f *facts.Instance) { f.State, f.PrivateDNSName = facts.Pending, "" })
	w.must(c, idA, facts.Pending, converge.NotYet)
	w.setState(facts.Running)
	if _, err := w.handle(c, idA, facts.Running); !isFault(err, fault.Retry) || !errors.Is(err, grant.ErrNotYet) {
		t.Errorf("want a running instance without a name tried again, got %v", err)
	}
	if len(w.Objects)+len(w.Records) != 0 {
		t.Errorf("want nothing made of half the facts, got %v, %v", w.Objects, w.Records)
	}
}

func TestRename_HoldsNamesWhileCertificatesLive(t *testing.T) {
	w, c := provisioned(t, mayMake)
	roleID := w.roleID()
	w.show(idA, func(f *facts.Instance) {
		f.PrivateDNSName, f.IPv4s = "ip-10-1-1-99.ec2.internal", []netip.Addr{netip.MustParseAddr("10.1.1.99")}
	})
	w.calls = nil
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.wantGranted(idA)
	if got := w.roleID(); got != roleID {
		t.Errorf("want the auth role to keep its role_id %s, and with it its entity, got %s", roleID, got)
	}
	if got := w.count("vault write"); got != 3 {
		t.Errorf("want 3 writes, and none of kube-proxy's role, which did not change, got %d: %v", got, w.calls)
	}
	former := ledger.Name{Under: "alice_cluster", Text: "ip-10-1-1-4.ec2.internal"}
	record := w.Records[idA]
	until, held := record.HeldUntil(former)
	if want := w.now.Add(maxTTL); !held || !until.Equal(want) || w.Claims[former].InstanceID != idA {
		t.Fatalf("want the former name held until %s, when its last certificate has ended, got %v until %s", want, held, until)
	}
	w.launch(idB, 4)
	w.isRefused(c, idA)
	w.now = until.Add(time.Second)
	w.must(c, idB, facts.Running, converge.Provisioned)
	w.wantGranted(idB)
	w.must(c, idA, facts.Running, converge.Unchanged)
}

// maxTTL is the longest max_ttl of the worker profile's PKI roles.
const maxTTL = 720 * time.Hour

func TestGrant_StopsAtForeignObjects(t *testing.T) {
	for name, row := range map[string]struct {
		path   string
		fields map[string]any
	}{
		"a policy with another deployment's marker": {policyA, marked("other", idA)},
		"a policy without a marker":                 {policyA, map[string]any{"policy": `path "x" {}`}},
		"a policy of another instance":              {policyA, marked("vault-ec2", idB)},
		"a PKI role without a record":               {pkiA, map[string]any{"allow_any_name": true}},
		"an auth role without a record":             {roleA, map[string]any{"auth_type": "ec2", "role_id": "theirs"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, c := launched(t, mayMake)
			w.Objects[row.path] = row.fields
			w.wantFault(c, w.event(idA, facts.Running), fault.Conflict, "a foreign object", row.path)
			if w.count("vault write") != 0 || w.count("vault delete") != 0 {
				t.Errorf("want nothing written, got %v", w.calls)
			}
			if r := w.Records[idA]; r.State != ledger.Refused || r.LastError == "" || len(r.Objects) != 0 {
				t.Errorf("want the refusal recorded, got %+v", r)
			}
			adopt := w.converger(mayMake, func(o *converge.Options) { o.Adopt = true })
			w.must(adopt, idA, facts.Running, converge.Provisioned)
			w.wantGranted(idA)
		})
	}
}

func TestLostLedger_IsRebuiltByOurMarkers(t *testing.T) {
	w, c := provisioned(t, mayMake)
	clear(w.Records)
	clear(w.Claims)
	w.calls = nil
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.wantGranted(idA)
	if w.count("vault write") != 0 {
		t.Errorf("want no object written that is as it should be, got %v", w.calls)
	}
}

func TestRemoval_LeavesAForeignPolicy(t *testing.T) {
	w, _ := provisioned(t, both)
	w.Objects[policyA] = marked("other", idA)
	w.logIn(idA)
	w.setState(facts.Terminated)
	w.wantFault(w.converger(mayRemove), w.event(idA, facts.Terminated), fault.Conflict, "a foreign policy", policyA)
	if w.Objects[policyA] == nil {
		t.Error("want the foreign policy left, it is deleted")
	}
	if w.Objects[roleA] != nil || w.Objects[pkiA] != nil || w.hasTokens(idA) {
		t.Errorf("want the instance's login, tokens and other objects removed, got %v, %v", w.Objects, w.Entities)
	}
	if r := w.Records[idA]; r.State != ledger.Deprovisioning || r.LastError == "" {
		t.Errorf("want the conflict recorded, got %+v", r)
	}
	if len(w.Claims) != 0 {
		t.Errorf("want the names of removed objects free, got %v", w.Claims)
	}
}

func TestName_IsHeldByOneLiveInstance(t *testing.T) {
	w, provision := provisioned(t, mayMake)
	w.launch(idB, 5)
	w.show(idB, func(f *facts.Instance) { f.PrivateDNSName = w.ec2[idA].PrivateDNSName })
	w.isRefused(provision, idA)
	if r := w.Records[idB]; r.State != ledger.Refused {
		t.Errorf("want the refusal recorded, got %+v", r)
	}
	w.setState(facts.ShuttingDown)
	w.wantFault(provision, w.event(idB, facts.Running), fault.Retry, "the successor of an ending holder waits")
	w.setState(facts.Terminated)
	w.wantFault(provision, w.event(idB, facts.Running), fault.Retry, "a function that may not remove the ended holder waits")
	w.must(w.converger(both), idB, facts.Running, converge.Provisioned)
	w.wantGranted(idB)
	w.wantNothing(idA)
}

func TestLease_OfADeadSandboxHolds(t *testing.T) {
	w, c := launched(t, mayMake)
	w.fail = func(call string) error { // the sandbox dies: none of its later calls takes effect
		if strings.HasPrefix(call, "vault write") || strings.HasPrefix(call, "ledger put") && w.count("ledger put") > 1 {
			return errDown
		}
		return nil
	}
	w.wantFault(c, w.event(idA, facts.Running), fault.Retry, "a dying sandbox")
	w.fail = nil
	if _, err := w.handle(c, idA, facts.Running); !isFault(err, fault.Retry) || !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("want the lease of the dead sandbox to hold until it runs out, got %v", err)
	}
	w.pass(ledger.LeaseTime + time.Second)
	w.must(c, idA, facts.Running, converge.Provisioned)
}

func TestLease_ExpiredStopsAllWrites(t *testing.T) {
	w, frozen := launched(t, mayMake)
	w.fail = func(call string) error {
		if strings.HasPrefix(call, "vault write alice_cluster") {
			w.now = w.now.Add(time.Hour) // frozen in the middle of the run
			w.fail = nil
		}
		return nil
	}
	w.wantFault(frozen, w.event(idA, facts.Running), fault.Retry, "the run gives up")
	if w.count("vault write "+roleA) != 0 {
		t.Errorf("want the auth role not written on a lease that has run out, got %v", w.calls)
	}
}

func TestFacts_StaleAreNotActedOn(t *testing.T) {
	w, c := launched(t, mayMake)
	f := w.ec2[idA]
	f.ObservedAt = w.now.Add(-time.Minute)
	if _, err := c.Converge(t.Context(), request(idA, facts.Running, w.now), sighting(f)); !isFault(err, fault.Retry) || w.count("vault write") != 0 {
		t.Errorf("want EC2 asked again first, got %v, %v", err, w.calls)
	}
}

func TestUnmatchedInstance_LosesItsGrant(t *testing.T) {
	w, _ := provisioned(t, both)
	w.unmatch()
	w.must(w.converger(mayMake), idA, facts.Running, converge.Unmatched)
	w.wantGranted(idA)
	w.must(w.converger(both), idA, facts.Running, converge.Deprovisioned)
	w.launch(idB, 4)
	w.wantFault(w.converger(both), w.event(idB, facts.Running), fault.Refuse, "others' use of names whose certificates are good")
	delete(w.ec2, idB)
	w.setState(facts.Terminated)
	w.must(w.converger(both), idA, facts.Terminated, converge.Unchanged)
	w.wantNothing(idA)
}

func TestLease_IsKeptAfterAnAbandonedCall(t *testing.T) {
	w, c := launched(t, mayMake)
	w.breakOff(c, w.event(idA, facts.Running), "vault write "+roleA, fmt.Errorf("writing: %w", context.DeadlineExceeded))
	w.setState(facts.Terminated)
	deprovision := w.converger(mayRemove)
	if _, err := w.handle(deprovision, idA, facts.Terminated); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("want no removal before the lease has run out, as the write may still take effect, got %v", err)
	}
	w.Objects[roleA] = map[string]any{"role_id": "late"} // it does
	w.pass(ledger.LeaseTime + time.Second)
	w.mustRemove(deprovision)
}

// The objects of a grant are written side by side. The outcome must not depend on which write fails first.
func TestGrant_CountsEachFailedWrite(t *testing.T) {
	late := fmt.Errorf("writing: %w", context.DeadlineExceeded)
	for _, row := range []struct {
		name         string
		policy, role error
	}{
		{"the policy is refused, the PKI role ran out of time", fault.Refusef("no"), late},
		{"the policy ran out of time, the PKI role is refused", late, fault.Refusef("no")},
	} {
		t.Run(row.name, func(t *testing.T) {
			w, c := launched(t, both)
			w.fail = func(call string) error {
				switch call {
				case "vault write " + policyA:
					return row.policy
				case "vault write " + pkiA:
					return row.role
				}
				return nil
			}
			w.wantFault(c, w.event(idA, facts.Running), fault.Refuse, "another try does not mend it")
			if r := w.Records[idA]; r.LeaseOwner == "" {
				t.Errorf("want the lease kept, as the write that ran out of time may still take effect, got %+v", r)
			}
		})
	}
}

func TestSighting_BeforeConflictMakesNoGrant(t *testing.T) {
	w, provision := provisioned(t, mayMake)
	seen := sighting(w.ec2[idA])
	seen.Facts.ObservedAt = w.now
	seen.Facts.PrivateDNSName = "ip-10-1-1-88.ec2.internal"
	w.pass(10 * time.Second)
	w.Objects[policyA] = map[string]any{"policy": "# of another owner"}
	w.setState(facts.Terminated)
	w.wantFault(w.converger(mayRemove), w.event(idA, facts.Terminated), fault.Conflict, "another owner's policy")
	if _, err := provision.Converge(t.Context(), request(idA, facts.Running, start), seen); !isFault(err, fault.Retry) || w.Objects[roleA] != nil {
		t.Errorf("want no grant, which would never be removed, got %v", err)
	}
}

func TestRemoval_CutsTokensOfTheFormerAuthRole(t *testing.T) {
	w, provision := provisioned(t, mayMake)
	before := w.roleID()
	w.Add(alias(before), idA)
	delete(w.Objects, roleA) // by hand, or by a restore of Vault
	w.show(idA, addAddress)
	w.must(provision, idA, facts.Running, converge.Provisioned)
	if w.roleID() == before {
		t.Fatal("want a new auth role with a new role_id: without one this test shows nothing")
	}
	w.mustEnd(w.converger(mayRemove))
	if w.hasTokens(before) {
		t.Error("want the entity of the former auth role deleted, and its tokens with it")
	}
	if ids := w.Records[idA].FormerRoleIDs; len(ids) != 2 {
		t.Errorf("want both role_ids in the tombstone, by which reconcile finds a late login, got %q", ids)
	}
}

func TestRemoval_SecondCutEndsALateLogin(t *testing.T) {
	for name, arrange := range map[string]func(*world){
		"where the auth role gives other policies": func(w *world) {
			w.edit(func(r *ledger.Record) { r.ExtraPolicies = true })
		},
		"where one was found": func(w *world) {
			w.fail = func(call string) error {
				if strings.HasPrefix(call, "vault delete auth/aws/identity-accesslist") {
					w.logIn(idA) // a login in flight ends here, before the second cut
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := provisioned(t, both)
			w.setState(facts.Terminated)
			arrange(w)
			c := w.converger(mayRemove)
			out, err := w.handle(c, idA, facts.Terminated)
			if !isFault(err, fault.Retry) || !errors.Is(err, converge.ErrUnfinished) || out.Action != converge.Deprovisioned {
				t.Fatalf("want the grant removed and a second cut left to do, got %+v, %v", out, err)
			}
			w.fail = nil
			if len(w.Objects) != 0 || len(w.Claims) != 0 || w.Records[idA].LeaseOwner != "" {
				t.Errorf("want everything removed at once, got %v, %v", w.Objects, w.Claims)
			}
			w.logIn(idA) // another late login
			w.pass(time.Minute)
			w.calls = nil
			if _, err := w.handle(c, idA, facts.Terminated); !errors.Is(err, converge.ErrUnfinished) || w.count("vault") != 0 {
				t.Errorf("want logins in flight awaited without a call, got %v, %v", err, w.calls)
			}
			w.pass(time.Minute)
			w.mustRemove(c)
		})
	}
}

// Anyone who can write the ledger could otherwise have a changed grant remove another instance's objects.
func TestGrant_LeavesForgedPathsOfItsRecordAlone(t *testing.T) {
	for kind, path := range map[grant.Kind]string{grant.KindPKIRole: pkiA, grant.KindAuthRole: roleA} {
		for name, duties := range map[string]converge.Duties{"provision": mayMake, "reconcile": both} {
			w, c := provisioned(t, duties)
			forged := strings.ReplaceAll(path, idA, idB)
			w.Objects[forged] = map[string]any{"of": idB}
			w.edit(func(r *ledger.Record) { r.Objects = append(r.Objects, ledger.Object{Kind: kind, Path: forged}) })
			w.show(idA, addAddress)
			w.wantFault(c, w.event(idA, facts.Running), fault.Conflict, name, forged)
			if w.Objects[forged]["of"] != idB {
				t.Errorf("%s, by %s: want %s left as it was: it is another instance's, got %v", kind, name, forged, w.Objects[forged])
			}
		}
	}
}
