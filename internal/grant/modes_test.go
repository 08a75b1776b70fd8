package grant_test

import (
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func withModes(modes string) func(string) string {
	return func(profile string) string { return profile + "reconcile: " + modes + "\n" }
}

// modesOf returns the modes of the baseline's profile with these.
func modesOf(t *testing.T, modes string) grant.Modes {
	t.Helper()
	set := loaded(t, filesWith(text("worker/profile.yaml", withModes(modes)(baselineProfile))))
	return set.Profiles[0].Reconcile
}

func TestModes_AreReadByKind(t *testing.T) {
	kinds := []grant.Kind{grant.KindPolicy, grant.KindPKIRole, grant.KindSSHRole, grant.KindAuthRole, grant.KindGeneric}
	for _, kind := range kinds {
		for _, mode := range []grant.DriftMode{grant.DriftCorrect, grant.DriftDetect, grant.DriftIgnore} {
			m := modesOf(t, "{"+string(kind)+": "+string(mode)+"}")
			for _, other := range kinds {
				want := grant.DriftCorrect
				if other == kind {
					want = mode
				}
				if got := m.Of(other); got != want {
					t.Errorf("reconcile: {%s: %s}: want %s for %s, got %s", kind, mode, want, other, got)
				}
			}
			if softer := m.Softer(); (mode == grant.DriftCorrect) != (len(softer) == 0) {
				t.Errorf("reconcile: {%s: %s}: got the softer modes %v", kind, mode, softer)
			}
		}
	}
	if m := loaded(t, files()).Profiles[0].Reconcile; len(m.Softer()) > 0 {
		t.Errorf("want drift repaired where the profile says nothing, got %v", m.Softer())
	}
}

func TestModes_RefuseUnknownKindsAndModes(t *testing.T) {
	for modes, says := range map[string][]string{
		`{policy: repair}`:      {"worker/profile.yaml", `reconcile.policy: "repair" is none of correct, detect, ignore`},
		`{auth-role: Detect}`:   {"worker/profile.yaml", `reconcile.auth-role: "Detect"`},
		`{role: detect}`:        {"worker/profile.yaml", "line 10", "field role not found"},
		`{record: detect}`:      {"worker/profile.yaml", "field record not found"},
		`detect`:                {"worker/profile.yaml", "line 10"},
		`[policy]`:              {"worker/profile.yaml", "line 10"},
		`{policy: [detect]}`:    {"worker/profile.yaml", "line 10"},
		`{policy: {a: detect}}`: {"worker/profile.yaml", "line 10"},
	} {
		wantFault(t, filesWith(text("worker/profile.yaml", withModes(modes)(baselineProfile))), says...)
	}
}

func TestModes_ReplaceTheBasesOneByOne(t *testing.T) {
	set := loaded(t, extended(
		text("worker/profile.yaml", withModes("{policy: detect, generic: ignore}")(baselineProfile)),
		text("gpu/profile.yaml", withModes("{policy: correct, auth-role: detect}")(gpuProfile))))
	base, p := profileOf(t, set, "alice_cluster-worker").Reconcile, profileOf(t, set, "alice_cluster-gpu").Reconcile
	if want := (grant.Modes{Policy: grant.DriftDetect, Generic: grant.DriftIgnore}); base != want {
		t.Errorf("want the base's unchanged, %+v, got %+v", want, base)
	}
	if want := (grant.Modes{Policy: grant.DriftCorrect, AuthRole: grant.DriftDetect, Generic: grant.DriftIgnore}); p != want {
		t.Errorf("want its own modes, and the base's for the other kinds, %+v, got %+v", want, p)
	}
	wantFault(t, extended(text("worker/profile.yaml", withModes("{policy: never}")(baselineProfile))), `reconcile.policy: "never"`)
}
