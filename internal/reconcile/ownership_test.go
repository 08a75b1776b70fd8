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

// TestAdoptingNeverDeletesWhatIsSomebodyElses has running instances beside the fleet that another deployment granted
// and no profile here fits: fewer than the delete limit stops, and more.
func TestAdoptingNeverDeletesWhatIsSomebodyElses(t *testing.T) {
	for _, n := range []int{alwaysDeleted - 1, 3 * alwaysDeleted} {
		w := newWorld(t, 10)
		for i := range n {
			f := worker(100 + i)
			w.makeObjects(f, neighbour)
			w.launch(noRole(f))
		}
		before := maps.Clone(w.Objects)
		for range 2 { // a second run meets what the first may have left
			a := w.reconcile(Input{Mode: Correct}, adopting)
			if touched := w.touched(before); len(touched)+len(w.cut) > 0 {
				t.Fatalf("want nothing of another deployment's %d running instances touched: adopting is for what is to be made here; touched %q, cut %q\n%s", n, touched, w.cut, told(a))
			}
			if a.Summary != (Summary{Conflicting: n}) {
				t.Errorf("want one row for each of the %d and nothing done, got\n%s", n, told(a))
			}
			w.now = w.now.Add(time.Hour)
		}
	}
}

// TestAFleetThatAnotherDeploymentTookOverIsLeftToIt has the ledger of the deployment that made the fleet, while the
// policies bear the marker of the one that has adopted it since; no profile here fits any more.
func TestAFleetThatAnotherDeploymentTookOverIsLeftToIt(t *testing.T) {
	w := newWorld(t, 5)
	for _, f := range w.ec2 {
		w.makeObjects(f, neighbour)
		w.launch(noRole(f))
	}
	before := maps.Clone(w.Objects)
	for range 2 {
		a := w.reconcile(Input{Mode: Correct})
		if touched := w.touched(before); len(touched)+len(w.cut) > 0 {
			t.Fatalf("want running instances left to the deployment whose markers they bear, whatever this one's ledger says; touched %q, cut %q\n%s", touched, w.cut, told(a))
		}
		if a.Summary != (Summary{Conflicting: 5}) {
			t.Errorf("want the conflict told for each instance and nothing done, got\n%s", told(a))
		}
		w.now = w.now.Add(time.Hour)
	}
}

// TestPoliciesThatAnotherDeploymentTookOverHoldUpNoLaterRemoval has six instances gone whose recorded policies bear
// another marker: all else of them goes, and what stays does not count for the delete limit of the runs to come.
func TestPoliciesThatAnotherDeploymentTookOverHoldUpNoLaterRemoval(t *testing.T) {
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
			t.Fatalf("want the foreign policy left and all else of instance %s gone, its tokens too; left %q, cut %q\n%s", id(n), left, w.cut, told(a))
		}
		delete(w.ec2, id(n))
	}
	w.now = w.now.Add(time.Hour)
	w.terminate(10)
	for range 2 {
		a = w.reconcile(Input{Mode: Correct})
		if a.Blocked || a.Summary.Conflicting != len(foreign) {
			t.Errorf("want what is left in conflict told for each of %d and no removal held up by it, got\n%s", len(foreign), told(a))
		}
		w.now = w.now.Add(time.Hour)
	}
	if err := w.removed(id(10)); err != nil {
		t.Errorf("want the next instance that ends removed all the same: %v", err)
	}
}

// TestWhatStandsBesideAGrantDoesNotKeepItFromBeingRepaired has a role of nobody's beside a role that was loosened: who
// may write the one could else keep the other open.
func TestWhatStandsBesideAGrantDoesNotKeepItFromBeingRepaired(t *testing.T) {
	w := newWorld(t, 3)
	kubelet, beside := "alice_cluster/pki/k8s/roles/"+id(1)+"-kubelet", "alice_cluster/pki/k8s/roles/"+id(1)+"-zzz"
	w.loosen(kubelet, "allow_any_name", true)
	w.Objects[beside] = map[string]any{"allow_any_name": true}
	a := w.reconcile(Input{Mode: Correct})
	if w.Objects[kubelet]["allow_any_name"] != false {
		t.Errorf("want %s repaired though %s stands beside it, got %v\n%s", kubelet, beside, w.Objects[kubelet], told(a))
	}
	if w.Objects[beside] == nil || a.Summary != (Summary{Changed: 1, Conflicting: 1, Corrected: 1}) {
		t.Errorf("want what nobody can tell the owner of told and left: it stands there: %v\n%s", w.Objects[beside] != nil, told(a))
	}
}

