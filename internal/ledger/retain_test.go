package ledger_test

import (
	"slices"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

const retainID = "i-0123456789abcdef0"

// A mark in the table is no proof: a person who may write it cannot have a role or a policy retained.
func TestRetain_MovesOnlyWhatLetsNothingIn(t *testing.T) {
	seed := ledger.Object{Kind: grant.KindGeneric, Path: "alice_cluster/kv/" + retainID + "-seed", SHA256: "00", Retain: true}
	forged := []ledger.Object{
		{Kind: grant.KindPolicy, Path: "sys/policies/acl/ec2-" + retainID + "-node", Retain: true},
		{Kind: grant.KindPKIRole, Path: "alice_cluster/pki/roles/" + retainID + "-kubelet", Retain: true},
		{Kind: grant.KindSSHRole, Path: "alice_cluster/ssh/roles/" + retainID + "-sshd", Retain: true},
		{Kind: grant.KindGeneric, Path: "alice_cluster/ssh/roles/" + retainID + "-host", Retain: true},
		{Kind: grant.KindAuthRole, Path: "auth/aws/role/" + retainID, Retain: true},
	}
	deleted := ledger.Object{Kind: grant.KindGeneric, Path: "alice_cluster/kv/" + retainID + "-other"}
	r := ledger.Record{Objects: append(slices.Clone(forged), seed, deleted)}
	r.Retain(nil)
	if !slices.Equal(r.Objects, append(slices.Clone(forged), deleted)) || !slices.Equal(r.Retained, []ledger.Object{seed}) {
		t.Errorf("want the seed alone retained, got %+v and %+v", r.Objects, r.Retained)
	}
	r.Retain(nil)
	if !slices.Equal(r.Retained, []ledger.Object{seed}) {
		t.Errorf("want it retained once, got %+v", r.Retained)
	}
	g := &grant.Grant{Objects: []grant.Object{{Kind: seed.Kind, Path: seed.Path, Retain: true}}, AuthRole: grant.Object{Path: "auth/aws/role/" + retainID}}
	r.Retain(g)
	if len(r.Retained) > 0 {
		t.Errorf("want a granted object not retained, got %+v", r.Retained)
	}
}

// The proof of whose a retained object is lasts as long as the object.
func TestTombstone_LastsWithRetainedObjects(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r := ledger.Record{InstanceID: retainID, State: ledger.Deleted, Profile: "a-b"}
	if w := (ledger.Write{New: r}).Becomes(now); w.ExpiresAt == 0 {
		t.Fatalf("want a tombstone to expire, got %+v", w)
	}
	r.Retained = []ledger.Object{{Kind: grant.KindGeneric, Path: "alice_cluster/kv/" + retainID + "-seed"}}
	r.ExpiresAt = 1
	if w := (ledger.Write{New: r}).Becomes(now); w.ExpiresAt != 0 || w.DeletedAt == nil {
		t.Errorf("want it kept while it retains an object, got %+v", w)
	}
}
