package integration

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/labtest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// Helpers of the reliability tests. Each test has a line of its own, so that the tests do not disturb each other and run in
// parallel.

// line returns a line that is closed at the end of the test.
func line(t *testing.T, o lab.LineOptions) *lab.Line {
	t.Helper()
	return labtest.Line(t, world, o)
}

// sideBySide runs a subtest for each row, atOnce of them at a time, independent of -parallel: most of them wait.
func sideBySide[Row any](t *testing.T, atOnce int, rows []Row, name func(Row) string, run func(*testing.T, int, Row)) {
	t.Helper()
	next := make(chan Row)
	var group sync.WaitGroup
	for worker := range atOnce {
		group.Go(func() {
			for row := range next {
				t.Run(name(row), func(t *testing.T) { run(t, worker, row) })
			}
		})
	}
	for _, row := range rows {
		next <- row
	}
	close(next)
	group.Wait()
}

// untilDone delivers a message as its queue would, until the function is done with it. It expires the lease of a killed
// process instead of waiting for it.
func untilDone(t *testing.T, f *sandbox.Function, i fleet.Instance, body []byte) {
	t.Helper()
	for range 60 {
		if again, _ := labtest.Deliver(t, f, body); len(again) == 0 {
			return
		}
		labtest.ExpireLease(t, world, i.ID)
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("the message of %s still comes back at its 60th delivery, after the fault has ended\nlogs:\n%s", i.ID, lastOf(f.Logs()))
}

// grantOf returns the paths of a worker's grant, without the objects that a login adds.
func grantOf(id string) []string {
	p := pathsOf(id)
	all := []string{p.role, p.policy, p.kubelet, p.proxy}
	slices.Sort(all)
	return all
}

// ofGrant returns the paths without those that logins made: access list entry and identity.
func ofGrant(found []string) []string {
	found = slices.DeleteFunc(slices.Clone(found), func(path string) bool {
		return strings.HasPrefix(path, "identity/") || strings.Contains(path, "/identity-accesslist/")
	})
	slices.Sort(found)
	return found
}

// wantGranted fails unless the state of a running worker is exact: its objects, its record and its claims.
func wantGranted(t *testing.T, i fleet.Instance) {
	t.Helper()
	if got, want := ofGrant(objects(t, i)), grantOf(i.ID); !slices.Equal(got, want) {
		t.Errorf("want exactly these objects in Vault\n%q, got\n%q", want, got)
	}
	r := recordOf(t, i)
	if r.State != ledger.Active || r.LeaseOwner != "" || r.LastError != "" || len(r.Objects) != 4 {
		t.Errorf("want an active record of 4 objects, without a lease and an error, got %+v", r)
	}
	want := []string{"claim#alice_cluster#" + i.PrivateDNS, "instance#" + i.ID}
	for _, text := range append(r.Addresses, i.PrivateDNS, "system:node:"+i.PrivateDNS) {
		want = append(want, "claim#"+k8s+"#"+text)
	}
	slices.Sort(want)
	if items, err := world.ItemsOf(t.Context(), i.ID); err != nil || !slices.Equal(items, want) {
		t.Errorf("want the items %q in the ledger, got %q, %v", want, items, err)
	}
	if a := runReconcile(t, world.Functions[reconcile], rec.Input{Mode: rec.Detect, InstanceIDs: []string{i.ID}}); len(a.Drift) > 0 || a.Blocked {
		t.Errorf("want no drift, got %+v", a)
	}
}

// wantGone fails unless the state of a removed instance is exact: a tombstone and nothing else, and no token that works.
func wantGone(t *testing.T, i fleet.Instance, tokens ...*fleet.Session) {
	t.Helper()
	if left := objects(t, i); len(left) > 0 {
		t.Errorf("want no object of a removed instance in Vault, got %q", left)
	}
	if items, err := world.ItemsOf(t.Context(), i.ID); err != nil || !slices.Equal(items, []string{"instance#" + i.ID}) {
		t.Errorf("want only the tombstone in the ledger, got %q, %v", items, err)
	}
	if r := recordOf(t, i); r.State != ledger.Deleted || len(r.Objects) > 0 || r.LeaseOwner != "" {
		t.Errorf("want a tombstone without objects, got %+v", r)
	}
	for n, s := range tokens {
		noLogin(t, i, s.Nonce)
		if _, err := s.Client.Auth().Token().LookupSelfWithContext(t.Context()); err == nil {
			t.Errorf("token %d of a removed instance still works", n)
		}
	}
}

// noLogin fails if the instance can log in.
func noLogin(t *testing.T, i fleet.Instance, nonce string) {
	t.Helper()
	if _, err := world.Fleet.Login(t.Context(), world.AuthMount, i, nonce); err == nil {
		t.Errorf("%s, which has ended, logged in to Vault", i.ID)
	}
}

// nothingHalfMade fails if Vault holds an object that the ledger does not name, or an auth role without the rest of the
// grant. This must hold after any interruption.
func nothingHalfMade(t *testing.T, i fleet.Instance) {
	t.Helper()
	found := ofGrant(objects(t, i)) // read before the record, which names an object before a process makes it
	r := recordOf(t, i)
	for _, path := range found {
		if !r.Has(path) {
			t.Errorf("%s is in Vault and the ledger does not name it, so it would never be removed", path)
		}
	}
	if slices.Contains(found, pathsOf(i.ID).role) && !slices.Equal(found, grantOf(i.ID)) {
		t.Errorf("the auth role exists with only %q: a login would get less than its grant", found)
	}
}

func recordOf(t *testing.T, i fleet.Instance) ledger.Record {
	t.Helper()
	r, err := world.Record(t.Context(), i.ID)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// lastOf returns the end of a log.
func lastOf(log string) string { return log[max(0, len(log)-4000):] }
