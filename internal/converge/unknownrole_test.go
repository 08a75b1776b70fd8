package converge_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
)

// lost returns the sighting of an instance whose instance profile does not exist any more.
func (w *world) lost(id string) instance.Sighting {
	s := w.instances().Describe(w.t.Context(), []facts.Ref{request(id, "", start).Ref})[request(id, "", start).Ref]
	s.Facts.IAMRoleARN = ""
	s.Err = &instance.RoleError{Err: fault.Refusef("instance %s: its instance profile does not exist in IAM", id)}
	return s
}

func TestLostInstanceProfile_KeepsTheGrant(t *testing.T) {
	w, c := provisioned(t, both)
	before := maps.Clone(w.Objects)
	for range 2 {
		done, err := c.Converge(t.Context(), request(idA, facts.Running, w.clock()), w.lost(idA))
		if fault.KindOf(err) != fault.Refuse || !done.Holds || !strings.Contains(err.Error(), "does not exist") {
			t.Errorf("want a refusal that keeps the grant, got %+v, %v: a retry would fill the dead-letter queue", done, err)
		}
	}
	if r := w.Records[idA]; !strings.Contains(r.LastError, "does not exist") || r.Attempts != 1 {
		t.Errorf("want the reason recorded once, got %+v", r)
	}
	for path := range before {
		if w.Objects[path] == nil {
			t.Errorf("%s is gone: nothing is deleted on doubt", path)
		}
	}
	if done, err := c.Converge(t.Context(), w.leaves(), w.lost(idA)); err != nil || done.Action != converge.Deprovisioned {
		t.Errorf("want an instance that its group terminates removed, got %+v, %v: a removal does not depend on the role", done, err)
	}
	removed := w.Records[idA]
	if done, err := c.Converge(t.Context(), request(idA, facts.Running, w.clock()), w.lost(idA)); err != nil || done.Action != converge.LeftAlone || w.Records[idA].State != removed.State {
		t.Errorf("want a removed instance of its group left alone, got %+v, %v, %+v", done, err, w.Records[idA])
	}
}

// TestLostInstanceProfile_OfAnUnknownInstanceLeavesNoRecord has an instance that may belong to anything else in the account.
func TestLostInstanceProfile_OfAnUnknownInstanceLeavesNoRecord(t *testing.T) {
	w, c := provisioned(t, both)
	w.launch(idB, 9)
	if _, err := c.Converge(t.Context(), request(idB, facts.Running, w.clock()), w.lost(idB)); fault.KindOf(err) != fault.Refuse {
		t.Errorf("want a refusal, got %v", err)
	}
	if r, found := w.Records[idB]; found {
		t.Errorf("want no record of an instance that may not be ours, got %+v", r)
	}
}

func TestLostInstanceProfile_DelaysNoRemoval(t *testing.T) {
	w, c := provisioned(t, both)
	req := request(idA, facts.Terminated, w.clock())
	w.pass(time.Second)
	if _, err := c.Converge(t.Context(), req, w.lost(idA)); fault.KindOf(err) != fault.Retry {
		t.Errorf("want the event kept until EC2 shows the end, got %v: no other event will report it", err)
	}
}
