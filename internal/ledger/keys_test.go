package ledger_test

import (
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

func TestKeys_SplitBackIntoTheirParts(t *testing.T) {
	const id = "i-0123456789abcdef0"
	if key := ledger.RecordKey(id); key != "instance#"+id {
		t.Errorf("got the record key %q: deployed tables have another", key)
	}
	if got, ok := ledger.SplitRecordKey(ledger.RecordKey(id)); !ok || got != id {
		t.Errorf("got %q, %v, want %q", got, ok, id)
	}
	name := ledger.Name{Under: "alice/pki/k8s", Text: "10.1.1.4@vpc-0a1b2c3d"}
	if key := ledger.ClaimKey(name); key != "claim#alice/pki/k8s#10.1.1.4@vpc-0a1b2c3d" {
		t.Errorf("got the claim key %q: deployed tables have another", key)
	}
	if got, ok := ledger.SplitClaimKey(ledger.ClaimKey(name)); !ok || got != name {
		t.Errorf("got %+v, %v, want %+v", got, ok, name)
	}
	for _, key := range []string{"", "teardown", ledger.RecordKey(id), "claim#", "claim#a", "claim#a#b#c", "x#a#b"} {
		if got, ok := ledger.SplitClaimKey(key); ok {
			t.Errorf("%q is no claim's key, got %+v", key, got)
		}
	}
	if _, ok := ledger.SplitRecordKey(ledger.ClaimKey(name)); ok {
		t.Error("a claim's key is no record's")
	}
}

func TestClaimKey_PanicsOnAnAmbiguousName(t *testing.T) {
	for _, n := range []ledger.Name{{Under: "a#b", Text: "c"}, {Under: "a", Text: "b#c"}, {Under: "a"}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v: want a panic: its key could be another name's", n)
				}
			}()
			ledger.ClaimKey(n)
		}()
	}
}
