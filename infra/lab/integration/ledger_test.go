package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger/ledgertest"
)

// table returns a ledger on the stack's own table in DynamoDB Local, with a clock of the test's.
func table(clock func() time.Time) *ledger.Ledger {
	return ledger.New(ledger.NewAPI(world.Dynamo), world.Stack.Tables["Table"], clock)
}

func record(id, fqdn string) ledger.Record {
	return ledger.Record{InstanceID: id, State: ledger.Provisioning, Account: "123456789012", Region: "us-east-1", BasePath: "race", FQDN: fqdn}
}

func TestClaim_RaceHasOneWinner(t *testing.T) {
	l := table(time.Now)
	for round := range 20 {
		name := ledger.Name{Under: "race", Text: fmt.Sprintf("round-%d.example", round)}
		var winners, losers atomic.Int32
		var group sync.WaitGroup
		for n := range 10 {
			group.Go(func() {
				_, err := l.Put(t.Context(), ledger.Write{
					New: record(fmt.Sprintf("i-%08x", round<<8|n), name.Text), Owner: "o", KeepLease: true, Claims: []ledger.Name{name},
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

func TestRecord_WriteRaceHasOneWinner(t *testing.T) {
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

func TestLease_ExcludesOthersUntilItExpires(t *testing.T) {
	now := time.Now()
	l := table(func() time.Time { return now })
	held, err := l.Put(t.Context(), ledger.Write{New: record("i-000000bb", ""), Owner: "first", KeepLease: true})
	if err != nil {
		t.Fatal(err)
	}
	other := ledger.Write{Old: held, New: *held, Owner: "second", KeepLease: true}
	if _, err := l.Put(t.Context(), other); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("want another's lease to hold, got %v", err)
	}
	now = now.Add(ledger.LeaseTime + time.Second)
	taken, err := l.Put(t.Context(), other)
	if err != nil || taken.LeaseOwner != "second" {
		t.Fatalf("want an expired lease taken over, got %+v, %v", taken, err)
	}
	if _, err := l.Put(t.Context(), ledger.Write{Old: held, New: *held, Owner: "first"}); !errors.Is(err, ledger.ErrChanged) {
		t.Errorf("want a writer that lost its lease refused, got %v", err)
	}
	if _, err := l.Put(t.Context(), ledger.Write{Old: taken, New: *taken, Owner: "second"}); err != nil {
		t.Errorf("want the holder to release the lease, got %v", err)
	}
}

func TestClaim_IsReleasedOnlyByItsHolder(t *testing.T) {
	l := table(time.Now)
	name := ledger.Name{Under: "race", Text: "held.example"}
	if _, err := l.Put(t.Context(), ledger.Write{New: record("i-000000c1", name.Text), Claims: []ledger.Name{name}}); err != nil {
		t.Fatal(err)
	}
	old, err := l.Put(t.Context(), ledger.Write{New: record("i-000000c2", name.Text)})
	if err != nil {
		t.Fatal(err)
	}
	next := *old
	next.State = ledger.Deleted
	own := ledger.Name{Under: "race", Text: "own.example"}
	done, err := l.Put(t.Context(), ledger.Write{Old: old, New: next, Release: []ledger.Name{own, name}})
	if err != nil || done.State != ledger.Deleted {
		t.Fatalf("want the record deleted although another holds the name, got %+v, %v", done, err)
	}
	if holder, err := l.Holder(t.Context(), name); err != nil || holder == nil || holder.InstanceID != "i-000000c1" {
		t.Errorf("want the other's claim kept, got %+v, %v", holder, err)
	}
}

func TestRecord_ReadsBackAsWritten(t *testing.T) {
	l := table(time.Now)
	r := record("i-000000dd", "x.example")
	r.Objects = []ledger.Object{{Kind: "auth-role", Path: "auth/aws/role/i-000000dd", SHA256: "ab", RoleID: "role"}}
	r.Addresses, r.Former = []string{"10.0.0.1"}, []ledger.FormerName{{Name: ledger.Name{Under: "race", Text: "old.example"}, Until: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, {Name: ledger.Name{Under: "race", Text: "older.example"}}}
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

// Random steps cover unexpected orders. The fixed seed repeats them in every run.
func TestMemoryLedger_AnswersLikeDynamoDB(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second) // no fixed date: DynamoDB deletes expired items
	l := table(func() time.Time { return now })
	memory := ledgertest.Table{Records: map[string]ledger.Record{}, Claims: map[ledger.Name]ledger.Claim{}}
	dice := rand.New(rand.NewPCG(1, 2))
	of := func(n int) bool { return dice.IntN(n) == 0 }
	names := []ledger.Name{{Under: "memory", Text: "a.example"}, {Under: "memory", Text: "b.example"}, {Under: "memory", Text: "c.example"}}
	states := []ledger.State{ledger.Provisioning, ledger.Active, ledger.Deprovisioning, ledger.Deleted}
	last := map[string]*ledger.Record{} // as read earlier
	kinds := map[string]int{}
	for step := range 600 {
		now = now.Add(time.Duration(dice.IntN(40)) * time.Second)
		id := fmt.Sprintf("i-000000f%d", dice.IntN(3))
		next := record(id, "x.example")
		next.State = states[dice.IntN(len(states))]
		if of(2) {
			next.Profile = "memory-worker"
		}
		if of(2) {
			next.Objects = []ledger.Object{{Kind: "policy", Path: "sys/policies/acl/x"}}
		}
		w := ledger.Write{New: next, Owner: []string{"one", "two"}[dice.IntN(2)], KeepLease: of(2)}
		if !of(12) {
			w.Old = last[id]
		}
		order := dice.Perm(len(names))
		claims := dice.IntN(3) // none, one or two
		for _, n := range order[:claims] {
			w.Claims = append(w.Claims, names[n])
		}
		for _, n := range order[claims:] {
			if of(3) {
				w.Release = append(w.Release, names[n])
			}
		}
		got, err := l.Put(t.Context(), w)
		want, wantErr := memory.Put(w, now)
		kind := func(err error) string {
			return fmt.Sprintf("changed %v, claimed %v, other %v", errors.Is(err, ledger.ErrChanged), errors.Is(err, ledger.ErrClaimed), err != nil)
		}
		kinds[kind(err)]++
		if kind(err) != kind(wantErr) {
			t.Fatalf("step %d: %+v: DynamoDB returns %v, memory returns %v: tests in memory would prove nothing", step, w, err, wantErr)
		}
		if err == nil {
			got.WriteID = ""
			if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", *want) {
				t.Fatalf("step %d: %+v: DynamoDB has\n%+v\nmemory has\n%+v", step, w, *got, *want)
			}
		}
		for _, n := range names {
			holder, err := l.Holder(t.Context(), n)
			c, held := memory.Claims[n]
			if err != nil || (holder != nil) != held || held && *holder != c {
				t.Fatalf("step %d: %+v: in DynamoDB %s is held by %+v (%v), in memory by %+v", step, w, n.Text, holder, err, c)
			}
		}
		if !of(6) { // else the next write of this instance uses an older read
			if last[id], err = l.Get(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(kinds) != 3 {
		t.Errorf("want successes, changed records and claimed names among the steps, got %v", kinds)
	}
}

func TestRecords_AreReadAtOnce(t *testing.T) {
	l := table(time.Now)
	var ids []string
	for n := range 120 { // more than one call takes
		ids = append(ids, fmt.Sprintf("i-%017x", rand.Uint64()>>4))
		if n%3 == 0 {
			continue // no record
		}
		if _, err := l.Put(t.Context(), ledger.Write{New: record(ids[n], "")}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.GetSome(t.Context(), ids)
	if err != nil || len(got) != len(ids) {
		t.Fatalf("want an answer for each of %d instances, got %d, %v", len(ids), len(got), err)
	}
	for n, id := range ids {
		want, err := l.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if r := got[id]; (n%3 == 0) != (want == nil) || (r == nil) != (want == nil) || r != nil && (r.InstanceID != id || r.Version != want.Version || r.WriteID != want.WriteID) {
			t.Errorf("instance %d: want the same as by itself, %+v, got %+v", n, want, r)
		}
	}
}

func TestWaiting_EqualsItsModel(t *testing.T) {
	actual, model := table(time.Now), ledgertest.Client{Table: ledgertest.New(), Now: time.Now}
	holder := fmt.Sprintf("i-%017x", rand.Uint64()>>4)
	for n := range 25 {
		r := facts.Ref{ID: fmt.Sprintf("i-%08x", n/2), Place: facts.Place{Account: "123456789012", Region: "us-east-1"}}
		if n > 20 {
			r.Region = "eu-west-1"
		}
		if err := errors.Join(actual.AddWaiting(t.Context(), holder, r), model.AddWaiting(t.Context(), holder, r)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := actual.Waiting(t.Context(), holder)
	want, _ := model.Waiting(t.Context(), holder)
	if err != nil || len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if none, err := actual.Waiting(t.Context(), "i-00000000"); err != nil || len(none) > 0 {
		t.Errorf("want none for another holder, got %v, %v", none, err)
	}
	var lost atomic.Int32
	var group sync.WaitGroup
	for n := range 8 {
		group.Go(func() {
			err := actual.AddWaiting(t.Context(), holder+"b", facts.Ref{ID: fmt.Sprintf("i-%08x", n), Place: facts.Place{Account: "123456789012", Region: "us-east-1"}})
			if errors.Is(err, ledger.ErrChanged) && fault.KindOf(err) == fault.Retry {
				lost.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if all, err := actual.Waiting(t.Context(), holder+"b"); err != nil || len(all)+int(lost.Load()) != 8 {
		t.Errorf("want each added or told to try again, got %d and %d of 8, %v", len(all), lost.Load(), err)
	}
}

// A question reads the table page by page; a page has 500 items at most.
func TestScanFrom_ReachesEveryItemOnce(t *testing.T) {
	l := table(time.Now)
	const n = 600
	var group errgroup.Group
	group.SetLimit(16)
	for i := range n {
		group.Go(func() error {
			r := record(fmt.Sprintf("i-5c%06x", i), "")
			_, err := l.Put(t.Context(), ledger.Write{New: r, Owner: "o", Claims: []ledger.Name{{Under: "pages", Text: r.InstanceID + ".example"}}})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	records, claims, calls, key := map[string]int{}, map[string]int{}, 0, ""
	v := ledger.Visitor{Record: func(r ledger.Record) { records[r.InstanceID]++ }, Claim: func(n ledger.Name, _ ledger.Claim) { claims[n.Text]++ }}
	for more := true; more; more = key != "" {
		isFirst := true
		var err error
		if key, err = l.ScanFrom(t.Context(), key, v, func() bool { defer func() { isFirst = false }(); return isFirst }); err != nil {
			t.Fatal(err)
		}
		calls++
	}
	for i := range n {
		id := fmt.Sprintf("i-5c%06x", i)
		if records[id] != 1 || claims[id+".example"] != 1 {
			t.Fatalf("%s: want its record and its claim once, got %d and %d", id, records[id], claims[id+".example"])
		}
	}
	if calls < 3 {
		t.Errorf("want several pages for %d items, got %d", 2*n, calls)
	}
}
