package converge_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const k8s = "alice_cluster/pki/k8s"

// isRefused fails unless instance B is refused with a message that says all of it, and holds nothing.
func (w *world) isRefused(c *converge.Converger, says ...string) {
	w.t.Helper()
	_, err := w.handle(c, idB, facts.Running)
	if fault.KindOf(err) != fault.Refuse {
		w.t.Fatalf("want %s refused, got %v", idB, err)
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			w.t.Errorf("want the refusal to say %q, got %v", text, err)
		}
	}
	for name, claim := range w.Claims {
		if claim.InstanceID == idB {
			w.t.Errorf("refused, and %s is claimed: names are claimed all or none", name)
		}
	}
}

func TestAddress_IsHeldByOneLiveInstanceOnly(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(converge.Duties{Make: true})
	w.must(c, idA, facts.Running, converge.Provisioned)
	evil := w.launch(idB, 5)
	evil.IPv4s = append(evil.IPv4s, netip.MustParseAddr("10.1.1.4"))
	w.ec2[idB] = evil
	w.isRefused(c, "10.1.1.4", k8s, idA, "running")
	w.setState(facts.Terminated)
	w.must(w.converger(converge.Duties{Remove: true}), idA, facts.Terminated, converge.Deprovisioned)
	w.must(c, idB, facts.Running, converge.Provisioned)
}

func TestNames_OfSeveralHoldersAreTakenOverAndTold(t *testing.T) {
	w := newWorld(t)
	const idC = "i-0123456789abcdef2"
	c := w.converger(both)
	w.launch(idA, 4)
	other := w.launch(idC, 6)
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.must(c, idC, facts.Running, converge.Provisioned)
	for _, id := range []string{idA, idC} {
		f := w.ec2[id]
		f.State = facts.Terminated
		w.ec2[id] = f
	}
	next := w.launch(idB, 4) // the one's name and address, and the other's address
	next.IPv4s = append(next.IPv4s, other.IPv4s...)
	w.ec2[idB] = next
	done, err := w.handle(c, idB, facts.Running)
	if err != nil || done.Action != converge.Provisioned {
		t.Fatalf("want both holders removed and the instance granted, got %+v, %v", done, err)
	}
	told := map[string]bool{}
	for _, o := range done.RemovedHolders {
		told[o.ID] = o.Outcome.Action == converge.Deprovisioned && len(o.Outcome.Paths) == 4 && o.Account == "123456789012"
	}
	if len(told) != 2 || !told[idA] || !told[idC] {
		t.Errorf("want both removals handed up to be told, got %+v", done.RemovedHolders)
	}
	for _, id := range []string{idA, idC} {
		if err := w.nothing(id); err != nil {
			t.Error(err)
		}
	}
	if err := w.granted(idB); err != nil {
		t.Error(err)
	}
}

// What a removal leaves to do later belongs to the instance that was removed.
func TestTakeOver_LeavesTheWaitingToTheHolder(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	r := w.Records[idA]
	r.ExtraPolicies = true
	w.Records[idA] = r
	w.setState(facts.Terminated)
	w.launch(idB, 4)
	done, err := w.handle(c, idB, facts.Running)
	if err != nil || done.Action != converge.Provisioned {
		t.Fatalf("want the name free at once, got %+v, %v", done, err)
	}
	if len(done.RemovedHolders) != 1 || !done.RemovedHolders[0].Unfinished || done.RemovedHolders[0].ID != idA {
		t.Errorf("want the holder told as one to look after again, got %+v", done.RemovedHolders)
	}
	w.now = w.now.Add(2 * time.Minute)
	w.must(c, idA, facts.Terminated, converge.Deprovisioned)
	if err := w.nothing(idA); err != nil {
		t.Error(err)
	}
}

func TestFirstGrant_NeverRestsOnARememberedRole(t *testing.T) {
	const other = "arn:aws:iam::123456789012:role/other"
	for name, granted := range map[string]bool{"a first grant": false, "a grant that stands": true} {
		w := newWorld(t)
		f := w.launch(idA, 4)
		c := w.converger(converge.Duties{Make: true})
		if granted {
			w.must(c, idA, facts.Running, converge.Provisioned)
		}
		remembered := f
		remembered.ObservedAt, remembered.RoleObservedAt = w.now, w.now.Add(-time.Minute)
		remembered.IPv4s = append(remembered.IPv4s, netip.MustParseAddr("10.1.1.9")) // something to write
		f.IAMRoleARN = other
		w.ec2[idA] = f
		w.calls = nil
		done, err := c.Converge(t.Context(), trigger(idA, facts.Running, w.now), sighting(remembered))
		if want := map[bool]converge.Action{false: converge.Unmatched, true: converge.Provisioned}[granted]; err != nil || done.Action != want {
			t.Errorf("%s: want %s, got %+v, %v: a role that was swapped would give what it had", name, want, done, err)
		}
		if asked := w.count("ec2 role"); asked != map[bool]int{false: 1, true: 0}[granted] {
			t.Errorf("%s: IAM was asked %d times", name, asked)
		}
	}
}

