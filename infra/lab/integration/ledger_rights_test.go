package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
)

// ledgerUse is one key of the ledger that a call reads or writes, with the IAM action for it.
type ledgerUse struct{ action, key string }

// ledgerUses returns the uses of a call, of a transaction part by part. A call without keys, such as Scan, has none.
func ledgerUses(t *testing.T, c tap.Call) []ledgerUse {
	t.Helper()
	type item struct {
		Key, Item map[string]struct{ S string }
	}
	var body struct {
		item
		TransactItems []map[string]item
		RequestItems  map[string]struct {
			Keys []map[string]struct{ S string }
		}
	}
	if err := json.Unmarshal(c.Body, &body); err != nil {
		t.Fatal(err)
	}
	var uses []ledgerUse
	add := func(action string, i item) {
		if key := i.Key["pk"].S + i.Item["pk"].S; key != "" {
			uses = append(uses, ledgerUse{"dynamodb:" + action, key})
		}
	}
	add(c.Action, body.item)
	for _, of := range body.RequestItems {
		for _, key := range of.Keys {
			add(c.Action, item{Key: key})
		}
	}
	for _, parts := range body.TransactItems {
		for part, i := range parts {
			add(part+"Item", i)
		}
	}
	return uses
}

// leadingKeys adds the key patterns that v's statements allow, by action.
func leadingKeys(v any, into map[string][]string) {
	switch v := v.(type) {
	case map[string]any:
		condition, _ := v["Condition"].(map[string]any)
		like, _ := condition["ForAllValues:StringLike"].(map[string]any)
		patterns, _ := like["dynamodb:LeadingKeys"].([]any)
		if v["Effect"] == "Allow" && patterns != nil {
			actions := map[string]bool{}
			collectActions(v, actions)
			for action := range actions {
				for _, p := range patterns {
					into[action] = append(into[action], fmt.Sprint(p))
				}
			}
			return
		}
		for _, e := range v {
			leadingKeys(e, into)
		}
	case []any:
		for _, e := range v {
			leadingKeys(e, into)
		}
	}
}

// likes reports whether IAM's StringLike matches a pattern whose only wildcard is a * at its end.
func likes(pattern, key string) bool {
	if prefix := len(pattern) - 1; prefix >= 0 && pattern[prefix] == '*' {
		return len(key) >= prefix && key[:prefix] == pattern[:prefix]
	}
	return pattern == key
}

// rightsUsed checks the calls to the ledger since the last reset of the taps against the keys of each function's role. It
// returns the used rights by function, each an action and a pattern.
func rightsUsed(t *testing.T) map[string]map[string]bool {
	t.Helper()
	resources, _ := world.Stack.Expanded["Resources"].(map[string]any)
	used := map[string]map[string]bool{}
	for _, c := range world.Taps.Dynamo.Calls() {
		function := world.Caller(c)
		if function == "" {
			t.Fatalf("the call %s was not signed with a function's key", c.Action)
		}
		allowed := map[string][]string{}
		for _, id := range []string{"FunctionsPolicy", function + "Role"} {
			leadingKeys(resources[id], allowed)
		}
		for _, u := range ledgerUses(t, c) {
			i := slices.IndexFunc(allowed[u.action], func(p string) bool { return likes(p, u.key) })
			if i < 0 {
				t.Errorf("%s: %s on %s, but its role allows that on %q: it would fail in an account", function, u.action, u.key, allowed[u.action])
				continue
			}
			if used[function] == nil {
				used[function] = map[string]bool{}
			}
			used[function][u.action+" "+allowed[u.action][i]] = true
		}
	}
	return used
}

// The rights of each role name its keys. The calls of all three functions are checked against them, those of a teardown
// by TestTeardown_RemovesExactlyOneDeployment. Only AWS itself evaluates
// dynamodb:LeadingKeys: DynamoDB Local checks no permissions and moto no conditions.
func TestLedgerCalls_StayWithinTheRolesKeys(t *testing.T) {
	resetTaps()
	wholeLife(t)
	reconcileLife(t)
	used := rightsUsed(t)
	// A key that this test misreads, or never sees, must not pass.
	for function, want := range map[string][]string{
		provision: { // it releases a claim only when the last certificate with the name has ended
			"dynamodb:BatchGetItem instance#*", "dynamodb:GetItem instance#*", "dynamodb:GetItem teardown",
			"dynamodb:PutItem claim#*", "dynamodb:PutItem instance#*", "dynamodb:PutItem waiting#*", "dynamodb:GetItem waiting#*",
		},
		deprovision: {"dynamodb:BatchGetItem instance#*", "dynamodb:DeleteItem claim#*", "dynamodb:GetItem instance#*", "dynamodb:GetItem waiting#*", "dynamodb:PutItem instance#*"},
		reconcile: {
			"dynamodb:DeleteItem claim#*", "dynamodb:GetItem instance#*", "dynamodb:GetItem teardown", "dynamodb:PutItem instance#*",
		},
	} {
		for _, u := range want {
			if !used[function][u] {
				t.Errorf("%s never used %s, only %q", function, u, slices.Sorted(maps.Keys(used[function])))
			}
		}
	}
}
