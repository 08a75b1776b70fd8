package integration

import (
	"slices"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
)

// TestForgedRunning_DoesNotHideTermination puts a forged `running` beside the real `terminated` in the deprovision queue, while
// EC2 still shows the instance as running: the real message must come back until EC2 agrees.
func TestForgedRunning_DoesNotHideTermination(t *testing.T) {
	f := world.Functions[deprovision]
	for name, ahead := range map[string]time.Duration{"months ahead of now": 200 * 24 * time.Hour, "within the clock skew": 30 * time.Second} {
		for _, forgedFirst := range []bool{false, true} {
			i := provisioned(t)
			bodies := [][]byte{fleet.Event(i, "terminated", time.Now()), fleet.Event(i, "running", time.Now().Add(ahead))}
			end := 0
			if forgedFirst {
				slices.Reverse(bodies)
				end = 1
			}
			if again, _ := labtest.Deliver(t, f, bodies...); !slices.Contains(again, end) {
				t.Errorf("%s, forged first: %v: want the real message delivered again while EC2 lags, got %v", name, forgedFirst, again)
			}
			terminate(t, i)
			if again, _ := labtest.Deliver(t, f, bodies...); len(again) > 0 {
				t.Errorf("%s, forged first: %v: want both messages acknowledged, got %v", name, forgedFirst, again)
			}
			if left := objects(t, i); len(left) > 0 {
				t.Errorf("%s, forged first: %v: want the instance removed, left: %q", name, forgedFirst, left)
			}
		}
	}
	i := provisioned(t)
	forged := fleet.Event(i, "running", time.Now().Add(200*24*time.Hour))
	if a := bare(t, f, forged); a.Kind != "refuse" || a.InstanceID != i.ID {
		t.Errorf("want only the forged event refused, got %+v", a)
	}
	logged(t, f, "ahead of now")
	remove(t, i)
}
