package integration

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// table is a ledger on the stack's own table in DynamoDB Local; clock may be moved.
func table(clock func() time.Time) *ledger.Ledger {
	return ledger.New(ledger.NewAPI(world.Dynamo), world.Stack.Tables["Table"], clock)
}

func record(id, fqdn string) ledger.Record {
	return ledger.Record{InstanceID: id, State: ledger.Provisioning, Account: "123456789012", Region: "us-east-1", BasePath: "race", FQDN: fqdn}
}

func TestOfManyInstancesThatRaceForOneNameExactlyOneGetsIt(t *testing.T) {
	l := table(time.Now)
	for round := range 20 {
		name := ledger.Name{BasePath: "race", FQDN: fmt.Sprintf("round-%d.example", round)}
		var winners, losers atomic.Int32
		var group sync.WaitGroup
		for n := range 10 {
			group.Go(func() {
				_, err := l.Put(t.Context(), ledger.Write{
					New: record(fmt.Sprintf("i-%08x", round<<8|n), name.FQDN), Owner: "o", KeepLease: true, Claim: &name,
				})
				switch {
				case err == nil:
					winners.Add(1)
				case errors.Is(err, ledger.ErrClaimed):
					losers.Add(1)
				default:
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		group.Wait()
		if winners.Load() != 1 || losers.Load() != 9 {
			t.Fatalf("round %d: %d winners and %d losers of 10: two instances would share a name", round, winners.Load(), losers.Load())
		}
	}
}

func TestOfManyWritersOfOneRecordExactlyOneWins(t *testing.T) {
	l := table(time.Now)
	old, err := l.Put(t.Context(), ledger.Write{New: record("i-000000aa", "")})
	if err != nil {
		t.Fatal(err)
	}
	var winners atomic.Int32
	var group sync.WaitGroup
	for n := range 16 {
		group.Go(func() {
			_, err := l.Put(t.Context(), ledger.Write{Old: old, New: *old, Owner: fmt.Sprint(n), KeepLease: true})
			switch {
			case err == nil:
				winners.Add(1)
			case !errors.Is(err, ledger.ErrChanged):
				t.Error(err)
			}
		})
	}
	group.Wait()
	if winners.Load() != 1 {
		t.Errorf("%d of 16 writers won, want 1", winners.Load())
	}
}

func TestALeaseKeepsOthersOutUntilItRunsOut(t *testing.T) {
	now := time.Now()
	l := table(func() time.Time { return now })
	held, err := l.Put(t.Context(), ledger.Write{New: record("i-000000bb", ""), Owner: "first", KeepLease: true})
	if err != nil {
		t.Fatal(err)
	}
	other := ledger.Write{Old: held, New: *held, Owner: "second", KeepLease: true}
	if _, err := l.Put(t.Context(), other); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("the lease of another must hold, got %v", err)
	}
	now = now.Add(ledger.LeaseTime + time.Second)
	taken, err := l.Put(t.Context(), other)
	if err != nil || taken.LeaseOwner != "second" {
		t.Fatalf("a lease that ran out is taken over, got %+v, %v", taken, err)
	}
	if _, err := l.Put(t.Context(), ledger.Write{Old: held, New: *held, Owner: "first"}); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("whoever lost the lease must write nothing more, got %v", err)
	}
	if _, err := l.Put(t.Context(), ledger.Write{Old: taken, New: *taken, Owner: "second"}); err != nil {
		t.Errorf("the holder gives it back: %v", err)
	}
}

func TestANameIsReleasedOnlyByItsHolder(t *testing.T) {
	l := table(time.Now)
	name := ledger.Name{BasePath: "race", FQDN: "held.example"}
	if _, err := l.Put(t.Context(), ledger.Write{New: record("i-000000c1", name.FQDN), Claim: &name}); err != nil {
		t.Fatal(err)
	}
	old, err := l.Put(t.Context(), ledger.Write{New: record("i-000000c2", name.FQDN)})
	if err != nil {
		t.Fatal(err)
	}
	next := *old
	next.State = ledger.Deleted
	own := ledger.Name{BasePath: "race", FQDN: "own.example"}
	done, err := l.Put(t.Context(), ledger.Write{Old: old, New: next, Release: []ledger.Name{own, name}})
	if err != nil || done.State != ledger.Deleted {
		t.Fatalf("a name that is another's must not keep the record from its end, got %+v, %v", done, err)
	}
	if holder, err := l.Holder(t.Context(), name); err != nil || holder == nil || holder.InstanceID != "i-000000c1" {
		t.Errorf("the other's claim is gone: %+v, %v", holder, err)
	}
}

func TestARecordReadsBackAsItWasWritten(t *testing.T) {
	l := table(time.Now)
	r := record("i-000000dd", "x.example")
	r.Objects = []ledger.Object{{Kind: "auth-role", Path: "auth/aws/role/i-000000dd", SHA256: "ab", RoleID: "role"}}
	r.Addresses, r.Former = []string{"10.0.0.1"}, []ledger.Name{{BasePath: "race", FQDN: "old.example"}}
	r.EventTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	written, err := l.Put(t.Context(), ledger.Write{New: r, Owner: "o", KeepLease: true})
	if err != nil {
		t.Fatal(err)
	}
	read, err := l.Get(t.Context(), r.InstanceID)
	if err != nil || fmt.Sprintf("%+v", *read) != fmt.Sprintf("%+v", *written) {
		t.Errorf("got  %+v\nwant %+v (%v)", read, written, err)
	}
	if missing, err := l.Get(t.Context(), "i-000000de"); missing != nil || err != nil {
		t.Errorf("an instance without a record: got %+v, %v", missing, err)
	}
}

func TestATombstoneStandsForThirtyDaysUnlessNothingWasEverThere(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := table(func() time.Time { return now })
	const hour, month = time.Hour, 30 * 24 * time.Hour
	for n, row := range []struct {
		what   string
		change func(old, next *ledger.Record)
		want   time.Duration
	}{
		{"of which nothing was ever there", func(*ledger.Record, *ledger.Record) {}, hour},
		{"that had a grant", func(_, next *ledger.Record) { next.Profile = "race-worker" }, month},
		{"whose strays were removed after its record was lost", func(old, _ *ledger.Record) {
			old.Objects = []ledger.Object{{Kind: "policy", Path: "sys/policies/acl/x"}}
		}, month},
		{"whose auth role's tokens may live", func(_, next *ledger.Record) { next.FormerRoleIDs = []string{"role"} }, month},
		{"that its group was terminating before its grant was made", func(_, next *ledger.Record) { next.LeavingSince = &now }, month},
	} {
		first := record(fmt.Sprintf("i-000000e%d", n), "")
		first.Profile, first.Objects = "", nil
		next := first
		next.State = ledger.Deleted
		row.change(&first, &next)
		old, err := l.Put(t.Context(), ledger.Write{New: first})
		if err != nil {
			t.Fatal(err)
		}
		done, err := l.Put(t.Context(), ledger.Write{Old: old, New: next})
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Unix(done.ExpiresAt, 0).Sub(now); got != row.want {
			t.Errorf("the tombstone of an instance %s stands for %s, want %s: after it, the instance can be granted anew, and is forgotten", row.what, got, row.want)
		}
	}
}
