package reconcile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

// crowded has Vault list no aliases, since there are too many.
func (w *world) crowded() {
	w.fail["aliases"] = fmt.Errorf("listing identity/entity-alias/id in Vault: %w: there are more than a million", vault.ErrTooLong)
}

// aliasesIn returns the trouble of the aliases in an answer.
func aliasesIn(t *testing.T, a Answer) PlaceTrouble {
	t.Helper()
	i := slices.IndexFunc(a.Places, func(p PlaceTrouble) bool { return p.Folder == aliasFolder })
	if i < 0 {
		t.Fatalf("want the answer to say that the aliases were not listed\n%s", answerText(a))
	}
	return a.Places[i]
}

// TestManyAliases_HoldUpNoRemoval has an instance to remove, and the entity of a late login of one that was removed.
func TestManyAliases_HoldUpNoRemoval(t *testing.T) {
	w := newWorld(t, 10)
	for n := range 2 {
		w.remove(id(n))
		delete(w.ec2, id(n))
		w.Add(alias(id(n)), id(n))
	}
	w.edit(id(1), func(r *ledger.Record) { r.UpdatedAt = w.now.Add(-30 * 24 * time.Hour) })
	w.now = w.now.Add(time.Hour)
	w.terminate(5)
	w.crowded()
	a := w.reconcile(Input{Mode: Correct})
	if err := w.removed(id(5)); err != nil || a.Blocked {
		t.Errorf("want the ended instance removed: %v\n%s", err, answerText(a))
	}
	if left := slices.Collect(maps.Keys(w.Entities)); len(left) != 1 || left[0] != alias(id(1)) {
		t.Errorf("want the entity of the instance that was removed an hour ago deleted, and that of a month ago not found; left %v", left)
	}
	trouble := aliasesIn(t, a)
	if trouble.Withholds || !strings.Contains(trouble.Error, "more than 24 hours ago") {
		t.Errorf("want what is not found named, and nothing withheld; got %+v", trouble)
	}
	if asked := w.calls["entity"]; asked > 4 {
		t.Errorf("want Vault asked about the removed instances only, and no live one; it was asked %d times", asked)
	}
	w.fail["aliases"] = nil
	if w.reconcile(Input{Mode: Correct}); len(w.Entities) > 0 {
		t.Errorf("want the last entity deleted once the aliases can be listed, left %v", w.Entities)
	}
}

func TestManyAliases_EntityByRoleIDIsFound(t *testing.T) {
	w := newWorld(t, 10)
	record := w.Records[id(3)]
	roleID := record.RoleIDs()[0]
	w.remove(id(3))
	delete(w.ec2, id(3))
	w.Add(alias(roleID), id(3))
	w.now = w.now.Add(time.Hour)
	w.crowded()
	if a := w.reconcile(Input{Mode: Correct}); len(w.Entities) > 0 {
		t.Errorf("want the entity behind the former role's ID deleted\n%s", answerText(a))
	}
}

// An entity that cannot be asked about is the trouble of its instance only.
func TestManyAliases_FailedLookupKeepsItsInstance(t *testing.T) {
	w := newWorld(t, 10)
	w.terminate(5)
	w.spoil(9) // the instances 0 and 9
	w.now = w.now.Add(time.Hour)
	w.crowded()
	w.fail["entity"] = errStorage
	a := w.reconcile(Input{Mode: Correct})
	if a.Summary.Failed != 1 || a.Blocked || w.Records[id(5)].State != ledger.Active {
		t.Errorf("want one failed row, and that instance kept\n%s", answerText(a))
	}
	for _, n := range []int{0, 9} {
		if err := w.granted(id(n)); err != nil {
			t.Errorf("want the other instances repaired: %v", err)
		}
	}
}

// Any other error of the list still withholds every delete: it may be an outage, or a missing right.
func TestAliases_OtherErrorWithholdsDeletes(t *testing.T) {
	w := newWorld(t, 10)
	w.terminate(5)
	w.fail["aliases"] = errStorage
	if a := w.reconcile(Input{Mode: Correct}); !a.Blocked || w.Records[id(5)].State == ledger.Deleted || !strings.Contains(a.BlockedReason, errStorage.Error()) {
		t.Errorf("want nothing deleted\n%s", answerText(a))
	}
	w.crowded()
	w.fail["mount"] = errors.New("status 403")
	if a := w.reconcile(Input{Mode: Correct}); !a.Blocked || !strings.Contains(a.BlockedReason, "403") {
		t.Errorf("want nothing deleted where single entities cannot be asked about either\n%s", answerText(a))
	}
}

func TestManyAliases_TeardownRemovesTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		w.remove(id(1))
		delete(w.ec2, id(1))
		w.Add(alias(id(1)), id(1))
		w.now = w.now.Add(time.Hour)
		w.crowded()
		a := w.reconciler().TearDown(t.Context(), Input{Mode: Teardown}, w.converger(both, false), silent)
		for n := range 5 {
			if err := w.removed(id(n)); err != nil {
				t.Error(err)
			}
		}
		if len(w.Entities) > 0 || aliasesIn(t, a).Withholds {
			t.Errorf("want the entity of the former instance deleted too, left %v\n%s", w.Entities, answerText(a))
		}
	})
}

func TestManyAliases_GoneInstanceIsRemoved(t *testing.T) {
	w := newWorld(t, 5)
	delete(w.ec2, id(1))
	w.now = w.now.Add(time.Hour)
	w.crowded()
	in := Input{Mode: Correct, Force: true, Gone: &Gone{InstanceIDs: []string{id(1)}, AtMost: 1}}
	a := w.reconciler(func(o *Options) { o.Places = []facts.Place{here} }).RemoveGone(t.Context(), in, w.converger(both, false), silent)
	if err := w.removed(id(1)); err != nil || a.Blocked {
		t.Errorf("want the instance removed by word: %v\n%s", err, answerText(a))
	}
}