func TestPKIMount_OfAnotherDeploymentGetsNoFirstGrant(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.launch(idB, 5)
	c := w.converger(converge.Duties{Make: true})
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.owners = map[string]string{k8s: "other"}
	w.isRefused(c, k8s, "other", "vault-ec2", "base_path")
	w.must(c, idA, facts.Running, converge.Unchanged) // what stands goes on
	w.owners = map[string]string{k8s: "vault-ec2"}
	w.must(c, idB, facts.Running, converge.Provisioned)
}

func TestFormerNames_CountForTheLedgersBound(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	c := w.converger(converge.Duties{Make: true})
	w.must(c, idA, facts.Running, converge.Provisioned)
	var err error
	renames := 0
	for err == nil {
		renames++
		f.PrivateDNSName, f.IPv4s = fmt.Sprintf("ip-10-2-0-%d.ec2.internal", renames), []netip.Addr{netip.AddrFrom4([4]byte{10, 2, 0, byte(renames)})}
		w.ec2[idA] = f
		_, err = w.handle(c, idA, facts.Running)
	}
	if r := w.Records[idA]; fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "100 names and addresses, 96 of them from earlier grants") || len(r.Names()) > grant.MaxClaims {
		t.Fatalf("want a rename refused before its names cannot be given up in one transaction, got %v with %d names after %d", err, len(r.Names()), renames)
	}
	w.now = w.now.Add(maxTTL + time.Hour) // the former names' last certificates have ended
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.setState(facts.Terminated)
	w.must(w.converger(converge.Duties{Remove: true}), idA, facts.Terminated, converge.Deprovisioned)
	if err := w.nothing(idA); err != nil {
		t.Error(err)
	}
}

// TestNames_AreDatedWhenNothingIssuesAnyMore has the removal of an instance that lives on without a grant stay open for as
// long as a certificate is good.
func TestNames_AreDatedWhenNothingIssuesAnyMore(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	f.IAMRoleARN = "arn:aws:iam::123456789012:role/other"
	w.ec2[idA] = f
	w.fail = func(_ int, call string) (error, bool) {
		if strings.HasPrefix(call, "vault delete") {
			return errDown, false
		}
		return nil, false
	}
	if _, err := w.handle(c, idA, facts.Running); err == nil {
		t.Fatal("want an error")
	}
	w.fail = nil
	w.now = w.now.Add(maxTTL + time.Hour)
	w.launch(idB, 4)
	w.isRefused(w.converger(converge.Duties{Make: true}), "ip-10-1-1-4.ec2.internal", idA, "once that one is gone")
	w.must(c, idA, facts.Running, converge.Deprovisioned)
	record := w.Records[idA]
	for _, name := range record.Names() {
		if until, _ := record.HeldUntil(name); !until.Equal(w.now.Add(maxTTL)) {
			t.Errorf("want %v held for %s from the cut on, got until %s", name, maxTTL, until)
		}
	}
	if end := time.Unix(record.ExpiresAt, 0); end.Before(w.now.Add(maxTTL)) || len(record.Names()) == 0 {
		t.Errorf("want the tombstone to stand for as long as its %d names are held, it ends at %s", len(record.Names()), end)
	}
	w.isRefused(w.converger(converge.Duties{Make: true}), "ip-10-1-1-4.ec2.internal", idA, "or after")
	w.now = w.now.Add(maxTTL + time.Hour)
	w.must(c, idB, facts.Running, converge.Provisioned)
}

// before is the record and the claim of an instance as the version before claims by PKI mount left them.
func (w *world) before(id string) {
	r := w.Records[id]
	for _, name := range r.Claims {
		delete(w.Claims, name)
	}
	w.Claims[ledger.Name{Under: r.BasePath, Text: r.FQDN}] = ledger.Claim{InstanceID: id, Account: r.Account, Region: r.Region}
	r.Claims, r.CertificateTTL, r.LoginType, r.TokenMaxTTL = nil, 0, "", 0
	w.Records[id] = r
	role := w.Objects["auth/aws/role/"+id]
	role["bound_iam_role_arn"] = []string{}
}

