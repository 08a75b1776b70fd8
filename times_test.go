package pages

import (
	"os"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// templateSeconds returns a time in seconds at a path of keys in template.yaml.
func templateSeconds(t *testing.T, keys ...string) time.Duration {
	t.Helper()
	text, err := os.ReadFile("template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	node := root.Content[0]
	for _, key := range keys {
		var found *yaml.Node
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == key {
				found = node.Content[i+1]
			}
		}
		if found == nil {
			t.Fatalf("template.yaml has no %s in %v", key, keys)
		}
		node = found
	}
	var seconds int
	if err := node.Decode(&seconds); err != nil {
		t.Fatalf("template.yaml: %v: %v", keys, err)
	}
	return time.Duration(seconds) * time.Second
}

func queueTime(t *testing.T, queue, property string) time.Duration {
	t.Helper()
	return templateSeconds(t, "Resources", queue, "Properties", property)
}

func TestTimes_FitTheTemplate(t *testing.T) {
	invocation := templateSeconds(t, "Globals", "Function", "Timeout")
	reconcileTime := templateSeconds(t, "Resources", "ReconcileFunction", "Properties", "Timeout")
	now := time.Now()
	tombstone := ledger.Write{New: ledger.Record{State: ledger.Deleted, Profile: "worker"}}.Becomes(now)
	kept := time.Unix(tombstone.ExpiresAt, 0).Sub(now)
	const rounding = time.Second // ExpiresAt is in whole seconds
	for _, row := range []struct {
		longer, shorter time.Duration
		why             string
	}{
		{invocation, converge.RunTime + converge.AnswerTime - 1, "an invocation must have time for one run and its answer"},
		{ledger.LeaseTime, invocation, "no second run may begin while an invocation may still write"},
		{invocation, converge.Reserve, "an invocation must have time to begin an instance at all"},
		{queueTime(t, "ProvisionQueue", "VisibilityTimeout"), max(invocation, ledger.LeaseTime), "a message must come back after the invocation has ended, and find its lease free"},
		{queueTime(t, "DeprovisionQueue", "VisibilityTimeout"), max(invocation, ledger.LeaseTime), "a message must come back after the invocation has ended, and find its lease free"},
		{queueTime(t, "ReconcileQueue", "VisibilityTimeout"), reconcileTime, "a message must come back after the invocation has ended"},
		{kept + rounding, queueTime(t, "ProvisionDeadLetterQueue", "MessageRetentionPeriod"), "an event redriven from the dead-letter queue must find the instance's tombstone"},
		{kept + rounding, queueTime(t, "ProvisionQueue", "MessageRetentionPeriod"), "an event delivered late must find the instance's tombstone"},
		{reconcileTime, reconcile.RunTime - 1, "clients wait for an invocation of this length"},
		{ledger.LeaseTime - converge.RunTime - converge.AnswerTime, 2 * vault.CallTimeout, "the margin of a lease must cover a call with a login before it"},
		{converge.AnswerTime, audit.Reserve, "audit events must be sent in the time that is kept for the answer"},
		{converge.Grace, converge.MaxFactsAge, "facts must be stale long before AWS's answers are trusted again"},
	} {
		if row.longer <= row.shorter {
			t.Errorf("%s is not longer than %s: %s", row.longer, row.shorter, row.why)
		}
	}
	made := now.Add(-min(queueTime(t, "ProvisionQueue", "VisibilityTimeout"), queueTime(t, "DeprovisionQueue", "VisibilityTimeout")))
	if converge.MayLag(&ledger.Record{MadeAt: &made}, now) {
		t.Error("a message that comes back must judge what it reads: a doubt as long as the visibility timeout would send it back for ever")
	}
}
