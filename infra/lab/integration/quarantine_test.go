package integration

import (
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// ordered carries out mode quarantine or release for an instance, and returns the result.
func ordered(t *testing.T, mode rec.Mode, i fleet.Instance) rec.Ordered {
	t.Helper()
	var a rec.OrderAnswer
	question(t, world.Functions[reconcile], rec.Input{Mode: mode, InstanceIDs: []string{i.ID}, By: "alice", Reason: "a strange login"}, &a)
	return a.Instances[0]
}

// An instance in quarantine tries each door: its tokens, a new login, its events, a comparison.
func TestQuarantine_KeepsALiveInstanceOutUntilReleased(t *testing.T) {
	i := provisioned(t)
	defer remove(t, i)
	session := login(t, i)
	tokens := map[string]string{"session": session.Auth.ClientToken}
	if len(alive(t, i, tokens)) != 2 {
		t.Fatal("the token can do nothing before the quarantine, so it proves nothing after it")
	}
	o := ordered(t, rec.Quarantine, i)
	if o.Status != rec.IsQuarantined || o.Cut != 1 || o.CutAt == nil || len(o.Objects) == 0 || o.Quarantine.By != "alice" {
		t.Fatalf("want the instance cut off, got %+v", o)
	}
	doors := func(after string) {
		t.Helper()
		if works := alive(t, i, tokens); len(works) > 0 {
			t.Errorf("after %s: want the old token refused, got %v", after, works)
		}
		if _, err := world.Fleet.Login(t.Context(), world.AuthMount, i, session.Nonce); err == nil {
			t.Errorf("after %s: want a login refused", after)
		}
		if left := objects(t, i); len(left) > 0 {
			t.Errorf("after %s: want nothing in Vault, got %v", after, left)
		}
	}
	doors("the order")
	defer remake(t, i)() // a policy of the same name by hand revives no old token
	must(t, provision, i, "running", "in-quarantine")
	must(t, provision, i, "pending", "in-quarantine")
	for _, mode := range []rec.Mode{rec.Detect, rec.Correct} {
		var a rec.Answer
		question(t, world.Functions[reconcile], rec.Input{Mode: mode, InstanceIDs: []string{i.ID}}, &a)
		shown := slices.ContainsFunc(a.Quarantined, func(q rec.Quarantined) bool { return q.InstanceID == i.ID && q.Reason == "a strange login" })
		if !shown || slices.ContainsFunc(a.Drift, func(d rec.Drift) bool { return d.Object == rec.KindRecord || d.Action == rec.Create }) {
			t.Errorf("%s: want the quarantine shown, and no grant, got %+v", mode, a)
		}
	}
	var e rec.Explanation
	question(t, world.Functions[reconcile], rec.Input{Mode: rec.Explain, InstanceIDs: []string{i.ID}}, &e)
	if e.Status != rec.InQuarantine || !strings.Contains(e.Summary, "by alice") {
		t.Errorf("want the quarantine explained, got %+v", e.Verdict)
	}
	vaultDelete(t, pathsOf(i.ID).policy)
	doors("its events and two comparisons")

	o = ordered(t, rec.Release, i)
	if o.Status != rec.IsReleased {
		t.Fatalf("want the instance released, got %+v", o)
	}
	if works := alive(t, i, tokens); len(works) > 0 {
		t.Errorf("after the release: want the old token refused, got %v", works)
	}
	fresh := login(t, i) // with a new nonce: the former entry is gone
	if len(alive(t, i, map[string]string{"fresh": fresh.Auth.ClientToken})) != 2 {
		t.Error("after the release: want a new login with its grant")
	}
}