func TestUpgrade_CarriesClaimsOver(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.before(idA)
	w.launch(idB, 4)
	w.isRefused(c, "ip-10-1-1-4.ec2.internal", "alice_cluster", idA) // by the claim as it was
	w.must(c, idA, facts.Running, converge.Provisioned)
	if err := w.granted(idA); err != nil {
		t.Error(err)
	}
	if role := w.Objects[roleA]; fmt.Sprint(role["bound_iam_role_arn"]) != "[arn:aws:iam::123456789012:role/alice-worker]" {
		t.Errorf("want the role bound from now on, got %v", role)
	}
	w.before(idA)
	w.setState(facts.Terminated)
	w.must(c, idA, facts.Terminated, converge.Deprovisioned)
	if err := w.nothing(idA); err != nil {
		t.Errorf("a record of the earlier version must end like any: %v", err)
	}
}

// Two instances that an earlier version granted one address keep what they have; one of them is told.
func TestUpgrade_KeepsWhatItWouldRefuse(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	f := w.launch(idB, 5)
	w.must(c, idB, facts.Running, converge.Provisioned)
	f.IPv4s = []netip.Addr{netip.MustParseAddr("10.1.1.4")}
	w.ec2[idB] = f
	w.before(idB)
	objects := len(w.Objects)
	done, err := w.handle(c, idB, facts.Running)
	if fault.KindOf(err) != fault.Refuse || !done.Holds || !strings.Contains(err.Error(), "10.1.1.4") {
		t.Fatalf("want it refused with the address named, and its grant left, got %+v, %v", done, err)
	}
	if r := w.Records[idB]; len(w.Objects) != objects || r.State != ledger.Active || !strings.Contains(r.LastError, "10.1.1.4") {
		t.Errorf("want all that stood to stand and the reason recorded, got %d of %d objects, %+v", len(w.Objects), objects, r)
	}
}

func TestRemoval_IsDoneOnlyWhenTokensAreCut(t *testing.T) {
	for alias, cuts := range map[string]bool{"instance_id": true, "role_id": true, "image_id": false, "": false} {
		w := newWorld(t)
		w.launch(idA, 4)
		w.must(w.converger(converge.Duties{Make: true}), idA, facts.Running, converge.Provisioned)
		w.EC2Alias = alias
		c := w.converger(converge.Duties{Remove: true})
		w.setState(facts.Terminated)
		_, err := w.handle(c, idA, facts.Terminated)
		if (err == nil) != cuts {
			t.Errorf("ec2_alias=%q: want done %v, got %v", alias, cuts, err)
		}
		if cuts {
			continue
		}
		r := w.Records[idA]
		if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "ec2_alias="+alias) || r.State != ledger.Deprovisioning || r.UncutUntil == nil {
			t.Fatalf("ec2_alias=%q: want a conflict that names the setting and an open record, got %v, %+v", alias, err, r)
		}
		if len(w.Objects) != 0 || len(w.Claims) != 0 {
			t.Errorf("want no login, no policy and no name left all the same, got %v, %v", w.Objects, w.Claims)
		}
		w.EC2Alias = "instance_id" // mended, and the token's identity has its old alias still
		if _, err := w.handle(c, idA, facts.Terminated); fault.KindOf(err) != fault.Conflict {
			t.Errorf("a mended setting cuts no token of before: want it open until the token has ended, got %v", err)
		}
		w.now = r.UncutUntil.Add(time.Second)
		w.must(c, idA, facts.Terminated, converge.Deprovisioned)
		if err := w.nothing(idA); err != nil {
			t.Error(err)
		}
	}
}

func TestRemoval_LeavesForgedPathsAlone(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.must(w.converger(converge.Duties{Make: true}), idA, facts.Running, converge.Provisioned)
	r := w.Records[idA]
	forged := []string{"auth/aws", "auth/aws/role/admin", "auth/aws/role/" + idB, "sys/policies/acl/admin", "sys/policies/acl/ec2-" + idB + "-node", "secret/payroll"}
	for i, path := range forged {
		kind := []grant.Kind{grant.KindAuthRole, grant.KindAuthRole, grant.KindAuthRole, grant.KindPolicy, grant.KindPolicy, grant.KindGeneric}[i]
		r.Objects = append(r.Objects, ledger.Object{Kind: kind, Path: path})
		w.Objects[path] = map[string]any{"policy": "x"}
	}
	w.Records[idA] = r
	w.setState(facts.Terminated)
	_, err := w.handle(w.converger(converge.Duties{Remove: true}), idA, facts.Terminated)
	if fault.KindOf(err) != fault.Conflict {
		t.Errorf("want a conflict that a person looks at, got %v", err)
	}
	for _, path := range forged {
		if w.Objects[path] == nil {
			t.Errorf("%s was deleted: whoever writes the ledger could delete anybody's", path)
		}
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", path)) {
			t.Errorf("want %q named, got %v", path, err)
		}
	}
	if w.Objects[roleA] != nil {
		t.Error("what is the instance's own must go all the same")
	}
}

