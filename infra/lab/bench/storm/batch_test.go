package storm

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
)

func instances(n int) []fleet.Instance {
	all := make([]fleet.Instance, n)
	for i := range all {
		all[i] = fleet.Instance{
			ID: fmt.Sprintf("i-%017d", i+100), PrivateIP: fmt.Sprintf("10.0.0.%d", i+100), PrivateDNS: fmt.Sprintf("ip-10-0-0-%d.ec2.internal", i+100),
		}
	}
	return all
}

// inSequence returns the steps, one after the other.
func inSequence(steps ...step) []recorded {
	var all []recorded
	at := time.Unix(0, 0)
	for _, s := range steps {
		all = append(all, recorded{step: s, start: at, end: at.Add(time.Millisecond)})
		at = at.Add(2 * time.Millisecond)
	}
	return all
}

func look(i fleet.Instance) step {
	return step{service: vaultService, method: http.MethodGet, path: "/v1/auth/aws/role/" + i.ID, status: http.StatusNotFound}
}

func put(i fleet.Instance) step {
	return step{service: vaultService, method: http.MethodPut, path: "/v1/auth/aws/role/" + i.ID, status: http.StatusNoContent}
}

func readBack(i fleet.Instance) step {
	s := look(i)
	s.status = http.StatusOK
	return s
}

func list() step {
	return step{service: vaultService, method: http.MethodGet, path: "/v1/auth/aws/roles?list=true", status: http.StatusOK}
}

func ledgerCall(action, body string) step {
	return step{service: dynamoService, method: http.MethodPost, action: action, path: "/", body: body, status: http.StatusOK}
}

// A list replaces the looks of a whole batch, and one read the reads of its records: bare HTTP must make them once, too.
func TestSplit_SeparatesTheCallsOfABatch(t *testing.T) {
	all := instances(4)
	alone, batch := all[0], all[1:]
	one := recipeOf(inSequence(
		ledgerCall("GetItem", alone.ID), ledgerCall("TransactWriteItems", alone.ID), look(alone), put(alone), readBack(alone)), alone)
	steps := []step{ledgerCall("BatchGetItem", batch[0].ID+batch[1].ID+batch[2].ID), list()}
	for _, i := range batch {
		steps = append(steps, ledgerCall("TransactWriteItems", i.ID), put(i), readBack(i))
	}
	steps = append(steps, look(batch[2])) // of one instance that has been there before
	got := split(one, inSequence(steps...), batch)

	names := func(r recipe) (all []string) {
		for _, stage := range r.stages {
			for _, l := range stage {
				for _, s := range l {
					all = append(all, fmt.Sprint(s.action, s.method, s.status))
				}
			}
		}
		return all
	}
	if got, want := names(got.shared), []string{"BatchGetItemPOST200", "GET200", "GET404"}; !slices.Equal(got, want) {
		t.Errorf("the calls of the batch are %q, want %q", got, want)
	}
	if got, want := names(got.each), []string{"TransactWriteItemsPOST200", "PUT204", "GET200"}; !slices.Equal(got, want) {
		t.Errorf("the calls for each instance are %q, want %q: the look is not made for each, its read-back is", got, want)
	}
	if got, want := got.perInstance(func(step) bool { return true }), 3+3.0/3; got != want {
		t.Errorf("%v calls for each instance, want %v", got, want)
	}
}

// The functions work without shared calls as well.
func TestSplit_WithoutSharedCallsKeepsAll(t *testing.T) {
	all := instances(3)
	steps := func(i fleet.Instance) []step { return []step{look(i), put(i), readBack(i)} }
	got := split(recipeOf(inSequence(steps(all[0])...), all[0]), inSequence(append(steps(all[1]), steps(all[2])...)...), all[1:])
	if each, shared := got.each.steps(), got.shared.steps(); each != 3 || shared != 0 {
		t.Errorf("%d calls for each and %d for the batch, want 3 and none", each, shared)
	}
}

// A shared call names all instances of its batch. Played for others, it must name those.
func TestRecipe_ReplacesAllInstancesOfABatch(t *testing.T) {
	all := instances(4)
	recorded, others := all[:2], all[2:]
	r := recipe{of: recorded}
	text := func(of []fleet.Instance) string { return of[0].ID + of[1].PrivateIP + of[1].PrivateDNS }
	if got, want := r.replacer(others).Replace(text(recorded)), text(others); got != want {
		t.Errorf("the call names %s, want %s", got, want)
	}
}
