package reconcile

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// TestRevoking_IsFoundAndFinished has removals that are done but for their certificates, of more instances than the delete
// limit lets go, and one instance that is to be removed.
func TestRevoking_IsFoundAndFinished(t *testing.T) {
	for name, stands := range map[string]func(*world, facts.Instance){
		"the instance is gone": func(w *world, f facts.Instance) { delete(w.ec2, f.ID) },
		"it is terminated": func(w *world, f facts.Instance) {
			f.State = facts.Terminated
			w.launch(f)
		},
		"it runs, and no profile fits it": func(w *world, f facts.Instance) { w.launch(noRole(f)) },
		"it runs, and leaves its group": func(w *world, f facts.Instance) {
			r := w.Records[f.ID]
			now := w.now
			r.LeavingSince = &now
			w.Records[f.ID] = r
		},
	} {
		w := newWorld(t, 20)
		const n = 2 * alwaysDeleted
		for i := range n {
			f := w.ec2[id(i)]
			w.remove(f.ID)
			r := w.Records[f.ID]
			r.Revoking = []string{"alice_cluster/pki/k8s/issue/" + f.ID + "-kubelet"}
			w.Records[f.ID] = r
			stands(w, f)
		}
		w.now = w.now.Add(time.Hour)
		w.terminate(15)
		c := w.converger(both, false)
		c.RevokeCertificates = true
		run := func(in Input) Answer {
			return w.reconciler().Run(t.Context(), in, c, Observer{Log: slog.New(slog.DiscardHandler)})
		}
		found := run(Input{Mode: Detect})
		if found.Summary.Orphaned != n+1 || found.Blocked || !strings.Contains(found.Drift[0].Diff, "not all revoked") {
			t.Errorf("%s: want each of %d told, and nothing withheld, got\n%s", name, n, told(found))
		}
		fixed := run(Input{Mode: Correct})
		if fixed.Summary.Corrected != n+1 || fixed.Summary.Failed > 0 || fixed.Blocked {
			t.Errorf("%s: want all finished, got\n%s", name, told(fixed))
		}
		for i := range n {
			if left := w.Records[id(i)].Revoking; len(left) > 0 {
				t.Errorf("%s: want nothing left to revoke of %s, got %q", name, id(i), left)
			}
		}
		if err := w.removed(id(15)); err != nil {
			t.Errorf("%s: want the removal not held up by certificates: %v", name, err)
		}
		w.now = w.now.Add(time.Hour)
		if again := run(Input{Mode: Correct}); len(again.Drift) > 0 {
			t.Errorf("%s: want nothing more, got\n%s", name, told(again))
		}
	}
}
