package converge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
)

// fleet is a batch of instances that start.
type fleet struct {
	*world
	c    *converge.Converger
	refs []facts.Ref
	log  bytes.Buffer
}

// newFleet returns a batch of n instances, and a converger that reads records and lists for a batch.
func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	f := &fleet{world: newWorld(t)}
	for i := range n {
		id := fmt.Sprintf("i-0123456789abcde%02x", i)
		f.launch(id, byte(4+i))
		f.refs = append(f.refs, f.event(id, facts.Running).Ref)
	}
	client := vaulttest.Client{Vault: f.Vault, Do: f.calling("vault")}
	f.c = f.converger(mayMake, func(o *converge.Options) {
		o.Records = ledgertest.Client{Table: f.Table, Now: f.clock, Do: f.calling("ledger")}
		o.Lists = &converge.Lists{List: client.List, Log: slog.New(slog.NewTextHandler(&f.log, nil)), Now: f.clock}
	})
	return f
}

// begin begins the batch, as a function does, and returns what EC2 shows.
func (f *fleet) begin() (*converge.Batch, map[facts.Ref]instance.Sighting) {
	seen := f.instances().Describe(f.t.Context(), f.refs)
	return f.c.Begin(f.t.Context(), seen), seen
}

// converge converges instance n of the batch.
func (f *fleet) converge(n int, batch *converge.Batch, seen map[facts.Ref]instance.Sighting) error {
	return f.deliver(n, facts.Running, batch, seen)
}

// remove ends instance n of the batch.
func (f *fleet) remove(n int, batch *converge.Batch, seen map[facts.Ref]instance.Sighting) error {
	return f.deliver(n, facts.Terminated, batch, seen)
}

// deliver converges instance n of the batch by an event of its state.
func (f *fleet) deliver(n int, state facts.State, batch *converge.Batch, seen map[facts.Ref]instance.Sighting) error {
	req := f.event(f.refs[n].ID, state)
	req.Batch = batch
	_, err := f.c.Converge(f.t.Context(), req, seen[f.refs[n]])
	return err
}

// makeAuthRole makes an auth role of another owner, as another client of Vault does at any time.
func (f *fleet) makeAuthRole(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Objects["auth/aws/role/"+id] = map[string]any{"auth_type": "ec2"}
}

// mustGrant fails unless every instance of the batch gets its grant.
func (f *fleet) mustGrant() {
	f.t.Helper()
	batch, seen := f.begin()
	for n, ref := range f.refs {
		err := f.converge(n, batch, seen)
		if err := errors.Join(err, f.granted(ref.ID)); err != nil {
			f.t.Fatalf("instance %d of the batch: want its grant, got %v", n, err)
		}
	}
}

// looks counts the reads before the first write: each instance reads its auth role back, and no other object.
func (f *fleet) looks() int { return f.count("vault read") - len(f.refs) }

func TestBatch_ReadsRecordsAndListsOnce(t *testing.T) {
	f := newFleet(t, 20)
	f.mustGrant()
	if some, get, lists, looks := f.count("ledger get some"), f.count("ledger get "+f.refs[0].ID), f.count("vault list"), f.looks(); some != 1 || get != 0 || lists != 3 || looks != 0 {
		t.Errorf("20 starts: want one read of all records and one list of the policies, PKI roles and auth roles each, got %d reads of all, %d of one, %d lists and %d reads of absent paths", some, get, lists, looks)
	}
}

// A record that another run wrote since it was read for the batch must not be overwritten, nor an object be written by it.
func TestBatch_ChangedRecordStopsTheRun(t *testing.T) {
	f := newFleet(t, 2)
	batch, seen := f.begin()
	other, otherSeen := f.begin()
	if err := f.converge(0, other, otherSeen); err != nil {
		t.Fatal(err)
	}
	f.calls = nil
	if err := f.converge(0, batch, seen); fault.KindOf(err) != fault.Retry || f.count("vault write") > 0 {
		t.Fatalf("the record changed after the batch was read: want another try and no write to Vault, got %v, %v", err, f.calls)
	}
	if err := f.converge(0, batch, seen); err != nil || f.count("ledger get "+f.refs[0].ID) != 1 {
		t.Errorf("want the next try to read the record again, got %v, %v", err, f.calls)
	}
}

func TestBatch_UnknownRecordsAreReadAlone(t *testing.T) {
	for name, change := range map[string]struct {
		fails bool
		waits time.Duration
	}{
		"the read fails":  {fails: true},
		"the read is old": {waits: converge.MaxFactsAge + time.Second},
	} {
		f := newFleet(t, 2)
		if change.fails {
			f.failAt("ledger get some", errors.New("throttled"))
		}
		batch, _ := f.begin()
		f.pass(change.waits)
		if err := f.converge(1, batch, f.instances().Describe(t.Context(), f.refs)); err != nil || f.count("ledger get "+f.refs[1].ID) != 1 {
			t.Errorf("%s: want the instance to read its own record and get its grant, got %v, %v", name, err, f.calls)
		}
	}
}

