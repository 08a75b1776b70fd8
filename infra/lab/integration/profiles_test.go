package integration

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/bundle"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// followTime is a moment more than functions keep profiles without asking for the active ones.
const followTime = 10500 * time.Millisecond

// fromLedger is the environment of a function whose profiles come from the ledger.
func fromLedger(profiles string) map[string]string {
	return map[string]string{"PROFILES": profiles, "TEMPLATES_DIR": "", "RECONCILE_REGIONS": "us-east-1"}
}

// packed returns the profiles of a folder as a bundle.
func packed(t *testing.T, folder string) bundle.Bundle {
	t.Helper()
	b, err := bundle.Pack(os.DirFS(folder))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// activate makes a bundle the active one, as an operator does.
func activate(t *testing.T, b bundle.Bundle) {
	t.Helper()
	l := table(time.Now)
	old, err := l.ProfileVersions(t.Context())
	if err == nil {
		err = l.PutBundle(t.Context(), b.Digest, b.Packed)
	}
	if err == nil {
		err = l.Activate(t.Context(), old, ledger.ProfileVersion{Digest: b.Digest, At: time.Now().UTC(), By: "arn:aws:iam::123456789012:user/alice"})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestProfiles_ChangeUnderRunningFunctions(t *testing.T) {
	resetTaps()
	making, comparing := variant(t, provision, fromLedger("active")), variant(t, reconcile, fromLedger("active"))
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	if a := bare(t, making, fleet.Event(i, "running", time.Now())); !strings.Contains(a.Failure, "no profiles are active") || !strings.Contains(a.Failure, "vault-ec2 apply") {
		t.Fatalf("nothing was activated: want an error that says so, and what to do, got %+v", a)
	}
	first := packed(t, world.Profiles)
	activate(t, first)
	mustBy(t, making, i, "running", "provisioned")
	session := login(t, i)

	shorter := packed(t, changed(t, "worker/profile.yaml", "token_ttl: 1h", "token_ttl: 30m"))
	only := rec.Input{Mode: rec.Detect, InstanceIDs: []string{i.ID}}
	rehearsal := only
	rehearsal.Profiles = shorter.Packed
	if a := runReconcile(t, comparing, rehearsal); a.Touched == nil || a.Touched.Instances != 1 || a.Touched.Objects[grant.KindAuthRole][rec.Changed] != 1 || a.Summary != (rec.Summary{Changed: 1}) {
		t.Fatalf("want the rehearsal to show one changed auth role, got %+v, %+v", a.Touched, a)
	}
	if a := runReconcile(t, comparing, only); len(a.Drift) > 0 {
		t.Fatalf("want nothing changed by a rehearsal, got %+v", a.Drift)
	}
	activate(t, shorter)
	time.Sleep(followTime)
	correct := rec.Input{Mode: rec.Correct, InstanceIDs: []string{i.ID}}
	if a := runReconcile(t, comparing, correct); a.Summary.Corrected == 0 || a.Summary.Failed > 0 {
		t.Fatalf("want the fleet brought to the active profiles, got %+v", a)
	}
	mustBy(t, making, i, "running", "unchanged") // provision follows too, and does not write the former profiles back
	if !tokenWorks(t, session) {
		t.Error("the instance lost its token by a change of a TTL")
	}

	bad := packed(t, changed(t, "worker/policy.hcl.tmpl", "{{ identityAccess }}", "path \"*\" { capabilities = [\"sudo\"] }"))
	rehearsal.Profiles = bad.Packed
	if a := runReconcile(t, comparing, rehearsal); !a.Blocked || !strings.Contains(a.BlockedReason, "the profiles are refused") || !strings.Contains(a.BlockedReason, "worker/") {
		t.Errorf("want the rehearsal of profiles that the guard refuses to say which file, got %+v", a)
	}
	activate(t, bad)
	time.Sleep(followTime)
	other := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, making, other, "running", "provisioned")
	mustBy(t, variant(t, provision, fromLedger("active")), launch(t, fleet.Spec{Role: "alice-worker"}), "running", "provisioned")
	logged(t, making, `"ProfilesRefused":1`)
	logged(t, making, "the wanted profiles are not used")
	report, checks := examine(t, comparing)
	if c := checks["profiles"]; report.OK || c.OK || !strings.Contains(c.Remedy, "apply --previous") {
		t.Errorf("want the doctor to say that the wanted profiles are not used, got %+v", c)
	}

	activate(t, first) // taken back
	time.Sleep(followTime)
	if a := runReconcile(t, comparing, correct); a.Summary.Corrected == 0 || !tokenWorks(t, session) {
		t.Errorf("want the former profiles again, and the token alive, got %+v", a)
	}
	for _, function := range []string{provision, reconcile} {
		for _, right := range []string{"dynamodb:GetItem profiles", "dynamodb:GetItem profiles#*"} {
			if used := rightsUsed(t)[function]; !used[right] {
				t.Errorf("%s never used %s, only %q", function, right, slices.Sorted(maps.Keys(used)))
			}
		}
	}
	if _, checks := examine(t, comparing); !checks["profiles"].OK {
		t.Errorf("want the doctor content, got %+v", checks["profiles"])
	}
}

// The right to write profiles is the right to grant, so no function has it: a stolen credential of one would be as good as the stack's administrator.
func TestFunctions_CannotWriteProfiles(t *testing.T) {
	resources, _ := world.Stack.Expanded["Resources"].(map[string]any)
	for _, function := range []string{provision, deprovision, reconcile} {
		allowed := map[string][]string{}
		for _, id := range []string{"FunctionsPolicy", function + "Role"} {
			leadingKeys(resources[id], allowed)
		}
		if len(allowed["dynamodb:PutItem"]) == 0 {
			t.Errorf("%s: want the patterns of its writes, got %q", function, allowed)
		}
		for action, patterns := range allowed {
			for _, p := range patterns {
				isRead := action == "dynamodb:GetItem" || action == "dynamodb:BatchGetItem"
				if !isRead && (likes(p, "profiles") || likes(p, "profiles#0123")) {
					t.Errorf("%s may do %s on %s, which holds profiles", function, action, p)
				}
			}
		}
	}
}

func TestProfiles_PinnedDigestBarsOthers(t *testing.T) {
	first := packed(t, world.Profiles)
	activate(t, packed(t, changed(t, "worker/profile.yaml", "token_ttl: 1h", "token_ttl: 20m")))
	activate(t, first)
	pinned := variant(t, provision, fromLedger(first.Digest))
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	mustBy(t, pinned, i, "running", "provisioned")
	unknown := variant(t, provision, fromLedger(strings.Repeat("0", 64)))
	if a := bare(t, unknown, fleet.Event(i, "running", time.Now())); !strings.Contains(a.Failure, "no such bundle") {
		t.Errorf("want nothing granted by other profiles than the pinned ones, got %+v", a)
	}
}

// Two operators who read the same versions must not both activate: the second has not seen what the first one's profiles change.
func TestActivation_IsRefusedAfterAnother(t *testing.T) {
	l := newLedger(t, "activations")
	versions := func() ledger.ProfileVersions {
		v, err := l.ProfileVersions(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	next := func(n int) ledger.ProfileVersion {
		return ledger.ProfileVersion{Digest: strings.Repeat("0", 62) + fmt.Sprintf("%02d", n), At: at.Add(time.Duration(n) * time.Second), By: "alice"}
	}
	none := versions()
	for n := range 25 {
		before := versions()
		if err := l.Activate(t.Context(), before, next(n)); err != nil {
			t.Fatal(err)
		}
		if err := l.Activate(t.Context(), before, next(n)); err != nil {
			t.Errorf("the answer of a write was lost, and the SDK sends it again: want no error, got %v", err)
		}
		for name, read := range map[string]ledger.ProfileVersions{"the same versions": before, "no version": none} {
			if err := l.Activate(t.Context(), read, next(99)); !errors.Is(err, ledger.ErrChanged) {
				t.Errorf("another operator had read %s: want it refused, got %v", name, err)
			}
		}
	}
	if v := versions(); v.Active() != next(24).Digest || len(v.Versions) != 20 || v.Versions[19] != next(5) {
		t.Errorf("want the newest 20 of 25 versions, got %d: %+v", len(v.Versions), v.Versions)
	}
}
