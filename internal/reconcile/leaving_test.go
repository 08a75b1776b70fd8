package reconcile

import (
	"errors"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// EC2 shows an instance in Terminating:Wait as running, for as long as its group's hooks wait.
func TestARunningInstanceThatItsGroupTerminatesIsNoDriftUntilItIsStartedAnew(t *testing.T) {
	w := newWorld(t, 3)
	f := w.ec2[id(1)]
	f.ObservedAt = w.now
	leaves := converge.Request{Ref: facts.Ref{ID: f.ID, Place: facts.Place{Account: f.Account, Region: f.Region}}, Told: facts.Running, At: w.now, Leaving: true}
	if _, err := w.converger(both, false).Converge(t.Context(), leaves, instance.Sighting{Found: true, Facts: f}); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Hour)
	if a := w.reconcile(Input{Mode: Correct}); len(a.Drift) > 0 {
		t.Errorf("want no drift, got\n%s", told(a))
	}
	if err := w.removed(id(1)); err != nil {
		t.Errorf("want it left without a grant: %v", err)
	}
	f.LaunchTime = w.now
	w.ec2[id(1)] = f
	if a := w.reconcile(Input{Mode: Correct}); a.Summary.Corrected == 0 || w.removed(id(1)) == nil {
		t.Errorf("want it granted anew once it was stopped and started, got\n%s", told(a))
	}
}

func TestARemovalOfALeavingInstanceThatBrokeOffIsTakenUp(t *testing.T) {
	w := newWorld(t, 3)
	f := w.ec2[id(1)]
	f.ObservedAt = w.now
	leaves := converge.Request{Ref: facts.Ref{ID: f.ID, Place: facts.Place{Account: f.Account, Region: f.Region}}, Told: facts.Running, At: w.now, Leaving: true}
	w.fail["delete"] = errors.New("sealed")
	if _, err := w.converger(both, false).Converge(t.Context(), leaves, instance.Sighting{Found: true, Facts: f}); err == nil {
		t.Fatal("want the removal broken off")
	}
	delete(w.fail, "delete")
	w.now = w.now.Add(time.Hour)
	a := w.reconcile(Input{Mode: Correct})
	if a.Summary.Orphaned != 1 || a.Summary.Corrected != 1 {
		t.Errorf("want the one row that says what is left, corrected, got %+v\n%s", a.Summary, told(a))
	}
	if err := w.removed(id(1)); err != nil {
		t.Error(err)
	}
	if a := w.reconcile(Input{Mode: Correct}); len(a.Drift) > 0 {
		t.Errorf("want no drift after that, got\n%s", told(a))
	}
}
