package converge_test

import (
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

func TestTornDown_GrantsNothingAndStillRemoves(t *testing.T) {
	w, c := provisioned(t, both)
	w.launch(idB, 5)
	since := w.now
	w.Teardown = &since
	w.must(c, idB, facts.Running, converge.TornDown)
	if w.count("vault write") != 4 || w.Records[idB].State != "" {
		t.Errorf("want no object and no record of an instance that starts after the teardown, got\n%s", strings.Join(w.calls, "\n"))
	}
	teardown := request(idA, facts.Terminated, w.now)
	teardown.Teardown = true
	if o, err := c.Converge(t.Context(), teardown, instance.Sighting{}); err != nil || o.Action != converge.Deprovisioned || len(o.Paths) != 4 {
		t.Errorf("want the running instance's grant removed, got %+v, %v", o, err)
	}
	if len(w.Objects) > 0 || w.Records[idA].State != ledger.Deleted || len(w.Claims) > 0 {
		t.Errorf("want nothing left, got %v, %+v, %v", w.Objects, w.Records[idA], w.Claims)
	}
	if o, err := w.converger(mayMake).Converge(t.Context(), teardown, instance.Sighting{}); err != nil || o.Action != converge.LeftAlone {
		t.Errorf("want the grant left by a function that may not remove, got %+v, %v", o, err)
	}
}

// The other deployment's policy has another name. Only the auth role, at the path of both, shows it.
func TestAuthRole_WithForeignPolicyIsLeftAlone(t *testing.T) {
	w, c := provisioned(t, both)
	theirs := "ec2-" + idA + "-node2"
	w.Objects["sys/policies/acl/"+theirs] = marked("another-deployment", idA)
	role := w.Objects[roleA]
	role["token_policies"] = []string{theirs}
	before := maps.Clone(role)
	teardown := request(idA, facts.Terminated, w.now)
	teardown.Teardown = true
	if _, err := c.Converge(t.Context(), teardown, instance.Sighting{}); !isFault(err, fault.Conflict) {
		t.Errorf("a teardown: want a conflict, got %v", err)
	}
	w.wantFault(c, verify(w, facts.Running), fault.Conflict, "a repair")
	w.unmatch()
	w.wantFault(c, w.event(idA, facts.Running), fault.Conflict, "a removal because no profile fits")
	if !reflect.DeepEqual(w.Objects[roleA], before) {
		t.Errorf("want the login of the other deployment left as it was: %v, got %v", before, w.Objects[roleA])
	}
}

func TestTornDown_UnknownBeginsNoGrant(t *testing.T) {
	w, c := launched(t, both)
	if w.breakOff(c, w.event(idA, facts.Running), "ledger torn down", errDown); len(w.Objects) > 0 {
		t.Errorf("want nothing made, got %v", w.Objects)
	}
}
