package reconcile

import (
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// leave converges the n-th instance as leaving: Auto Scaling terminates it, and EC2 shows it as running.
func (w *world) leave(n int) error {
	f := w.ec2[id(n)]
	f.ObservedAt = w.now
	leaves := converge.Request{Ref: facts.Ref{ID: f.ID, Place: here}, Told: facts.Running, At: w.now, Leaving: true}
	_, err := w.converger(both, false).Converge(w.t.Context(), leaves, instance.Sighting{Found: true, Facts: f})
	return err
}

// EC2 shows an instance in Terminating:Wait as running, for as long as its group's hooks wait.
func TestLeaving_IsNoDriftUntilRestart(t *testing.T) {
	w := newWorld(t, 3)
	if err := w.leave(1); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(time.Hour)
	w.wantRemoved(id(1), "while it leaves", w.wantNoDrift(Input{Mode: Correct}, "while it leaves"))
	f := w.ec2[id(1)]
	f.LaunchTime = w.now
	w.launch(f)
	if a := w.reconcile(Input{Mode: Correct}); a.Summary.Corrected == 0 || w.removed(id(1)) == nil {
		t.Errorf("want a new grant after a stop and a start, got\n%s", answerText(a))
	}
}

// leftHalfRemoved returns a world in which the removal of a leaving instance broke off an hour ago.
func leftHalfRemoved(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, 3)
	w.fail["delete"] = errStorage
	if err := w.leave(1); err == nil {
		t.Fatal("want the removal broken off")
	}
	delete(w.fail, "delete")
	w.now = w.now.Add(time.Hour)
	return w
}

func TestLeaving_BrokenOffRemovalIsFinished(t *testing.T) {
	w := leftHalfRemoved(t)
	a := w.reconcile(Input{Mode: Correct})
	if a.Summary.Orphaned != 1 || a.Summary.Corrected != 1 {
		t.Errorf("want one row about the rest of the removal, corrected, got %+v\n%s", a.Summary, answerText(a))
	}
	w.wantRemoved(id(1), "the rest", a)
	w.wantNoDrift(Input{Mode: Correct}, "after that")
}
