package reconcile

import (
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// TestRevoking_IsFoundAndFinished has one instance to remove, and more removals with certificates left to revoke than the delete
// limit allows.
func TestRevoking_IsFoundAndFinished(t *testing.T) {
	for name, setUp := range map[string]func(*world, facts.Instance){
		"the instance is gone": func(w *world, f facts.Instance) { delete(w.ec2, f.ID) },
		"it is terminated": func(w *world, f facts.Instance) {
			f.State = facts.Terminated
			w.launch(f)
		},
		"it runs, and no profile fits it": func(w *world, f facts.Instance) { w.launch(noRole(f)) },
		"it runs, and leaves its group": func(w *world, f facts.Instance) {
			now := w.now
			w.edit(f.ID, func(r *ledger.Record) { r.LeavingSince = &now })
		},
	} {
		w := newWorld(t, 20)
		const n = 2 * alwaysDeleted
		for i := range n {
			f := w.ec2[id(i)]
			w.remove(f.ID)
			w.edit(f.ID, func(r *ledger.Record) { r.Revoking = []string{"alice_cluster/pki/k8s/issue/" + f.ID + "-kubelet"} })
			setUp(w, f)
		}
		w.now = w.now.Add(time.Hour)
		w.terminate(15)
		c := w.converger(both, false)
		c.RevokeCertificates = true
		run := func(in Input) Answer {
			return w.reconciler().Run(t.Context(), in, c, silent)
		}
		found := run(Input{Mode: Detect})
		if found.Summary.Orphaned != n+1 || found.Blocked || !strings.Contains(found.Drift[0].Diff, "not all revoked") {
			t.Errorf("%s: want a row for each of %d, and nothing withheld, got\n%s", name, n, answerText(found))
		}
		fixed := run(Input{Mode: Correct})
		if fixed.Summary.Corrected != n+1 || fixed.Summary.Failed > 0 || fixed.Blocked {
			t.Errorf("%s: want all finished, got\n%s", name, answerText(fixed))
		}
		for i := range n {
			if left := w.Records[id(i)].Revoking; len(left) > 0 {
				t.Errorf("%s: want nothing left to revoke of %s, got %q", name, id(i), left)
			}
		}
		w.wantRemoved(id(15), name, fixed)
		w.now = w.now.Add(time.Hour)
		if again := run(Input{Mode: Correct}); len(again.Drift) > 0 {
			t.Errorf("%s: want no drift after that, got\n%s", name, answerText(again))
		}
	}
}
