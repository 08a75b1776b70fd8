package vaultserver_test

import (
	"path/filepath"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/parts/partstest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

func TestCluster_SurvivesEachLossOfItsLeader(t *testing.T) {
	ctx := t.Context()
	c, err := vaultserver.StartCluster(ctx, partstest.Workspace(t), vaultserver.ClusterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	sys := client(t, &c.Server).Sys()
	const name, text = "tried", `path "secret/*" { capabilities = ["read"] }`
	if err := sys.PutPolicyWithContext(ctx, name, text); err != nil {
		t.Fatal(err)
	}
	for _, loss := range []struct {
		name string
		do   func(*vaultserver.Node) error
	}{
		{"killed", (*vaultserver.Node).Kill},
		{"stopped", (*vaultserver.Node).Stop},
		{"sealed", func(n *vaultserver.Node) error { return n.Seal(ctx) }},
		{"told to step down", func(n *vaultserver.Node) error { return n.StepDown(ctx) }},
	} {
		former, err := c.Leader(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := loss.do(former); err != nil {
			t.Fatal(err)
		}
		next, err := c.LeaderAfter(ctx, former)
		if err != nil {
			t.Fatalf("after the leader %s was %s: %v", former.Name(), loss.name, err)
		}
		if err := c.Restore(ctx); err != nil {
			t.Fatalf("after the leader %s was %s: %v", former.Name(), loss.name, err)
		}
		// Asked directly, the former leader forwards or answers itself.
		own, err := former.Client()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := own.Sys().GetPolicyWithContext(ctx, name); err != nil || got != text {
			t.Errorf("after %s was %s and %s led: want the policy as written, got %q, %v", former.Name(), loss.name, next.Name(), got, err)
		}
	}
	logs, err := filepath.Glob(c.AuditLog)
	if err != nil || len(logs) < len(c.Nodes) {
		t.Errorf("want an audit log of each node, got %q, %v", logs, err)
	}
}