// TestOneMarkedPolicyIsNoProofForARoleThatDoesNotGiveIt has a policy with this deployment's marker, which whoever may
// write policies can forge, beside an auth role made by hand for a running instance.
func TestOneMarkedPolicyIsNoProofForARoleThatDoesNotGiveIt(t *testing.T) {
	w := newWorld(t, 3)
	f := w.launch(noRole(worker(50)))
	role := grant.AuthRolePath("aws", f.ID)
	w.Objects[role] = map[string]any{"auth_type": "ec2", "token_policies": []any{"by-hand"}, "bound_account_id": []any{here.Account}, "bound_region": []any{here.Region}}
	w.Objects[grant.PolicyPath(grant.PolicyName(f.ID, "zzz"))] = map[string]any{"policy": grant.Marker{Deployment: "vault-ec2", InstanceID: f.ID, Profile: "x"}.String()}
	a := w.reconcile(Input{Mode: Correct})
	if w.Objects[role] == nil || slices.Contains(w.cut, f.ID) {
		t.Errorf("want an auth role that does not give the marked policy left, and its tokens: the role stands: %v, cut %q\n%s", w.Objects[role] != nil, w.cut, told(a))
	}
}

// TestATargetedRunSaysOfANameWhatTheWholeRunSays has a running instance hold the name that another one wants. That a
// run does not ask for the holder does not make it gone.
func TestATargetedRunSaysOfANameWhatTheWholeRunSays(t *testing.T) {
	w := newWorld(t, 3)
	f := w.ec2[id(0)]
	f.ID = id(9)
	w.launch(f)
	whole := w.reconcile(Input{Mode: Detect})
	if whole.Summary != (Summary{Conflicting: 1}) {
		t.Fatalf("want one row about the name that is held, got\n%s", told(whole))
	}
	before := maps.Clone(w.Objects)
	for _, mode := range []Mode{Detect, Correct} {
		a := w.reconcile(Input{Mode: mode, InstanceIDs: []string{f.ID}})
		if !reflect.DeepEqual(a.Drift, whole.Drift) {
			t.Errorf("%s: want the row of the whole run\n%s\ngot\n%s", mode, told(whole), told(a))
		}
	}
	if err := w.granted(id(0)); err != nil || len(w.touched(before)) > 0 {
		t.Errorf("want the holder to keep its grant and its name, touched %q: %v", w.touched(before), err)
	}
}

func TestALostClaimIsTakenAgain(t *testing.T) {
	w := newWorld(t, 3)
	delete(w.Claims, w.Records[id(1)].Claims[0])
	a := w.reconcile(Input{Mode: Correct})
	if err := w.granted(id(1)); err != nil || a.Summary != (Summary{Changed: 1, Corrected: 1}) {
		t.Fatalf("want the lost claim found and taken again: %v\n%s", err, told(a))
	}
	f := w.ec2[id(1)]
	f.ID = id(50)
	w.launch(f)
	a = w.reconcile(Input{Mode: Correct})
	if left := w.under(f.ID); len(left) > 0 || a.Summary.Conflicting != 1 {
		t.Errorf("want no second live instance granted the same name, got %q\n%s", left, told(a))
	}
}

// TestAClaimWhoseRecordWasLostIsFreedForTheSuccessor has the successor's repair handed to provision, which may not
// remove, unless reconcile sees that a name must be taken over first.
func TestAClaimWhoseRecordWasLostIsFreedForTheSuccessor(t *testing.T) {
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
		t.Errorf("want the successor granted in one run, the name freed: %v; provision says %v\n%s", err, provision.errs, told(a))
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
		_, err = c.Converge(ctx, req, p.instances().Look(ctx, []facts.Ref{req.Ref})[req.Ref])
		p.errs = append(p.errs, err)
	}
	return make([]error, len(events))
}

// TestWhatIsLeftOfARefusedInstanceIsRemovedToTheLastObject has a record that says "refused" and names nothing, while
// the grant stands: only together do its objects prove whose they are, so they must go together.
func TestWhatIsLeftOfARefusedInstanceIsRemovedToTheLastObject(t *testing.T) {
	w := newWorld(t, 3)
	r := w.Records[id(1)]
	r.State, r.Objects = ledger.Refused, nil
	w.Records[id(1)] = r
	w.terminate(1)
	a := w.reconcile(Input{Mode: Correct})
	if err := w.removed(id(1)); err != nil {
		t.Errorf("want a login that nobody has recorded gone with all else: %v\n%s", err, told(a))
	}
}
