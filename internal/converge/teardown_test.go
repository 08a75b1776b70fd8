package converge_test

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

func TestATornDownDeploymentGrantsNothingNewAndStillRemoves(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.launch(idB, 5)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	since := w.now
	w.Teardown = &since
	w.must(c, idB, facts.Running, converge.TornDown)
	if w.count("vault write") != 4 || w.Records[idB].State != "" {
		t.Errorf("want nothing made and nothing recorded for an instance that starts after the teardown, got\n%s", strings.Join(w.calls, "\n"))
	}
	retire := trigger(idA, facts.Terminated, w.now)
	retire.Teardown = true
	if o, err := c.Converge(t.Context(), retire, instance.Sighting{}); err != nil || o.Action != converge.Deprovisioned || len(o.Paths) != 4 {
		t.Errorf("want the running instance's grant removed, got %+v, %v", o, err)
	}
	if len(w.Objects) > 0 || w.Records[idA].State != ledger.Deleted || len(w.Claims) > 0 {
		t.Errorf("want nothing left, got %v, %+v, %v", w.Objects, w.Records[idA], w.Claims)
	}
	if o, err := w.converger(converge.Duties{Make: true}).Converge(t.Context(), retire, instance.Sighting{}); err != nil || o.Action != converge.LeftAlone {
		t.Errorf("want a function that may not remove to leave it, got %+v, %v", o, err)
	}
}

// The other deployment's profile calls its policy otherwise: only the auth role, at the path of both, tells.
func TestAnAuthRoleThatGivesAnotherDeploymentsPolicyIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	f := w.launch(idA, 4)
	c := w.converger(both)
	w.must(c, idA, facts.Running, converge.Provisioned)
	theirs := "ec2-" + idA + "-node2"
	w.Objects["sys/policies/acl/"+theirs] = marked("another-deployment", idA)
	role := w.Objects[roleA]
	role["token_policies"] = []string{theirs}
	before := maps.Clone(role)
	retire := trigger(idA, facts.Terminated, w.now)
	retire.Teardown = true
	if _, err := c.Converge(t.Context(), retire, instance.Sighting{}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a teardown: want a conflict, got %v", err)
	}
	verify := trigger(idA, facts.Running, w.now)
	verify.Verify = true
	s := sighting(f)
	s.Facts.ObservedAt = w.now
	if _, err := c.Converge(t.Context(), verify, s); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a repair: want a conflict, got %v", err)
	}
	f.IAMRoleARN = ""
	w.ec2[idA] = f
	if _, err := w.handle(c, idA, facts.Running); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a removal because no profile fits: want a conflict, got %v", err)
	}
	if !reflect.DeepEqual(w.Objects[roleA], before) {
		t.Errorf("the instance lost its login to the other deployment: %v, before it was %v", w.Objects[roleA], before)
	}
}

func TestAGrantIsNotBegunWhenNobodyKnowsWhetherTheDeploymentIsTornDown(t *testing.T) {
	w := newWorld(t)
	w.launch(idA, 4)
	w.fail = func(_ int, call string) (error, bool) {
		if call == "ledger torn down" {
			return errors.New("down"), false
		}
		return nil, false
	}
	if _, err := w.handle(w.converger(both), idA, facts.Running); err == nil || fault.KindOf(err) != fault.Retry || len(w.Objects) > 0 {
		t.Errorf("want it tried again and nothing made, got %v, %v", err, w.Objects)
	}
}
