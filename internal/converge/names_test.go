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

// isRefused fails unless instance B is refused with a message that says all of these texts, and holds no name.
func (w *world) isRefused(c *converge.Converger, says ...string) {
	w.t.Helper()
	if _, err := w.handle(c, idB, facts.Running); !isFault(err, fault.Refuse, says...) {
		w.t.Fatalf("want %s refused with %q, got %v", idB, says, err)
	}
	for name, claim := range w.Claims {
		if claim.InstanceID == idB {
			w.t.Errorf("want no name of a refused instance claimed, got %s", name)
		}
	}
}

func TestAddress_IsHeldByOneLiveInstance(t *testing.T) {
	w, c := provisioned(t, mayMake)
	w.launch(idB, 5)
	w.show(idB, func(f *facts.Instance) { f.IPv4s = append(f.IPv4s, netip.MustParseAddr("10.1.1.4")) })
	w.isRefused(c, "10.1.1.4", k8s, idA, "running")
	w.mustEnd(w.converger(mayRemove))
	w.must(c, idB, facts.Running, converge.Provisioned)
}

func TestTakeOver_ReportsEachOfSeveralHolders(t *testing.T) {
	w, c := provisioned(t, both)
	const idC = "i-0123456789abcdef2"
	other := w.launch(idC, 6)
	w.must(c, idC, facts.Running, converge.Provisioned)
	for _, id := range []string{idA, idC} {
		w.show(id, func(f *facts.Instance) { f.State = facts.Terminated })
	}
	w.launch(idB, 4) // with the name and address of A
	w.show(idB, func(f *facts.Instance) { f.IPv4s = append(f.IPv4s, other.IPv4s...) })
	done := w.must(c, idB, facts.Running, converge.Provisioned)
	removed := map[string]bool{}
	for _, o := range done.RemovedHolders {
		removed[o.ID] = o.Outcome.Action == converge.Deprovisioned && len(o.Outcome.Paths) == 4 && o.Account == "123456789012"
	}
	if len(removed) != 2 || !removed[idA] || !removed[idC] {
		t.Errorf("want both removals in the outcome, got %+v", done.RemovedHolders)
	}
	w.wantNothing(idA)
	w.wantNothing(idC)
	w.wantGranted(idB)
}

// The rest of a removal is left to the removed instance.
func TestTakeOver_LeavesSecondCutToTheHolder(t *testing.T) {
	w, c := provisioned(t, both)
	w.edit(func(r *ledger.Record) { r.ExtraPolicies = true })
	w.setState(facts.Terminated)
	w.launch(idB, 4)
	done := w.must(c, idB, facts.Running, converge.Provisioned) // the name is free at once
	if len(done.RemovedHolders) != 1 || !done.RemovedHolders[0].Unfinished || done.RemovedHolders[0].ID != idA {
		t.Errorf("want the holder in the outcome, as unfinished, got %+v", done.RemovedHolders)
	}
	w.pass(2 * time.Minute)
	w.mustRemove(c)
}

func TestFirstGrant_NeverUsesACachedRole(t *testing.T) {
	for name, granted := range map[string]bool{"a first grant": false, "an existing grant": true} {
		w, c := launched(t, mayMake)
		remembered := w.ec2[idA]
		if granted {
			w.must(c, idA, facts.Running, converge.Provisioned)
		}
		remembered.ObservedAt, remembered.RoleObservedAt = w.now, w.now.Add(-time.Minute)
		addAddress(&remembered)
		w.unmatch()
		w.calls = nil
		done, err := c.Converge(t.Context(), request(idA, facts.Running, w.now), sighting(remembered))
		if want := map[bool]converge.Action{false: converge.Unmatched, true: converge.Provisioned}[granted]; err != nil || done.Action != want {
			t.Errorf("%s: want %s, got %+v, %v: a changed role would give the old role's grant", name, want, done, err)
		}
		if want, asked := map[bool]int{false: 1, true: 0}[granted], w.count("ec2 role"); asked != want {
			t.Errorf("%s: want IAM asked %d times, got %d", name, want, asked)
		}
	}
}

