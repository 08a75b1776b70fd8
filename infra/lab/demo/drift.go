package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const reconcileFunction = "ReconcileFunction"

// drift changes three objects by hand and has them found and repaired.
func (d *demo) drift(ctx context.Context) error {
	d.chapter("Objects in Vault are edited by hand: reconcile reports the drift and repairs it")
	etcd, master, worker := d.instances[0], d.instances[1], d.other()
	kubelet := grant.PKIRolePath(pkiMount, grant.ObjectName(worker.ID, "kubelet"))
	role, err := d.world.Vault.Logical().ReadWithContext(ctx, kubelet)
	if err != nil || role == nil {
		return fmt.Errorf("reading %s to change it: %v, %w", kubelet, role, err)
	}
	role.Data["allow_subdomains"] = true
	if _, err := d.world.Vault.Logical().WriteWithContext(ctx, kubelet, role.Data); err != nil {
		return fmt.Errorf("changing %s: %w", kubelet, err)
	}
	d.say("the worker's PKI role allows subdomains")
	login := grant.AuthRolePath(d.world.AuthMount, master.ID)
	if _, err := d.world.Vault.Logical().WriteWithContext(ctx, login, map[string]any{"token_ttl": "12h"}); err != nil {
		return fmt.Errorf("changing %s: %w", login, err)
	}
	d.say("the master's auth role issues tokens for twelve hours")
	policy := grant.PolicyPath(grant.PolicyName(etcd.ID, "node"))
	if _, err := d.world.Vault.Logical().DeleteWithContext(ctx, policy); err != nil {
		return fmt.Errorf("changing %s: %w", policy, err)
	}
	d.say("the etcd node's policy is deleted")

	found, err := d.reconcile(ctx, reconcile.Detect)
	if err != nil {
		return err
	}
	d.say("reconcile {\"mode\":\"detect\"} answers:")
	d.showDrift(found)
	want := map[string]reconcile.Reason{kubelet: reconcile.Changed, login: reconcile.Changed, policy: reconcile.Missing}
	for _, row := range found.Drift {
		if want[row.Path] == row.Reason {
			delete(want, row.Path)
		}
	}
	d.expect(len(found.Drift) == 3 && len(want) == 0, "it reports exactly these three", fmt.Sprintf("%d rows", len(found.Drift)))
	fixed, err := d.reconcile(ctx, reconcile.Correct)
	if err != nil {
		return err
	}
	d.expect(fixed.Summary.Corrected == 3 && fixed.Summary.Failed == 0, "reconcile {\"mode\":\"correct\"} repairs all three", fmt.Sprintf("%d corrected", fixed.Summary.Corrected))
	after, err := d.reconcile(ctx, reconcile.Detect)
	if err != nil {
		return err
	}
	d.expect(len(after.Drift) == 0 && !after.Blocked, "and then finds no drift",
		fmt.Sprintf("%d instances, %d records compared in %d ms", after.Scanned.Instances, after.Scanned.Records, after.DurationMs))
	return nil
}

func (d *demo) reconcile(ctx context.Context, mode reconcile.Mode) (reconcile.Answer, error) {
	payload, err := json.Marshal(reconcile.Input{Mode: mode})
	if err != nil {
		return reconcile.Answer{}, err
	}
	result, err := d.world.Functions[reconcileFunction].Invoke(ctx, payload)
	if err == nil {
		err = result.Err()
	}
	var a reconcile.Answer
	if err == nil {
		err = json.Unmarshal(result.Payload, &a)
	}
	if err != nil {
		return a, fmt.Errorf("invoking reconcile: %w\nlogs of the function:\n%s", err, d.world.Functions[reconcileFunction].Logs())
	}
	return a, nil
}

func (d *demo) showDrift(a reconcile.Answer) {
	var out strings.Builder
	for _, row := range a.Drift {
		fmt.Fprintf(&out, "%s %s → %s  %s\n", row.Object, row.Reason, row.Action, row.Path)
		for line := range strings.Lines(row.Diff) {
			fmt.Fprintf(&out, "  %s\n", strings.TrimRight(line, "\n"))
		}
	}
	d.show(out.String())
}
