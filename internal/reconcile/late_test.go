package reconcile

import (
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
)

// An instance without a name is no drift while the name may still come. After that its row names the value.
func TestLateValue_IsNoDriftWhileAwaited(t *testing.T) {
	w := newWorld(t, 1)
	f := worker(1)
	f.PrivateDNSName, f.LaunchTime = "", w.now
	w.launch(f)
	w.now = w.now.Add(converge.LateTime - time.Second)
	w.wantNoDrift(Input{Mode: Detect}, "while the name may still come")
	w.now = w.now.Add(time.Minute)
	a := w.reconcile(Input{Mode: Detect})
	if len(a.Drift) != 1 || a.Drift[0].Reason != Missing || a.Drift[0].Action != None || a.Drift[0].Error == "" {
		t.Errorf("want one row that says why nothing is granted, got\n%s", answerText(a))
	}
}