func TestPKIMount_ForeignGetsNoFirstGrant(t *testing.T) {
	w, c := provisioned(t, mayMake)
	w.launch(idB, 5)
	w.owners = map[string]string{k8s: "other"}
	w.isRefused(c, k8s, "other", "vault-ec2", "base_path")
	w.must(c, idA, facts.Running, converge.Unchanged) // an existing grant stays
	w.owners = map[string]string{k8s: "vault-ec2"}
	w.must(c, idB, facts.Running, converge.Provisioned)
}

func TestFormerNames_CountForTheTransactionLimit(t *testing.T) {
	w, c := provisioned(t, mayMake)
	var err error
	renames := 0
	for err == nil {
		renames++
		w.show(idA, func(f *facts.Instance) {
			f.PrivateDNSName, f.IPv4s = fmt.Sprintf("ip-10-2-0-%d.ec2.internal", renames), []netip.Addr{netip.AddrFrom4([4]byte{10, 2, 0, byte(renames)})}
		})
		_, err = w.handle(c, idA, facts.Running)
	}
	if r := w.Records[idA]; !isFault(err, fault.Refuse, "100 names and addresses, 96 of them from earlier grants") || len(r.Names()) > grant.MaxClaims {
		t.Fatalf("want a rename refused when one transaction could not release all names, got %v with %d names after %d", err, len(r.Names()), renames)
	}
	w.pass(maxTTL + time.Hour) // the former names' last certificates have ended
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.mustEnd(w.converger(mayRemove))
}

// TestNames_AreHeldFromTheCutOn has an instance that goes on without a grant, whose removal is open for as long as
// a certificate is good.
func TestNames_AreHeldFromTheCutOn(t *testing.T) {
	w, c := provisioned(t, both)
	w.unmatch()
	w.breakOff(c, w.event(idA, facts.Running), "vault delete", errDown)
	w.pass(maxTTL + time.Hour)
	w.launch(idB, 4)
	w.isRefused(w.converger(mayMake), "ip-10-1-1-4.ec2.internal", idA, "once that instance is gone")
	w.must(c, idA, facts.Running, converge.Deprovisioned)
	record := w.Records[idA]
	for _, name := range record.Names() {
		if until, _ := record.HeldUntil(name); !until.Equal(w.now.Add(maxTTL)) {
			t.Errorf("want %v held for %s after the cut, got until %s", name, maxTTL, until)
		}
	}
	if end := time.Unix(record.ExpiresAt, 0); end.Before(w.now.Add(maxTTL)) || len(record.Names()) == 0 {
		t.Errorf("want the tombstone kept while its %d names are held, it expires at %s", len(record.Names()), end)
	}
	w.isRefused(w.converger(mayMake), "ip-10-1-1-4.ec2.internal", idA, "or after")
	w.pass(maxTTL + time.Hour)
	w.must(c, idB, facts.Running, converge.Provisioned)
}

// downgrade leaves the record, the claim and the auth role of an instance as the version before claims by PKI mount wrote them.
func (w *world) downgrade(id string) {
	r := w.Records[id]
	for _, name := range r.Claims {
		delete(w.Claims, name)
	}
	w.Claims[ledger.Name{Under: r.BasePath, Text: r.FQDN}] = ledger.Claim{InstanceID: id, Account: r.Account, Region: r.Region}
	r.Claims, r.CertificateTTL, r.LoginType, r.TokenMaxTTL = nil, 0, "", 0
	w.Records[id] = r
	w.Objects["auth/aws/role/"+id]["bound_iam_role_arn"] = []string{}
}

func TestUpgrade_CarriesClaimsOver(t *testing.T) {
	w, c := provisioned(t, both)
	w.downgrade(idA)
	w.launch(idB, 4)
	w.isRefused(c, "ip-10-1-1-4.ec2.internal", "alice_cluster", idA) // by the old claim
	w.must(c, idA, facts.Running, converge.Provisioned)
	w.wantGranted(idA)
	if role := w.Objects[roleA]; fmt.Sprint(role["bound_iam_role_arn"]) != "[arn:aws:iam::123456789012:role/alice-worker]" {
		t.Errorf("want the role bound to the IAM role, got %v", role)
	}
	w.downgrade(idA)
	w.mustEnd(c)
}