// A run that writes nothing has no condition that would show that its record changed.
func TestBatch_OldRecordIsReadAgainWhereNothingIsWritten(t *testing.T) {
	f := newFleet(t, 2)
	f.mustGrant()
	batch, seen := f.begin()
	removed := f.Records[f.refs[0].ID]
	removed.Objects, removed.State = nil, ledger.Refused
	f.Records[removed.InstanceID] = removed
	f.calls = nil
	f.pass(3 * time.Second)
	req := f.event(removed.InstanceID, facts.Running)
	req.Batch = batch
	if done, err := f.c.Converge(t.Context(), req, seen[f.refs[0]]); done.Action == converge.Unchanged || f.count("ledger get "+removed.InstanceID) != 1 {
		t.Errorf("the grant is gone since the batch's records were read: want the record read again and no claim that all is as it was, got %+v, %v, %v", done, err, f.calls)
	}
}

func TestBatch_PanicOverOneInstanceStopsNoOther(t *testing.T) {
	f := newFleet(t, 3)
	seen := f.instances().Describe(t.Context(), f.refs)
	profiles := f.c.Profiles
	f.c.Profiles = nil // Match panics
	batch := f.c.Begin(t.Context(), seen)
	f.c.Profiles = profiles
	if err := f.converge(0, batch, seen); err != nil {
		t.Errorf("want the batch begun without the records, and each run to read its own, got %v", err)
	}
}

// Vault holds policies and auth roles by names in lower case.
func TestLists_ForeignObjectIsFoundAndKept(t *testing.T) {
	granted := newFleet(t, 1)
	granted.mustGrant()
	for path := range granted.Objects {
		f := newFleet(t, 20)
		f.Objects[path] = map[string]any{"policy": "# by hand"}
		batch, seen := f.begin()
		if err := f.converge(0, batch, seen); fault.KindOf(err) != fault.Conflict || len(f.Objects) != 1 || f.count("vault list") != 3 {
			t.Errorf("%s exists and is foreign: want a conflict, no write and three lists, got %v, %d objects, %d lists", path, err, len(f.Objects), f.count("vault list"))
		}
		if err := f.converge(1, batch, seen); err != nil {
			t.Errorf("%s exists: want the other instances of the batch granted, got %v", path, err)
		}
	}
}

// A list shows what was absent when it was asked for, and not later.
func TestLists_AreTrustedForTwoSeconds(t *testing.T) {
	f := newFleet(t, 20)
	batch, seen := f.begin()
	if err := f.converge(0, batch, seen); err != nil {
		t.Fatal(err)
	}
	f.pass(2100 * time.Millisecond)
	f.makeAuthRole(f.refs[1].ID) // since the list
	if err := f.converge(1, batch, seen); fault.KindOf(err) != fault.Conflict {
		t.Errorf("an auth role was made after the list: want a conflict, got %v", err)
	}
	// A list that takes long is old when it is there.
	f = newFleet(t, 20)
	batch, seen = f.begin()
	slow := f.c.Lists.List
	f.c.Lists.List = func(ctx context.Context, folder string) ([]string, error) {
		names, err := slow(ctx, folder)
		f.pass(2100 * time.Millisecond)
		f.makeAuthRole(f.refs[1].ID)
		return names, err
	}
	if err := f.converge(1, batch, seen); fault.KindOf(err) != fault.Conflict {
		t.Errorf("an auth role was made while Vault listed: want a conflict, got %v", err)
	}
}

func TestLists_OnlyWhereTheyPay(t *testing.T) {
	few := newFleet(t, 3)
	few.mustGrant()
	if lists, looks := few.count("vault list"), few.looks(); lists != 0 || looks != 3*4 {
		t.Errorf("3 starts: want each path read, got %d lists and %d reads", lists, looks)
	}
	long := newFleet(t, 20)
	for i := range 20 * 350 {
		long.Objects[fmt.Sprintf("sys/policies/acl/other-%d", i)] = map[string]any{"policy": ""}
	}
	long.mustGrant()
	long.pass(3 * time.Second)
	long.calls = nil
	for i := range long.refs {
		id := fmt.Sprintf("i-0123456789abcdf%02x", i)
		long.launch(id, byte(104+i))
		long.refs[i].ID = id
	}
	long.mustGrant()
	if lists, policies := long.count("vault list"), long.count("vault read sys/policies/acl"); lists != 2 || policies != 20 {
		t.Errorf("20 starts beside 7000 policies: want the two short folders listed and each policy read, got %d lists and %d reads of policies", lists, policies)
	}
}

