package reconcile

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/event"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

var neighbour = grant.Realm{Deployment: "deployment-b", AuthMount: "aws"}

// TestAdopt_NeverDeletesForeignObjects has running instances that another deployment granted and no profile here fits:
// fewer than the delete limit stops, and more.
func TestAdopt_NeverDeletesForeignObjects(t *testing.T) {
	for _, n := range []int{alwaysDeleted - 1, 3 * alwaysDeleted} {
		w := newWorld(t, 10)
		for i := range n {
			f := worker(100 + i)
			w.makeObjects(f, neighbour)
			w.launch(noRole(f))
		}
		w.wantAllConflicting(n, adopting) // adoption is for making only
	}
}

// TestForeignFleet_IsLeftToItsOwner runs in the deployment that made the fleet and whose ledger records it. The
// policies have the marker of the deployment that adopted the fleet, and no profile here fits any more.
func TestForeignFleet_IsLeftToItsOwner(t *testing.T) {
	w := newWorld(t, 5)
	for _, f := range w.ec2 {
		w.makeObjects(f, neighbour)
		w.launch(noRole(f))
	}
	w.wantAllConflicting(5)
}

// TestForeignPolicies_DelayNoLaterRemoval has six terminated instances whose recorded policies have
// another marker. Their other objects are removed, and the policies do not count toward the delete limit of later runs.
func TestForeignPolicies_DelayNoLaterRemoval(t *testing.T) {
	w := newWorld(t, 20)
	var foreign []string
	for n := range alwaysDeleted + 1 {
		policy := grant.PolicyPath(grant.PolicyName(id(n), "node"))
		w.loosen(policy, "policy", grant.Marker{Deployment: neighbour.Deployment, InstanceID: id(n), Profile: "x"}.String())
		foreign = append(foreign, policy)
		w.terminate(n)
	}
	a := w.reconcile(Input{Mode: Correct, Force: true})
	for n, policy := range foreign {
		if left := w.under(id(n)); !slices.Equal(left, []string{policy}) || !slices.Contains(w.cut, id(n)) {
			t.Fatalf("want the foreign policy left, and all other objects and tokens of instance %s removed; left %q, cut %q\n%s", id(n), left, w.cut, answerText(a))
		}
		delete(w.ec2, id(n))
	}
	w.now = w.now.Add(time.Hour)
	w.terminate(10)
	for range 2 {
		a = w.reconcile(Input{Mode: Correct})
		if a.Blocked || a.Summary.Conflicting != len(foreign) {
			t.Errorf("want one conflicting row for each of %d, and no removal held up by them, got\n%s", len(foreign), answerText(a))
		}
		w.now = w.now.Add(time.Hour)
	}
	w.wantRemoved(id(10), "the next instance that ends", a)
}

// TestUnknownObject_DoesNotStopARepair has a role of an unknown owner beside a role that was loosened. Its
// writer could otherwise keep the loosened role open.
func TestUnknownObject_DoesNotStopARepair(t *testing.T) {
	w := newWorld(t, 3)
	kubelet, beside := "alice_cluster/pki/k8s/roles/"+id(1)+"-kubelet", "alice_cluster/pki/k8s/roles/"+id(1)+"-zzz"
	w.loosen(kubelet, "allow_any_name", true)
	w.Objects[beside] = map[string]any{"allow_any_name": true}
	a := w.reconcile(Input{Mode: Correct})
	if w.Objects[kubelet]["allow_any_name"] != false {
		t.Errorf("want %s repaired though %s exists beside it, got %v\n%s", kubelet, beside, w.Objects[kubelet], answerText(a))
	}
	if w.Objects[beside] == nil || a.Summary != (Summary{Changed: 1, Conflicting: 1, Corrected: 1}) {
		t.Errorf("want a row for the role of an unknown owner, and the role left: it exists: %v\n%s", w.Objects[beside] != nil, answerText(a))
	}
}

// TestMarkedPolicy_IsNoProofForOtherAuthRole has a policy with this deployment's marker, which any writer of policies
// can forge, beside an auth role made by hand for a running instance.
func TestMarkedPolicy_IsNoProofForOtherAuthRole(t *testing.T) {
	w := newWorld(t, 3)
	f := w.launch(noRole(worker(50)))
	role := grant.AuthRolePath("aws", f.ID)
	w.Objects[role] = map[string]any{"auth_type": "ec2", "token_policies": []any{"by-hand"}, "bound_account_id": []any{here.Account}, "bound_region": []any{here.Region}}
	w.Objects[grant.PolicyPath(grant.PolicyName(f.ID, "zzz"))] = map[string]any{"policy": grant.Marker{Deployment: "vault-ec2", InstanceID: f.ID, Profile: "x"}.String()}
	a := w.reconcile(Input{Mode: Correct})
	if w.Objects[role] == nil || slices.Contains(w.cut, f.ID) {
		t.Errorf("want an auth role and its tokens left that does not give the marked policy: the role exists: %v, cut %q\n%s", w.Objects[role] != nil, w.cut, answerText(a))
	}
}