// Two instances to which an earlier version granted one address keep their grants. One of them is refused.
func TestUpgrade_KeepsGrantsItWouldRefuse(t *testing.T) {
	w, c := provisioned(t, both)
	w.launch(idB, 5)
	w.must(c, idB, facts.Running, converge.Provisioned)
	w.show(idB, func(f *facts.Instance) { f.IPv4s = []netip.Addr{netip.MustParseAddr("10.1.1.4")} })
	w.downgrade(idB)
	objects := len(w.Objects)
	done, err := w.handle(c, idB, facts.Running)
	if !isFault(err, fault.Refuse, "10.1.1.4") || !done.Holds {
		t.Fatalf("want a refusal that names the address, and the grant left, got %+v, %v", done, err)
	}
	if r := w.Records[idB]; len(w.Objects) != objects || r.State != ledger.Active || !strings.Contains(r.LastError, "10.1.1.4") {
		t.Errorf("want all %d objects left and the reason recorded, got %d, %+v", objects, len(w.Objects), r)
	}
}

func TestRemoval_IsDoneOnlyWhenTokensAreCut(t *testing.T) {
	for alias, cuts := range map[string]bool{"instance_id": true, "role_id": true, "image_id": false, "": false} {
		w, _ := provisioned(t, mayMake)
		w.EC2Alias = alias
		c := w.converger(mayRemove)
		w.setState(facts.Terminated)
		_, err := w.handle(c, idA, facts.Terminated)
		if (err == nil) != cuts {
			t.Errorf("ec2_alias=%q: want done %v, got %v", alias, cuts, err)
		}
		if cuts {
			continue
		}
		r := w.Records[idA]
		if !isFault(err, fault.Conflict, "ec2_alias="+alias) || r.State != ledger.Deprovisioning || r.UncutUntil == nil {
			t.Fatalf("ec2_alias=%q: want a conflict that names the setting and an open record, got %v, %+v", alias, err, r)
		}
		if len(w.Objects) != 0 || len(w.Claims) != 0 {
			t.Errorf("want all objects removed and all names free, got %v, %v", w.Objects, w.Claims)
		}
		w.EC2Alias = "instance_id" // corrected, but the alias of an earlier login is the old one
		w.wantFault(c, w.event(idA, facts.Terminated), fault.Conflict, "the removal is open until the earlier tokens have ended")
		w.now = r.UncutUntil.Add(time.Second)
		w.mustRemove(c)
	}
}

func TestRemoval_LeavesForgedPathsAlone(t *testing.T) {
	w, _ := provisioned(t, mayMake)
	forged := map[string]grant.Kind{
		"auth/aws": grant.KindAuthRole, "auth/aws/role/admin": grant.KindAuthRole, "auth/aws/role/" + idB: grant.KindAuthRole,
		"sys/policies/acl/admin": grant.KindPolicy, "sys/policies/acl/ec2-" + idB + "-node": grant.KindPolicy, "secret/payroll": grant.KindGeneric,
	}
	for path, kind := range forged {
		w.edit(func(r *ledger.Record) { r.Objects = append(r.Objects, ledger.Object{Kind: kind, Path: path}) })
		w.Objects[path] = map[string]any{"policy": "x"}
	}
	w.setState(facts.Terminated)
	_, err := w.handle(w.converger(mayRemove), idA, facts.Terminated)
	for path := range forged {
		if w.Objects[path] == nil {
			t.Errorf("want %s left, or a writer of the ledger could delete any object", path)
		}
		if !isFault(err, fault.Conflict, fmt.Sprintf("%q", path)) {
			t.Errorf("want a conflict that names %q, got %v", path, err)
		}
	}
	if w.Objects[roleA] != nil {
		t.Error("want the instance's own objects removed, its auth role is left")
	}
}

