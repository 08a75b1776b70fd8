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
)

const (
	policyA = "sys/policies/acl/ec2-" + idA + "-node"
	roleA   = "auth/aws/role/" + idA
	pkiA    = "alice_cluster/pki/k8s/roles/" + idA + "-kubelet"
)

func TestARunningInstanceGetsItsGrantInOrder(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.must(w.converger(converge.Duties{Make: true}), idA, facts.Running, converge.Provisioned)
	if err := w.granted(idA); err != nil {
		t.Fatal(err)
	}
	intent, active := w.index("ledger put provisioning"), w.index("ledger put active")
	first, login := w.index("vault write"), w.index("vault write "+roleA)
	if intent > first || first > login || w.lastIndex("vault write") != login || login > active {
		t.Errorf("want the intent before the first object, the auth role last of all objects, then active; got\n%s", strings.Join(w.calls, "\n"))
	}
	for call, want := range map[string]int{
		"ec2": 1, "ledger get": 1, "ledger put": 2, "vault write": 4,
		"vault read": 8, // one look for each path before it is first written, one read-back after
	} {
		if got := w.count(call); got != want {
			t.Errorf("%s: %d calls, want %d\n%s", call, got, want, strings.Join(w.calls, "\n"))
		}
	}
}

func TestARepeatedEventForAnUnchangedInstanceTouchesVaultNotAtAll(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(converge.Duties{Make: true})
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.calls = nil
	w.must(c, idA, facts.Running, converge.Unchanged)
	if w.count("vault") != 0 || w.count("ledger put") != 0 || w.count("ledger get") != 1 {
		t.Errorf("want one ledger read and nothing else, got %v", w.calls)
	}
}

func TestATerminatedInstanceLosesAllInOrder(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.must(w.converger(converge.Duties{Make: true}), idA, facts.Running, converge.Provisioned)
	w.logIn(idA, w.Records[idA].RoleID(roleA))
	w.setState(facts.Terminated)
	w.calls = nil
	c := w.converger(converge.Duties{Remove: true}, func(o *converge.Options) { o.RevokeCertificates = true })
	out, err := w.handle(c, idA, facts.Terminated)
	if err != nil || out.Action != converge.Deprovisioned || out.Cut != 2 {
		t.Fatalf("got %+v, %v", out, err)
	}
	if err := w.nothing(idA); err != nil {
		t.Fatal(err)
	}
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
		t.Errorf("want issue and sign of both PKI roles revoked, got %v", w.calls)
	}
	w.calls = nil
	w.must(c, idA, facts.Terminated, converge.Unchanged)
	if w.count("vault") != 0 {
		t.Errorf("a repeated event must not touch Vault: %v", w.calls)
	}
}

func TestWhatEC2SaysDecidesAndNotTheEvent(t *testing.T) {
	for name, row := range map[string]struct {
		event  facts.State
		state  facts.State // "" is absent from EC2's answer
		duties converge.Duties
		change func(*converge.Options)
		want   converge.Action
		kind   fault.Kind
		left   bool // the grant that was there before is still there
	}{
		"terminated by a new event, still running by EC2": {facts.Terminated, facts.Running, converge.Duties{Remove: true}, nil, "", fault.Retry, true},
		"terminated by the event, shutting down by EC2":   {facts.Terminated, facts.ShuttingDown, converge.Duties{Remove: true}, nil, converge.Deprovisioned, 0, false},
		"running by a new event, still stopped by EC2":    {facts.Running, facts.Stopped, both, nil, "", fault.Retry, true},
		"running by the event, terminated by EC2":         {facts.Running, facts.Terminated, converge.Duties{Remove: true}, nil, converge.Deprovisioned, 0, false},
		"the same, by a function that may not remove":     {facts.Running, facts.Terminated, converge.Duties{Make: true}, nil, converge.LeftAlone, 0, true},
		"stopped":                             {facts.Stopped, facts.Stopped, both, nil, converge.LeftAlone, 0, true},
		"stopping":                            {facts.Stopping, facts.Stopping, both, nil, converge.LeftAlone, 0, true},
		"shutting down":                       {facts.ShuttingDown, facts.ShuttingDown, both, nil, converge.LeftAlone, 0, true},
		"shutting down where that is the end": {facts.ShuttingDown, facts.ShuttingDown, both, func(o *converge.Options) { o.OnShuttingDown = true }, converge.Deprovisioned, 0, false},
		"terminated by the event, absent from EC2":           {facts.Terminated, "", both, nil, converge.Deprovisioned, 0, false},
		"running by a new event, absent from EC2":            {facts.Running, "", both, nil, "", fault.Retry, true},
		"running and unchanged by a function that both does": {facts.Running, facts.Running, both, nil, converge.Unchanged, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.launch(idA, 4)
			w.must(w.converger(both), idA, facts.Running, converge.Provisioned)
			w.setState(row.state)
			if row.state == "" {
				delete(w.ec2, idA)
			}
			var change []func(*converge.Options)
			if row.change != nil {
				change = append(change, row.change)
			}
			out, err := w.handle(w.converger(row.duties, change...), idA, row.event)
			if out.Action != row.want || (err != nil) != (row.want == "") || err != nil && fault.KindOf(err) != row.kind {
				t.Fatalf("got %q, %v, want %q", out.Action, err, row.want)
			}
			if left := w.granted(idA) == nil; left != row.left {
				t.Errorf("grant left: %v, want %v", left, row.left)
			}
		})
	}
}

