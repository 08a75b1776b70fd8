package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// A released claim leaves no item, so the record keeps until when the instance held the name.
func TestRecord_KeepsTheNamesThatItReleases(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	name := func(n int) ledger.Name { return ledger.Name{Under: "pki", Text: fmt.Sprint("web-", n)} }
	r := ledger.Record{InstanceID: "i-0123456789abcdef0", Version: 1}
	write := func(days int, w ledger.Write) {
		old := r
		w.Old, w.New = &old, r
		r = w.Becomes(start.AddDate(0, 0, days))
	}
	held := func() (out []string) {
		for _, n := range r.Released {
			out = append(out, n.Text+" "+n.At.Format(time.DateOnly))
		}
		return out
	}
	write(0, ledger.Write{Release: []ledger.Name{name(1), name(2)}})
	write(1, ledger.Write{Release: []ledger.Name{name(3)}})
	if got := held(); !slices.Equal(got, []string{"web-1 2026-01-02", "web-2 2026-01-02", "web-3 2026-01-03"}) {
		t.Errorf("got %q", got)
	}
	write(2, ledger.Write{Claims: []ledger.Name{name(1)}, Release: []ledger.Name{name(2)}})
	if got := held(); !slices.Equal(got, []string{"web-3 2026-01-03", "web-2 2026-01-04"}) {
		t.Errorf("want a name that is held again left out, and the last release of the other, got %q", got)
	}
	write(32, ledger.Write{})
	if got := held(); !slices.Equal(got, []string{"web-2 2026-01-04"}) {
		t.Errorf("want names for the time of a tombstone, got %q", got)
	}
	for n := range 2 * grant.MaxClaims {
		write(33, ledger.Write{Release: []ledger.Name{name(n)}})
	}
	if len(r.Released) != grant.MaxClaims || r.Released[grant.MaxClaims-1].Name != name(2*grant.MaxClaims-1) {
		t.Errorf("want the latest %d, since an item has a bound, got %d", grant.MaxClaims, len(r.Released))
	}
}

// The key of the last item is where the next invocation goes on.
func TestScanFrom_GoesOnBehindAKey(t *testing.T) {
	key := func(n int) string { return fmt.Sprintf("instance#i-0000000%d", n) }
	var failed error
	l := ledger.New(ledger.API{Scan: func(_ context.Context, in *dynamodb.ScanInput, _ ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error) {
		if in.Segment != nil || in.ConsistentRead == nil || !*in.ConsistentRead || failed != nil {
			return nil, errors.Join(errors.New("want a consistent scan of one segment"), failed)
		}
		next := 1
		if after, ok := in.ExclusiveStartKey["pk"].(*types.AttributeValueMemberS); ok {
			_, _ = fmt.Sscanf(after.Value, "instance#i-0000000%d", &next)
			next++
		}
		item := map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: key(next)}, "instance_id": &types.AttributeValueMemberS{Value: key(next)[9:]}}
		out := &dynamodb.ScanOutput{Items: []map[string]types.AttributeValue{item}}
		if next < 3 {
			out.LastEvaluatedKey = map[string]types.AttributeValue{"pk": item["pk"]}
		}
		return out, nil
	}}, "t", time.Now)
	var seen []string
	v := ledger.Visitor{Record: func(r ledger.Record) { seen = append(seen, r.InstanceID) }, Claim: func(ledger.Name, ledger.Claim) {}}
	pages := 0
	next, err := l.ScanFrom(t.Context(), "", v, func() bool { pages++; return pages < 2 })
	if err != nil || next != key(1) || len(seen) != 1 {
		t.Fatalf("want one page, got %q, %q, %v", next, seen, err)
	}
	next, err = l.ScanFrom(t.Context(), next, v, func() bool { return true })
	if err != nil || next != "" || !slices.Equal(seen, []string{"i-00000001", "i-00000002", "i-00000003"}) {
		t.Errorf("want the rest and the end, got %q, %q, %v", next, seen, err)
	}
	failed = errors.New("throttled")
	if next, err = l.ScanFrom(t.Context(), key(2), v, func() bool { return true }); err == nil || next != key(2) {
		t.Errorf("want the error and the same key, got %q, %v", next, err)
	}
}