// TestTargetedRun_AgreesWithTheWholeRun has a running instance hold the name that another one wants. A run that does
// not list the holder must not take it for gone.
func TestTargetedRun_AgreesWithTheWholeRun(t *testing.T) {
	w := newWorld(t, 3)
	f := w.launchAs(0, id(9))
	whole := w.reconcile(Input{Mode: Detect})
	if whole.Summary != (Summary{Conflicting: 1}) {
		t.Fatalf("want one row about the held name, got\n%s", answerText(whole))
	}
	before := maps.Clone(w.Objects)
	for _, mode := range []Mode{Detect, Correct} {
		a := w.reconcile(Input{Mode: mode, InstanceIDs: []string{f.ID}})
		if !reflect.DeepEqual(a.Drift, whole.Drift) {
			t.Errorf("%s: want the row of the whole run\n%s\ngot\n%s", mode, answerText(whole), answerText(a))
		}
	}
	if err := w.granted(id(0)); err != nil || len(w.touched(before)) > 0 {
		t.Errorf("want the holder to keep grant and name, touched %q: %v", w.touched(before), err)
	}
}

func TestLostClaim_IsTakenAgain(t *testing.T) {
	w := newWorld(t, 3)
	delete(w.Claims, w.Records[id(1)].Claims[0])
	a := w.reconcile(Input{Mode: Correct})
	if err := w.granted(id(1)); err != nil || a.Summary != (Summary{Changed: 1, Corrected: 1}) {
		t.Fatalf("want the lost claim found and taken again: %v\n%s", err, answerText(a))
	}
	f := w.launchAs(1, id(50))
	a = w.reconcile(Input{Mode: Correct})
	if left := w.under(f.ID); len(left) > 0 || a.Summary.Conflicting != 1 {
		t.Errorf("want the same name not granted to a second live instance, got %q\n%s", left, answerText(a))
	}
}

// TestClaim_WithoutRecordIsFreed has the successor's repair handed to provision, which may not remove,
// unless reconcile sees that a name must be freed first.
func TestClaim_WithoutRecordIsFreed(t *testing.T) {
	w := newWorld(t, 3)
	delete(w.Records, id(1))
	w.terminate(1)
	w.reconcile(Input{Mode: Correct})
	successor := w.ec2[id(1)]
	delete(w.ec2, id(1))
	w.now = w.now.Add(2 * time.Hour)
	successor.ID, successor.State = id(77), facts.Running
	w.launch(successor)
	provision := &provisioning{world: w}
	a := w.reconcile(Input{Mode: Correct}, func(o *Options) { o.Queue = provision })
	if err := w.granted(successor.ID); err != nil {
		t.Errorf("want the name freed and the successor granted in one run: %v; provision returned %v\n%s", err, provision.errs, answerText(a))
	}
}

// provisioning is a queue and the function behind it, which may make and not remove.
type provisioning struct {
	*world
	errs []error
}

func (p *provisioning) Send(ctx context.Context, events []event.Event) []error {
	c := p.converger(converge.Duties{Make: true}, false)
	for _, e := range events {
		body, err := event.Body(e)
		if err != nil {
			return []error{err}
		}
		payload, err := event.Parse(body)
		if err != nil {
			return []error{err}
		}
		req := converge.RequestOf(payload.Records[0].Event)
		_, err = c.Converge(ctx, req, p.instances().Describe(ctx, []facts.Ref{req.Ref})[req.Ref])
		p.errs = append(p.errs, err)
	}
	return make([]error, len(events))
}

// TestRefusedInstance_IsRemovedCompletely has a refused record that names no object, while the grant exists.
// Only together do its objects prove their owner, so they must be removed together.
func TestRefusedInstance_IsRemovedCompletely(t *testing.T) {
	w := newWorld(t, 3)
	w.edit(id(1), func(r *ledger.Record) { r.State, r.Objects = ledger.Refused, nil })
	w.terminate(1)
	a := w.reconcile(Input{Mode: Correct})
	w.wantRemoved(id(1), "with its unrecorded login", a)
}
