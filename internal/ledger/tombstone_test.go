package ledger_test

import (
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

func TestTombstone_OfAGrantLastsThirtyDays(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const hour, month = time.Hour, 30 * 24 * time.Hour
	for what, row := range map[string]struct {
		change func(old, next *ledger.Record)
		want   time.Duration
	}{
		"that never had an object":             {func(*ledger.Record, *ledger.Record) {}, hour},
		"that had a grant":                     {func(_, next *ledger.Record) { next.Profile = "alice_cluster-worker" }, month},
		"whose untracked objects were removed": {func(old, _ *ledger.Record) { old.Objects = []ledger.Object{{Kind: "policy"}} }, month},
		"with tokens of a former auth role":    {func(_, next *ledger.Record) { next.FormerRoleIDs = []string{"role"} }, month},
		"that its group was terminating":       {func(_, next *ledger.Record) { next.LeavingSince = &now }, month},
	} {
		old := ledger.Record{InstanceID: "i-0123456789abcdef0", State: ledger.Deprovisioning, Version: 1}
		next := old
		next.State = ledger.Deleted
		row.change(&old, &next)
		r := ledger.Write{Old: &old, New: next}.Becomes(now)
		if got := time.Unix(r.ExpiresAt, 0).Sub(now); got != row.want {
			t.Errorf("the tombstone of an instance %s is kept for %s, want %s: without it the instance can be granted again", what, got, row.want)
		}
	}
}