func TestLists_FailureReadsEachPath(t *testing.T) {
	f := newFleet(t, 20)
	f.failAt("vault list", fault.Refusef("permission denied"))
	f.mustGrant()
	if lists, looks := f.count("vault list"), f.looks(); lists != 3 || looks != 20*4 {
		t.Errorf("a token without the right to list: want one try for each folder and each path read, got %d lists and %d reads", lists, looks)
	}
	if n := strings.Count(f.log.String(), "could not be listed"); n != 3 {
		t.Errorf("want one line for each folder, got %d:\n%s", n, f.log.String())
	}
}

// The objects of an earlier grant may be there although a list does not show them: each is read.
func TestLists_AreNotUsedForALaterGrant(t *testing.T) {
	f := newFleet(t, 20)
	f.mustGrant()
	f.calls = nil
	for _, ref := range f.refs {
		f.show(ref.ID, addAddress)
	}
	batch, seen := f.begin()
	for n := range f.refs {
		if err := f.converge(n, batch, seen); err != nil && !strings.Contains(err.Error(), "holds it") {
			t.Fatal(err)
		}
	}
	if lists := f.count("vault list"); lists != 0 {
		t.Errorf("changed grants: want each object read and no list, got %d lists", lists)
	}
}

// end begins the batch of the fleet's ends, as the deprovision function does.
func (f *fleet) end() (*converge.Batch, map[facts.Ref]instance.Sighting) {
	client := ledgertest.Client{Table: f.Table, Now: f.clock, Do: f.calling("ledger")}
	f.c, f.calls = f.converger(mayRemove, func(o *converge.Options) { o.Records = client }), nil
	for _, ref := range f.refs {
		f.show(ref.ID, func(i *facts.Instance) { i.State = facts.Terminated })
	}
	return f.begin()
}

func TestBatch_ReadsRecordsOfEndsOnce(t *testing.T) {
	f := newFleet(t, 20)
	f.mustGrant()
	batch, seen := f.end()
	for n := range f.refs {
		if err := f.remove(n, batch, seen); err != nil {
			t.Fatalf("end %d of the batch: want the grant removed, got %v", n, err)
		}
	}
	if some, get := f.count("ledger get some"), f.count("ledger get "); some != 1 || get != some {
		t.Errorf("20 ends: want one read of all records, got %d and %d of one", some, get-some)
	}
	for _, ref := range f.refs {
		f.wantNothing(ref.ID)
	}
}

// A removal whose record changed goes on with the record as it is: its event must not wait for the queue.
func TestBatch_EndsByARecordThatChanged(t *testing.T) {
	f := newFleet(t, 2)
	f.mustGrant()
	id := f.refs[0].ID
	batch, seen := f.end()
	table := ledgertest.Client{Table: f.Table, Now: f.clock}
	old, err := table.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := table.Put(t.Context(), ledger.Write{Old: old, New: *old, Owner: "another run"}); err != nil {
		t.Fatal(err)
	}
	if err := f.remove(0, batch, seen); err != nil || f.count("ledger get "+id) != 1 {
		t.Errorf("the record changed after the batch was read: want it read again and the grant removed, got %v, %v", err, f.calls)
	}
	f.wantNothing(id)
}

// A batch's record that would have a removal do nothing, or that another place's event would end, is read again.
func TestBatch_ReadsARecordThatMayNotBeRemoved(t *testing.T) {
	for name, change := range map[string]func(*ledger.Record){
		"tombstone":     func(r *ledger.Record) { r.State, r.Objects = ledger.Deleted, nil },
		"second cut":    func(r *ledger.Record) { late := r.UpdatedAt.Add(time.Hour); r.QuietUntil = &late },
		"other account": func(r *ledger.Record) { r.Account = "999999999999" },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 2)
			f.mustGrant()
			id := f.refs[0].ID
			record := f.Records[id]
			change(&record)
			f.Records[id] = record
			batch, seen := f.end()
			_ = f.remove(0, batch, seen) // the other account's ends in a refusal
			if f.count("ledger get "+id) != 1 {
				t.Errorf("want the record read again, got %v", f.calls)
			}
		})
	}
}

// Settings that changed between two batches are seen: they say which tokens a removal can find.
func TestBatch_ReadsTheAuthMountOnce(t *testing.T) {
	f := newFleet(t, 3)
	f.mustGrant()
	f.EC2Alias = "instance_id"
	batch, seen := f.end()
	for n := range f.refs {
		if n == 2 {
			f.EC2Alias = "image_id"
			batch, seen = f.begin()
		}
		err := f.remove(n, batch, seen)
		if isConflict := fault.KindOf(err) == fault.Conflict; (n == 2) != isConflict || (n < 2 && err != nil) {
			t.Errorf("end %d: want a conflict only where the setting hides the tokens, got %v", n, err)
		}
	}
	if n := f.count("vault mount"); n != 2 {
		t.Errorf("want the auth mount read once for each of two batches, got %d", n)
	}
}