// Certificates never hold up the rest: a revocation that fails is finished by a later run.
func TestRevocation_ComesLastAndIsFinishedLater(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.must(w.converger(converge.Duties{Make: true}), idA, facts.Running, converge.Provisioned)
	c := w.converger(converge.Duties{Remove: true}, func(o *converge.Options) { o.RevokeCertificates = true })
	w.setState(facts.Terminated)
	w.fail = func(_ int, call string) (error, bool) {
		if strings.HasPrefix(call, "vault revoke") {
			return errDown, false
		}
		return nil, false
	}
	done, err := w.handle(c, idA, facts.Terminated)
	if done.Action != converge.Deprovisioned || !errors.Is(err, converge.ErrUnfinished) || fault.KindOf(err) != fault.Retry {
		t.Fatalf("want all removed and told, and the message back for the rest, got %+v, %v", done, err)
	}
	if err := w.nothing(idA); err != nil {
		t.Errorf("want nothing to wait for certificates: %v", err)
	}
	w.fail = nil
	w.must(c, idA, facts.Terminated, converge.Unchanged)
	if r := w.Records[idA]; w.count("vault revoke") < 5 || len(r.Revoking) > 0 {
		t.Errorf("want the four prefixes revoked by the second run and nothing left to do, got %v", w.calls)
	}
	w.calls = nil
	w.must(c, idA, facts.Terminated, converge.Unchanged)
	if w.count("vault") != 0 {
		t.Errorf("a third event must not touch Vault: %v", w.calls)
	}
}

// A removal that waits for late logins drops the PKI roles from the record at once, and their certificates not.
func TestRevocation_SurvivesTheWaitForLogins(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.must(w.converger(converge.Duties{Make: true}), idA, facts.Running, converge.Provisioned)
	r := w.Records[idA]
	r.ExtraPolicies = true
	w.Records[idA] = r
	w.setState(facts.Terminated)
	c := w.converger(converge.Duties{Remove: true}, func(o *converge.Options) { o.RevokeCertificates = true })
	if _, err := w.handle(c, idA, facts.Terminated); !errors.Is(err, converge.ErrUnfinished) {
		t.Fatalf("want the removal to wait for logins, got %v", err)
	}
	w.now = w.now.Add(2 * time.Minute)
	w.must(c, idA, facts.Terminated, converge.Deprovisioned)
	if n := w.count("vault revoke"); n != 4 || len(w.Records[idA].Revoking) > 0 {
		t.Errorf("want the four prefixes revoked once the wait is over, got %d\n%s", n, strings.Join(w.calls, "\n"))
	}
}

// Where the setting is switched off meanwhile, the record forgets what was to be revoked: reconcile would find it each time.
func TestRevocation_IsForgottenWhereSwitchedOff(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.must(w.converger(both), idA, facts.Running, converge.Provisioned)
	w.setState(facts.Terminated)
	w.must(w.converger(both), idA, facts.Terminated, converge.Deprovisioned)
	r := w.Records[idA]
	r.Revoking = []string{"alice_cluster/pki/k8s/issue/" + idA + "-kubelet"}
	w.Records[idA] = r
	w.must(w.converger(both), idA, facts.Terminated, converge.Unchanged)
	if w.count("vault revoke") > 0 || len(w.Records[idA].Revoking) > 0 {
		t.Errorf("want nothing revoked and nothing left to do, got %+v", w.Records[idA])
	}
}

// A certificate of before may be good for longer than any from now on: a former name is held for as long.
func TestUpgrade_HoldsNamesForOldLifetimes(t *testing.T) {
	const kubelet = k8s + "/roles/" + idA + "-kubelet"
	for name, row := range map[string]struct {
		maxTTL int64 // of the role that stands
		config map[string]any
		want   int64
	}{
		"a longer max_ttl":          {7200 * 3600, nil, 7200 * 3600},
		"a shorter max_ttl":         {3600, nil, 720 * 3600},
		"none, and the mount's":     {0, map[string]any{"max_lease_ttl": int64(87600 * 3600)}, 87600 * 3600},
		"none that anybody can see": {0, nil, 0},
	} {
		w := newWorld(t)
		i := w.launch(idA, 4)
		c := w.converger(both)
		w.must(c, idA, facts.Running, converge.Provisioned)
		w.before(idA)
		w.Objects[kubelet]["max_ttl"] = row.maxTTL
		w.Objects["sys/internal/ui/mounts/"+k8s] = map[string]any{"config": row.config}
		i.IPv4s = []netip.Addr{netip.MustParseAddr("10.1.1.9")}
		w.ec2[idA] = i
		w.must(c, idA, facts.Running, converge.Provisioned)
		r := w.Records[idA]
		if r.CertificateTTL != row.want {
			t.Errorf("%s: want certificates of %d s noted, got %d", name, row.want, r.CertificateTTL)
		}
	}
}
