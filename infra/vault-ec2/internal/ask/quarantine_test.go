package ask

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

func TestOrder_PrintsResultMarkAndNextStep(t *testing.T) {
	mark := &reconcile.SeenQuarantine{Since: early, By: "alice", Reason: "a strange\x1b[2J login", Source: "command"}
	a := reconcile.OrderAnswer{Mode: reconcile.Quarantine, Instances: []reconcile.Ordered{
		{InstanceID: asked, Status: reconcile.IsQuarantined, Objects: []string{"auth/aws/role/" + asked}, Cut: 1, CutAt: &late, Quarantine: mark, Profile: "alice_cluster-worker", Next: "vault-ec2 release " + asked},
		{InstanceID: neighbour, Status: reconcile.IsMarked, Before: true, Error: "Vault is away", Next: "again"},
	}}
	var b bytes.Buffer
	if err := printOrder(&b, a); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		asked + "  quarantined  2026-01-02T04:04:05Z  1", neighbour + "  marked       -", "in quarantine since 2026-01-02T03:04:05Z, by alice (command): a strange",
		"removed: auth/aws/role/" + asked, "next: vault-ec2 release " + asked, "keeps its first mark", "error: Vault is away",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("want %q, got\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "\x1b") {
		t.Errorf("want no control character on the terminal, got %q", b.String())
	}
	released := *mark
	released.ReleasedAt, released.ReleasedBy = &late, "bob"
	if line := quarantineLine(&released); !strings.Contains(line, "was in quarantine since") || !strings.Contains(line, "released at 2026-01-02T04:04:05Z, by bob") {
		t.Errorf("want both ends, got %q", line)
	}
}

func TestOrder_IsCheckedBeforeAnythingIsAsked(t *testing.T) {
	for says, o := range map[string]OrderOptions{
		"--reason is missing": {Mode: reconcile.Quarantine, Instances: []string{asked}},
		"whole fleet":         {Mode: reconcile.Quarantine, Reason: "r"},
		"not the ID":          {Mode: reconcile.Release, Instances: []string{"web-1"}},
		"go together":         {Mode: reconcile.Release, Instances: []string{asked}, Region: "us-east-1"},
	} {
		if status, err := Order(t.Context(), o, Streams{}); err == nil || status != broken || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error that says %q, got %d, %v", says, status, err)
		}
	}
}

func TestAnswer_ShowsInstancesInQuarantine(t *testing.T) {
	var b bytes.Buffer
	one := reconcile.Quarantined{InstanceID: asked, SeenQuarantine: reconcile.SeenQuarantine{Since: early, By: "alice", Reason: "a strange login", Source: "command"}}
	first, second := answer{}, answer{}
	first.Quarantined, second.Quarantined = []reconcile.Quarantined{one}, []reconcile.Quarantined{{InstanceID: neighbour}}
	if err := printAnswer(&b, first.join(second)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), asked+": in quarantine since") || !strings.Contains(b.String(), neighbour+": in quarantine") || first.status() != done {
		t.Errorf("want both, and no drift, got\n%s", b.String())
	}
}
