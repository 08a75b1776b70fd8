package ownership_test

import (
	"fmt"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ownership"
)

const id = "i-0123456789abcdef0"

var mine = ownership.Instance{Deployment: "mine", ID: id}

// policies are the states that one policy of the instance can have in Vault.
var policies = map[string]map[string]any{
	"absent":                     nil,
	"ours":                       marked("mine", id),
	"another's":                  marked("other", id),
	"ours, of another instance":  marked("mine", "i-0fffffffffffffff0"),
	"other's, of other instance": marked("other", "i-0fffffffffffffff0"),
	"unmarked":                   {"policy": "path \"x\" { capabilities = [\"read\"] }"},
}

func marked(deployment, instanceID string) map[string]any {
	return map[string]any{"policy": grant.Marker{Deployment: deployment, InstanceID: instanceID, Profile: "worker"}.String()}
}

func policyPath(output string) string { return grant.PolicyPath(grant.PolicyName(id, output)) }

// records are the records that an instance can have, by which the object at path is recorded or not.
func records(path string) map[string]*ledger.Record {
	holding := func(state ledger.State, profile string, paths ...string) *ledger.Record {
		r := &ledger.Record{InstanceID: id, State: state, Profile: profile}
		for _, p := range paths {
			r.Objects = append(r.Objects, ledger.Object{Path: p})
		}
		return r
	}
	return map[string]*ledger.Record{
		"none":                  nil,
		"refused, never made":   holding(ledger.Refused, ""),
		"tombstone":             holding(ledger.Deleted, "worker"),
		"tombstone, never made": holding(ledger.Deleted, ""),
		"active, names it":      holding(ledger.Active, "worker", path),
		"active, names others":  holding(ledger.Active, "worker", "elsewhere"),
	}
}

// TestOwner_FollowsTheTable walks every combination of an object, the instance's two policies and its record, and holds
// the owner against the package's table, stated again here as one condition for each row.
func TestOwner_FollowsTheTable(t *testing.T) {
	login := grant.AuthRolePath("aws", id)
	giving := map[string]any{"token_policies": []any{grant.PolicyName(id, "a")}}
	objects := []ownership.Object{
		{Kind: grant.KindPKIRole, Path: "alice/pki/roles/" + id + "-x", Data: map[string]any{"max_ttl": "1h"}},
		{Kind: grant.KindGeneric, Path: "alice/kv/" + id + "-x", Data: map[string]any{"a": "b"}},
		{Kind: grant.KindAuthRole, Path: login, Data: giving},
		{Kind: grant.KindAuthRole, Path: login, Data: map[string]any{"token_policies": []any{"root-like"}}},
		{Kind: grant.KindAuthRole, Path: login},
	}
	n := 0
	for _, o := range objects {
		for recordName, record := range records(o.Path) {
			for nameA, a := range policies {
				for nameB, b := range policies {
					for _, ofGrant := range []bool{true, false} {
						set := []ownership.Object{
							{Kind: grant.KindPolicy, Path: policyPath("a"), Data: a},
							{Kind: grant.KindPolicy, Path: policyPath("b"), Data: b},
							o,
						}
						evidence := ownership.OfUntracked(mine, record, set)
						isUnmarked := func(name string) bool { return name != "ours" && name != "absent" }
						lost := (nameA == "ours" || nameB == "ours") && !isUnmarked(nameA) && !isUnmarked(nameB)
						if ofGrant {
							evidence = ownership.OfGrant(mine, record, set)
							lost = nameA == "ours" && nameB == "ours"
						}
						lost = lost && (record == nil || len(record.Objects) == 0)
						givesOurs := nameA == "ours" && fmt.Sprint(o.Data) == fmt.Sprint(giving)
						want := ownership.Unknown
						switch {
						case recordName == "active, names it":
							want = ownership.Ours
						case o.Kind == grant.KindAuthRole && !ofGrant:
							if lost && givesOurs {
								want = ownership.Ours
							}
						case lost:
							want = ownership.Ours
						}
						leftovers := ownership.Unknown
						if lost || (record != nil && record.Profile != "") {
							leftovers = ownership.Ours
						}
						where := fmt.Sprintf("%s %v, policies %s and %s, record %s, of a grant %v", o.Kind, o.Data, nameA, nameB, recordName, ofGrant)
						if got := evidence.OwnerOf(o); got != want {
							t.Errorf("%s: its owner is %s, want %s: only what is ours may be overwritten or deleted", where, got, want)
						}
						if got := evidence.OwnerOfLeftovers(); got != leftovers {
							t.Errorf("%s: the owner of its leftovers is %s, want %s", where, got, leftovers)
						}
						if evidence.Lost() != lost {
							t.Errorf("%s: its record is lost %v, want %v", where, evidence.Lost(), lost)
						}
						n++
					}
				}
			}
		}
	}
	if want := 5 * 6 * 6 * 6 * 2; n != want {
		t.Errorf("%d combinations were tried, want %d", n, want)
	}
}

func TestPolicyOwner_IsNamedByItsMarker(t *testing.T) {
	want := map[string]ownership.Owner{"ours": ownership.Ours, "another's": ownership.Another}
	for name, policy := range policies {
		expected, ok := want[name]
		if !ok {
			expected = ownership.Unknown
		}
		evidence := ownership.OfUntracked(mine, &ledger.Record{Objects: []ledger.Object{{Path: policyPath("a")}}}, nil)
		for how, got := range map[string]ownership.Owner{
			"by itself":         mine.OwnerOf(policy),
			"though recorded":   evidence.OwnerOf(ownership.Object{Kind: grant.KindPolicy, Path: policyPath("a"), Data: policy}),
			"among its objects": ownership.OfGrant(mine, nil, nil).OwnerOf(ownership.Object{Kind: grant.KindPolicy, Path: policyPath("a"), Data: policy}),
		} {
			if got != expected {
				t.Errorf("a policy that is %s, %s: its owner is %s, want %s", name, how, got, expected)
			}
		}
		deployment, other := mine.NamesAnother(policy)
		if wantOther := name == "another's" || name == "other's, of other instance"; other != wantOther || other != (deployment == "other") {
			t.Errorf("a policy that is %s: it names another deployment %v (%q), want %v", name, other, deployment, wantOther)
		}
	}
}

func TestInstance_IsAnothersByItsPoliciesAlone(t *testing.T) {
	for nameA, a := range policies {
		for nameB, b := range policies {
			set := []ownership.Object{{Kind: grant.KindPolicy, Path: policyPath("a"), Data: a}, {Kind: grant.KindPolicy, Path: policyPath("b"), Data: b}}
			want := (nameA == "another's" || nameB == "another's") && nameA != "ours" && nameB != "ours"
			if got := ownership.OfUntracked(mine, nil, set).IsAnothers(); got != want {
				t.Errorf("policies %s and %s: the instance is another's %v, want %v", nameA, nameB, got, want)
			}
		}
	}
}