// Certificates delay nothing else: a later run finishes a revocation that fails.
func TestRevocation_ComesLastAndIsFinishedLater(t *testing.T) {
	w, _ := provisioned(t, mayMake)
	c := w.converger(mayRemove, func(o *converge.Options) { o.RevokeCertificates = true })
	w.setState(facts.Terminated)
	w.failAt("vault revoke", errDown)
	done, err := w.handle(c, idA, facts.Terminated)
	if done.Action != converge.Deprovisioned || !isFault(err, fault.Retry) || !errors.Is(err, converge.ErrUnfinished) {
		t.Fatalf("want the grant removed, and a retry for the rest, got %+v, %v", done, err)
	}
	w.wantNothing(idA)
	w.fail = nil
	w.must(c, idA, facts.Terminated, converge.Unchanged)
	if r := w.Records[idA]; w.count("vault revoke") < 5 || len(r.Revoking) > 0 {
		t.Errorf("want the four prefixes revoked by the second run and nothing left to do, got %v", w.calls)
	}
	w.calls = nil
	w.must(c, idA, facts.Terminated, converge.Unchanged)
	if w.count("vault") != 0 {
		t.Errorf("want no call of Vault for a third event, got %v", w.calls)
	}
}

// A removal that waits for late logins drops the PKI roles from the record at once, but not their certificates.
func TestRevocation_SurvivesTheWaitForLogins(t *testing.T) {
	w, _ := provisioned(t, mayMake)
	w.edit(func(r *ledger.Record) { r.ExtraPolicies = true })
	w.setState(facts.Terminated)
	c := w.converger(mayRemove, func(o *converge.Options) { o.RevokeCertificates = true })
	if _, err := w.handle(c, idA, facts.Terminated); !errors.Is(err, converge.ErrUnfinished) {
		t.Fatalf("want the removal to wait for logins, got %v", err)
	}
	w.pass(2 * time.Minute)
	w.must(c, idA, facts.Terminated, converge.Deprovisioned)
	if n := w.count("vault revoke"); n != 4 || len(w.Records[idA].Revoking) > 0 {
		t.Errorf("want the four prefixes revoked once the wait is over, got %d\n%s", n, strings.Join(w.calls, "\n"))
	}
}

// If the setting is switched off meanwhile, the record drops the certificates to revoke: reconcile would report them each time.
func TestRevocation_IsForgottenWhenSwitchedOff(t *testing.T) {
	w, _ := provisioned(t, both)
	w.mustEnd(w.converger(both))
	w.edit(func(r *ledger.Record) { r.Revoking = []string{"alice_cluster/pki/k8s/issue/" + idA + "-kubelet"} })
	w.must(w.converger(both), idA, facts.Terminated, converge.Unchanged)
	if w.count("vault revoke") > 0 || len(w.Records[idA].Revoking) > 0 {
		t.Errorf("want nothing revoked and nothing left to do, got %+v", w.Records[idA])
	}
}

// An old certificate may be good for longer than any new one. A former name is held for as long.
func TestUpgrade_HoldsNamesForOldLifetimes(t *testing.T) {
	const kubelet = k8s + "/roles/" + idA + "-kubelet"
	for name, row := range map[string]struct {
		maxTTL int64 // of the existing role
		config map[string]any
		want   int64
	}{
		"a longer max_ttl":      {7200 * 3600, nil, 7200 * 3600},
		"a shorter max_ttl":     {3600, nil, 720 * 3600},
		"none, and the mount's": {0, map[string]any{"max_lease_ttl": int64(87600 * 3600)}, 87600 * 3600},
		"none that can be read": {0, nil, 0},
	} {
		w, c := provisioned(t, both)
		w.downgrade(idA)
		w.Objects[kubelet]["max_ttl"] = row.maxTTL
		w.Objects["sys/internal/ui/mounts/"+k8s] = map[string]any{"config": row.config}
		w.show(idA, addAddress)
		w.must(c, idA, facts.Running, converge.Provisioned)
		r := w.Records[idA]
		if r.CertificateTTL != row.want {
			t.Errorf("%s: want certificates of %d s noted, got %d", name, row.want, r.CertificateTTL)
		}
	}
}