func TestAnOldEventThatEC2ContradictsDeletesNothing(t *testing.T) {
	for name, row := range map[string]struct {
		told   facts.State
		absent bool
	}{
		"running by the event, absent from EC2":     {facts.Running, true},
		"terminated by the event, running by EC2":   {facts.Terminated, false},
		"shutting down by the event, still running": {facts.ShuttingDown, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.launch(idA, 4)
			w.must(w.converger(both), idA, facts.Running, converge.Provisioned)
			if row.absent {
				delete(w.ec2, idA)
			}
			old := w.now
			w.now = w.now.Add(time.Hour)
			out, err := w.handleAt(w.converger(converge.Duties{Remove: true}), trigger(idA, row.told, old))
			if err != nil || out.Action != converge.LeftAlone {
				t.Errorf("got %q, %v: what only an old event says is for reconcile to judge", out.Action, err)
			}
			if err := w.granted(idA); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnEventFromAnotherPlaceDoesNotEndAnInstance(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.must(w.converger(both), idA, facts.Running, converge.Provisioned)
	elsewhere := trigger(idA, facts.Terminated, w.now)
	elsewhere.Region = "eu-central-1" // where EC2, rightly, does not know it
	_, err := w.handleAt(w.converger(both), elsewhere)
	if fault.KindOf(err) != fault.Refuse || !strings.Contains(fmt.Sprint(err), "eu-central-1") {
		t.Errorf("want a refusal that names the place, got %v", err)
	}
	if err := w.granted(idA); err != nil {
		t.Error(err)
	}

	f := w.ec2[idA]
	f.IAMRoleARN = "arn:aws:iam::123456789012:role/other" // it lives on without a grant, with certificates that are good
	w.ec2[idA] = f
	w.must(w.converger(both), idA, facts.Running, converge.Deprovisioned)
	names := func() []ledger.Name { r := w.Records[idA]; return r.Names() }
	kept := names()
	if _, err := w.handleAt(w.converger(both), elsewhere); fault.KindOf(err) != fault.Refuse || len(kept) == 0 || !slices.Equal(names(), kept) {
		t.Errorf("want the names %v kept from one who waits for them, got %v, %v", kept, names(), err)
	}
}

func TestALookFromBeforeTheRemovalMakesNoGrant(t *testing.T) {
	for name, known := range map[string]bool{"of an instance that was granted something": true, "of one the ledger does not know": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			f := w.launch(idA, 4)
			provision, deprovision := w.converger(converge.Duties{Make: true}), w.converger(converge.Duties{Remove: true})
			if known {
				w.must(provision, idA, facts.Running, converge.Provisioned)
			}
			seen := sighting(f)
			seen.Facts.ObservedAt = w.now // the instance runs, and provision is slow
			w.now = w.now.Add(10 * time.Second)
			w.setState(facts.Terminated)
			if _, err := w.handle(deprovision, idA, facts.Terminated); err != nil {
				t.Fatal(err)
			}
			_, err := provision.Converge(t.Context(), trigger(idA, facts.Running, start), seen)
			if fault.KindOf(err) != fault.Retry || len(w.Objects) != 0 {
				t.Errorf("a grant for an instance that is gone would never be removed; got %v, objects %v", err, w.Objects)
			}
		})
	}
}

func TestAnAuthRoleOnTheFormerMountGoesWithTheInstanceAtTheLatest(t *testing.T) {
	for name, duties := range map[string]converge.Duties{"by a function that may remove": both, "by one that may not": {Make: true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.launch(idA, 4)
			w.must(w.converger(both), idA, facts.Running, converge.Provisioned)
			moved := func(o *converge.Options) { o.Realm.AuthMount = "fleet" }
			w.must(w.converger(duties, moved), idA, facts.Running, converge.Provisioned)
			if w.Objects["auth/fleet/role/"+idA] == nil || (w.Objects[roleA] == nil) != duties.Remove {
				t.Errorf("got %v", w.Records[idA].Objects)
			}
			w.must(w.converger(duties, moved), idA, facts.Running, converge.Unchanged)
			w.setState(facts.Terminated)
			w.must(w.converger(converge.Duties{Remove: true}, moved), idA, facts.Terminated, converge.Deprovisioned)
			if err := w.nothing(idA); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnUnknownObjectAtANewPathIsNotOverwrittenBecauseTheRestIsOurs(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	c := w.converger(converge.Duties{Make: true})
	w.must(c, idA, facts.Running, converge.Provisioned)
	r := w.Records[idA]
	r.Objects = append(r.Objects[:1:1], r.Objects[2:]...) // as if the profile had gained the kubelet's role
	w.Records[idA] = r
	w.Objects[pkiA] = map[string]any{"allow_any_name": true}
	f.IPv4s = append(f.IPv4s, netip.MustParseAddr("10.1.1.77"))
	w.ec2[idA] = f
	if _, err := w.handle(c, idA, facts.Running); fault.KindOf(err) != fault.Conflict || !strings.Contains(fmt.Sprint(err), pkiA) {
		t.Errorf("want a conflict that names %s, got %v", pkiA, err)
	}
	if w.Objects[pkiA]["allow_any_name"] != true {
		t.Error("it was overwritten")
	}
}

func TestAnErrorThatHasPassedIsForgotten(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	c := w.converger(converge.Duties{Make: true})
	w.must(c, idA, facts.Running, converge.Provisioned)
	bad := f
	bad.PrivateDNSName = "ip_bad"
	w.ec2[idA] = bad
	if _, err := w.handle(c, idA, facts.Running); fault.KindOf(err) != fault.Refuse || w.Records[idA].LastError == "" || w.Records[idA].State != ledger.Active {
		t.Fatalf("want the refusal noted beside what stands, got %v, %+v", err, w.Records[idA])
	}
	w.ec2[idA] = f
	w.must(c, idA, facts.Running, converge.Unchanged)
	if w.Records[idA].LastError != "" {
		t.Error("the error that has passed is still in the record")
	}
}

func TestAPendingInstanceWithoutANameIsLeftToTheNextEvent(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	f.State, f.PrivateDNSName = facts.Pending, ""
	w.ec2[idA] = f
	c := w.converger(converge.Duties{Make: true})
	w.must(c, idA, facts.Pending, converge.NotYet)
	f.State = facts.Running
	w.ec2[idA] = f
	_, err := w.handle(c, idA, facts.Running)
	if fault.KindOf(err) != fault.Retry || !errors.Is(err, grant.ErrNotYet) {
		t.Errorf("a running instance without a name must be tried again, got %v", err)
	}
	if len(w.Objects)+len(w.Records) != 0 {
		t.Errorf("nothing may be made of half the facts: %v, %v", w.Objects, w.Records)
	}
}

func TestRename_KeepsTheFormerNamesWhileCertificatesLive(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	c := w.converger(converge.Duties{Make: true})
	w.must(c, idA, facts.Running, converge.Provisioned)
	roleID := w.Records[idA].RoleID(roleA)
	f.PrivateDNSName, f.IPv4s = "ip-10-1-1-99.ec2.internal", []netip.Addr{netip.MustParseAddr("10.1.1.99")}
	w.ec2[idA] = f
	w.calls = nil
	w.must(c, idA, facts.Running, converge.Provisioned)
	if err := w.granted(idA); err != nil {
		t.Fatal(err)
	}
	if w.Records[idA].RoleID(roleA) != roleID {
		t.Error("an auth role that is overwritten keeps its role_id, and with it its entity")
	}
	if got := w.count("vault write"); got != 3 {
		t.Errorf("kube-proxy's role did not change: want 3 writes, got %d: %v", got, w.calls)
	}
	former := ledger.Name{Under: "alice_cluster", Text: "ip-10-1-1-4.ec2.internal"}
	record := w.Records[idA]
	until, held := record.HeldUntil(former)
	if want := w.now.Add(maxTTL); !held || !until.Equal(want) || w.Claims[former].InstanceID != idA {
		t.Fatalf("want the former name held until %s, when its last certificate has ended, got %v until %s", want, held, until)
	}
	evil := w.launch(idB, 4)
	if _, err := w.handle(c, evil.ID, facts.Running); fault.KindOf(err) != fault.Refuse || !strings.Contains(fmt.Sprint(err), idA) {
		t.Errorf("want another instance refused the former name of a live one, with the holder named, got %v", err)
	}
	w.now = until.Add(time.Second)
	w.must(c, evil.ID, facts.Running, converge.Provisioned)
	if err := w.granted(idB); err != nil {
		t.Errorf("once the last certificate has ended the name is free: %v", err)
	}
	w.must(c, idA, facts.Running, converge.Unchanged)
}

// maxTTL is the longest max_ttl of the worker profile's PKI roles.
const maxTTL = 720 * time.Hour

func TestObjectsOfSomebodyElseAreLeftAloneAndNothingIsMade(t *testing.T) {
	foreign := grant.Marker{Deployment: "other", InstanceID: idA, Profile: "a-b"}.String()
	for name, row := range map[string]struct {
		path   string
		fields map[string]any
	}{
		"a policy with another deployment's marker": {policyA, map[string]any{"policy": foreign}},
		"a policy without a marker":                 {policyA, map[string]any{"policy": `path "x" {}`}},
		"a policy of another instance":              {policyA, map[string]any{"policy": grant.Marker{Deployment: "vault-ec2", InstanceID: idB, Profile: "a-b"}.String()}},
		"a PKI role the ledger does not know":       {pkiA, map[string]any{"allow_any_name": true}},
		"an auth role the ledger does not know":     {roleA, map[string]any{"auth_type": "ec2", "role_id": "theirs"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.launch(idA, 4)
			w.Objects[row.path] = row.fields
			_, err := w.handle(w.converger(converge.Duties{Make: true}), idA, facts.Running)
			if fault.KindOf(err) != fault.Conflict || !strings.Contains(fmt.Sprint(err), row.path) {
				t.Fatalf("want a conflict that names %s, got %v", row.path, err)
			}
			if w.count("vault write") != 0 || w.count("vault delete") != 0 {
				t.Errorf("nothing may be written: %v", w.calls)
			}
			if r := w.Records[idA]; r.State != ledger.Refused || r.LastError == "" || len(r.Objects) != 0 {
				t.Errorf("want the refusal recorded, got %+v", r)
			}
			adopt := w.converger(converge.Duties{Make: true}, func(o *converge.Options) { o.Adopt = true })
			w.must(adopt, idA, facts.Running, converge.Provisioned)
			if err := w.granted(idA); err != nil {
				t.Errorf("adopt takes them over: %v", err)
			}
		})
	}
}

func TestALostLedgerIsRebuiltWhereThePoliciesBearOurMarker(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(converge.Duties{Make: true})
	w.must(c, idA, facts.Running, converge.Provisioned)
	clear(w.Records)
	clear(w.Claims)
	w.calls = nil
	w.must(c, idA, facts.Running, converge.Provisioned)
	if err := w.granted(idA); err != nil {
		t.Fatal(err)
	}
	if w.count("vault write") != 0 {
		t.Errorf("what is there as it should be is not written again: %v", w.calls)
	}
}

func TestAPolicyThatWasTakenOverIsNotDeletedWithTheRest(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.must(w.converger(both), idA, facts.Running, converge.Provisioned)
	w.Objects[policyA] = map[string]any{"policy": grant.Marker{Deployment: "other", InstanceID: idA, Profile: "a-b"}.String()}
	w.logIn(idA)
	w.setState(facts.Terminated)
	_, err := w.handle(w.converger(converge.Duties{Remove: true}), idA, facts.Terminated)
	if fault.KindOf(err) != fault.Conflict || !strings.Contains(fmt.Sprint(err), policyA) {
		t.Fatalf("want a conflict that names the policy, got %v", err)
	}
	if w.Objects[policyA] == nil {
		t.Error("the foreign policy is gone")
	}
	if w.Objects[roleA] != nil || w.Objects[pkiA] != nil || w.hasTokens(idA) {
		t.Error("the instance must lose its login, its tokens and the rest all the same")
	}
	if r := w.Records[idA]; r.State != ledger.Deprovisioning || r.LastError == "" {
		t.Errorf("want the conflict recorded, got %+v", r)
	}
	if len(w.Claims) != 0 {
		t.Errorf("nothing of ours bears the name any more, and yet it is held: %v", w.Claims)
	}
}

func TestANameIsHeldByOneLiveInstanceOnly(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	b := w.launch(idB, 5)
	b.PrivateDNSName = w.ec2[idA].PrivateDNSName
	w.ec2[idB] = b
	provision := w.converger(converge.Duties{Make: true})
	w.must(provision, idA, facts.Running, converge.Provisioned)
	_, err := w.handle(provision, idB, facts.Running)
	if fault.KindOf(err) != fault.Refuse || !strings.Contains(fmt.Sprint(err), idA) {
		t.Fatalf("want the second refused, naming the holder, got %v", err)
	}
	if r := w.Records[idB]; r.State != ledger.Refused {
		t.Errorf("want the refusal recorded, got %+v", r)
	}
	w.setState(facts.ShuttingDown)
	if _, err = w.handle(provision, idB, facts.Running); fault.KindOf(err) != fault.Retry {
		t.Errorf("the holder is on its way out: its successor waits and is not refused, got %v", err)
	}
	w.setState(facts.Terminated)
	_, err = w.handle(provision, idB, facts.Running)
	if fault.KindOf(err) != fault.Retry {
		t.Errorf("the holder is gone but not removed: a function that may not remove waits, got %v", err)
	}
	w.must(w.converger(both), idB, facts.Running, converge.Provisioned)
	if err := errors.Join(w.granted(idB), w.nothing(idA)); err != nil {
		t.Error(err)
	}
}

func TestWhoeverHoldsTheLeaseWorksAlone(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(converge.Duties{Make: true})
	w.fail = func(_ int, call string) (error, bool) { // the sandbox dies: nothing more of it gets through
		if strings.HasPrefix(call, "vault write") || strings.HasPrefix(call, "ledger put") && w.count("ledger put") > 1 {
			return errDown, false
		}
		return nil, false
	}
	if _, err := w.handle(c, idA, facts.Running); err == nil {
		t.Fatal("want an error")
	}
	w.fail = nil
	_, err := w.handle(c, idA, facts.Running)
	if !errors.Is(err, ledger.ErrChanged) || fault.KindOf(err) != fault.Retry {
		t.Errorf("the lease of the dead holds until it runs out, got %v", err)
	}
	w.now = w.now.Add(ledger.LeaseTime + time.Second)
	w.must(c, idA, facts.Running, converge.Provisioned)
}

func TestASandboxThatWakesAfterItsLeaseWasLostWritesNothingMore(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	frozen := w.converger(converge.Duties{Make: true})
	w.fail = func(_ int, call string) (error, bool) {
		if strings.HasPrefix(call, "vault write alice_cluster") {
			w.now = w.now.Add(time.Hour) // frozen in the middle of the run
			w.fail = nil
		}
		return nil, false
	}
	_, err := w.handle(frozen, idA, facts.Running)
	if fault.KindOf(err) != fault.Retry {
		t.Fatalf("want it to give up, got %v", err)
	}
	if w.count("vault write "+roleA) != 0 {
		t.Errorf("the auth role was written on a lease that had run out: %v", w.calls)
	}
}

func TestFactsThatAreOldAreNotActedOn(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	f.ObservedAt = w.now.Add(-time.Minute)
	c := w.converger(converge.Duties{Make: true})
	_, err := c.Converge(t.Context(), trigger(idA, facts.Running, w.now), sighting(f))
	if fault.KindOf(err) != fault.Retry || w.count("vault write") != 0 {
		t.Errorf("want another look at EC2 first, got %v, %v", err, w.calls)
	}
}

func TestALiveInstanceThatNoProfileFitsLosesItsGrantToAFunctionThatMayRemove(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	w.must(w.converger(both), idA, facts.Running, converge.Provisioned)
	f.IAMRoleARN = "arn:aws:iam::123456789012:role/other"
	w.ec2[idA] = f
	w.must(w.converger(converge.Duties{Make: true}), idA, facts.Running, converge.Unmatched)
	if err := w.granted(idA); err != nil {
		t.Error(err)
	}
	w.must(w.converger(both), idA, facts.Running, converge.Deprovisioned)
	w.launch(idB, 4)
	if _, err := w.handle(w.converger(both), idB, facts.Running); fault.KindOf(err) != fault.Refuse {
		t.Errorf("it lives on with certificates for its names: want them refused to others, got %v", err)
	}
	delete(w.ec2, idB)
	w.setState(facts.Terminated)
	w.must(w.converger(both), idA, facts.Terminated, converge.Unchanged)
	if err := w.nothing(idA); err != nil {
		t.Error(err)
	}
}

func TestACallThatWasGivenUpOnKeepsTheLease(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.fail = func(_ int, call string) (error, bool) {
		if strings.HasPrefix(call, "vault write "+roleA) {
			return fmt.Errorf("writing: %w", context.DeadlineExceeded), false
		}
		return nil, false
	}
	if _, err := w.handle(w.converger(converge.Duties{Make: true}), idA, facts.Running); err == nil {
		t.Fatal("want an error")
	}
	w.fail = nil
	w.setState(facts.Terminated)
	deprovision := w.converger(converge.Duties{Remove: true})
	if _, err := w.handle(deprovision, idA, facts.Terminated); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("the write may still land: nobody may remove before the lease has run out, got %v", err)
	}
	w.Objects[roleA] = map[string]any{"role_id": "late"} // and there it is
	w.now = w.now.Add(ledger.LeaseTime + time.Second)
	w.must(deprovision, idA, facts.Terminated, converge.Deprovisioned)
	if err := w.nothing(idA); err != nil {
		t.Error(err)
	}
}

// The objects of a grant are written side by side: what becomes of it must not hang on which write fails first.
func TestOfSeveralWritesThatFailEachCounts(t *testing.T) {
	late := fmt.Errorf("writing: %w", context.DeadlineExceeded)
	for _, row := range []struct {
		name         string
		policy, role error
	}{
		{"the policy is refused, the PKI role ran out of time", fault.Refusef("no"), late},
		{"the policy ran out of time, the PKI role is refused", late, fault.Refusef("no")},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := newWorld(t)
			w.launch(idA, 4)
			w.fail = func(_ int, call string) (error, bool) {
				switch call {
				case "vault write " + policyA:
					return row.policy, false
				case "vault write " + pkiA:
					return row.role, false
				}
				return nil, false
			}
			_, err := w.handle(w.converger(both), idA, facts.Running)
			if fault.KindOf(err) != fault.Refuse {
				t.Errorf("want a refusal, which trying again does not mend, got %s: %v", fault.KindOf(err), err)
			}
			if r := w.Records[idA]; r.LeaseOwner == "" {
				t.Errorf("the write that ran out of time may still land: want the lease kept, got %+v", r)
			}
		})
	}
}

func TestALookFromBeforeARemovalThatEndedInConflictMakesNoGrant(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	provision := w.converger(converge.Duties{Make: true})
	w.must(provision, idA, facts.Running, converge.Provisioned)
	seen := sighting(f)
	seen.Facts.ObservedAt = w.now
	seen.Facts.PrivateDNSName = "ip-10-1-1-88.ec2.internal"
	w.now = w.now.Add(10 * time.Second)
	w.Objects[policyA] = map[string]any{"policy": "somebody else's"}
	w.setState(facts.Terminated)
	if _, err := w.handle(w.converger(converge.Duties{Remove: true}), idA, facts.Terminated); fault.KindOf(err) != fault.Conflict {
		t.Fatalf("want a conflict, got %v", err)
	}
	if _, err := provision.Converge(t.Context(), trigger(idA, facts.Running, start), seen); fault.KindOf(err) != fault.Retry || w.Objects[roleA] != nil {
		t.Errorf("a grant for an instance that is gone would never be removed; got %v", err)
	}
}

func TestTokensFromAnAuthRoleThatWasMadeAnewAreCutToo(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	provision := w.converger(converge.Duties{Make: true})
	w.must(provision, idA, facts.Running, converge.Provisioned)
	before := w.Records[idA].RoleID(roleA)
	w.Add(alias(before), idA)
	delete(w.Objects, roleA) // by a hand, or by a restore of Vault
	f.IPv4s = append(f.IPv4s, netip.MustParseAddr("10.1.1.77"))
	w.ec2[idA] = f
	w.must(provision, idA, facts.Running, converge.Provisioned)
	if w.Records[idA].RoleID(roleA) == before {
		t.Fatal("the new auth role has the old role_id: nothing is tried here")
	}
	w.setState(facts.Terminated)
	w.must(w.converger(converge.Duties{Remove: true}), idA, facts.Terminated, converge.Deprovisioned)
	if w.hasTokens(before) {
		t.Error("the entity of the former auth role lives on, and its tokens with it")
	}
	if ids := w.Records[idA].FormerRoleIDs; len(ids) != 2 {
		t.Errorf("the tombstone remembers %q, want both role_ids: by them reconcile knows a login that ended late", ids)
	}
}

func TestALoginThatEndsAfterTheRemovalIsCutByASecondOne(t *testing.T) {
	for name, arrange := range map[string]func(*world){
		"where policies besides the instance's own would outlive it": func(w *world) {
			r := w.Records[idA]
			r.ExtraPolicies = true
			w.Records[idA] = r
		},
		"where one was seen": func(w *world) {
			w.fail = func(_ int, call string) (error, bool) {
				if strings.HasPrefix(call, "vault delete auth/aws/identity-accesslist") {
					w.logIn(idA) // the login ends here, before the second cut
				}
				return nil, false
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.launch(idA, 4)
			w.must(w.converger(both), idA, facts.Running, converge.Provisioned)
			w.setState(facts.Terminated)
			arrange(w)
			c := w.converger(converge.Duties{Remove: true})
			out, err := w.handle(c, idA, facts.Terminated)
			if !errors.Is(err, converge.ErrUnfinished) || fault.KindOf(err) != fault.Retry || out.Action != converge.Deprovisioned {
				t.Fatalf("want it removed and to be looked after once more, got %+v, %v", out, err)
			}
			w.fail = nil
			if len(w.Objects) != 0 || len(w.Claims) != 0 || w.Records[idA].LeaseOwner != "" {
				t.Errorf("all must be gone at once: %v, %v", w.Objects, w.Claims)
			}
			w.logIn(idA) // another that took its time
			w.now = w.now.Add(time.Minute)
			w.calls = nil
			if _, err := w.handle(c, idA, facts.Terminated); !errors.Is(err, converge.ErrUnfinished) || w.count("vault") != 0 {
				t.Errorf("a login may still be under way: it is waited for without a call, got %v, %v", err, w.calls)
			}
			w.now = w.now.Add(time.Minute)
			w.must(c, idA, facts.Terminated, converge.Deprovisioned)
			if err := w.nothing(idA); err != nil {
				t.Error(err)
			}
		})
	}
}
