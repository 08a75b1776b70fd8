package storm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// objects is the number of objects that the storm's profile renders for an instance: a policy, two PKI roles, an auth role.
const objects = 4

// Count is a number of calls with its bounds.
type Count struct {
	What        string
	Seen        int
	Least, Most int
}

// Err returns an error if the count is outside its bounds.
func (c Count) Err() error {
	if c.Seen >= c.Least && c.Seen <= c.Most {
		return nil
	}
	return fmt.Errorf("%s: %d calls, where the design makes %d to %d", c.What, c.Seen, c.Least, c.Most)
}

// Counts lets n instances start, sends their events again, ends them all at once, and counts every call. It fails if an
// instance was not granted or removed; the caller checks the counts.
func (r *Rig) Counts(ctx context.Context, n int) (all []Count, err error) {
	w, err := r.way(ctx, wayOptions{name: "counts", tapAll: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	instances := r.launch(n)
	for _, part := range []struct {
		name, function, state string
		after                 ledger.State
		writes                int64
		want                  expected
	}{
		{"start", provision, "running", ledger.Active, writesToGrant, expected{
			// Each path once before its first write, and the auth role after it: the others' answers prove what is stored.
			reads: (objects + 1) * n, marks: 1, writes: objects * n, ledgerReads: n, puts: n, transactions: n,
		}},
		{"repetition", provision, "running", ledger.Active, writesToGrant, expected{ledgerReads: n}},
		// The second read is for the instances that wait for a name of the ending one.
		{"end", deprovision, "terminated", ledger.Deleted, writesToGrant + writesToRemove, expected{
			// The policy and the auth role before their deletion, the mount's accessor and alias settings before the cuts.
			reads: 4 * n,
			// The objects, the access list entry, and the alias look-ups: two for the first cut, one for the second.
			writes: (objects + 1 + 3) * n, ledgerReads: 2 * n, puts: n, transactions: n,
		}},
	} {
		if part.state == "terminated" {
			r.cloud.terminate(instances...)
		}
		counts, err := w.counted(ctx, part.function, part.state, instances)
		if err != nil {
			return all, err
		}
		if err := w.want(ctx, instances, part.after, part.writes); err != nil {
			return all, err
		}
		all = append(all, part.want.beside(counts, fmt.Sprintf("%s of %d, ", part.name, n), n, r.mapping(part.function).MaximumConcurrency)...)
	}
	return all, nil
}

// expected is the number of calls for n instances. Batches make a few more, depending on their number.
type expected struct{ reads, marks, writes, ledgerReads, puts, transactions int }

type counted struct {
	expected
	describes, batches, troubles int
}

// counted drains a storm and counts its calls.
func (w *way) counted(ctx context.Context, function, state string, instances []fleet.Instance) (counted, error) {
	w.Reset()
	s, err := w.drain(ctx, function, state, instances)
	c := counted{describes: s.describes, batches: s.batches}
	for _, t := range []*tap.Tap{w.Taps.Vault, w.Taps.Dynamo} {
		for _, call := range t.Calls() {
			switch {
			case call.Status == http.StatusTooManyRequests || call.Status >= http.StatusInternalServerError:
				c.troubles++
			case call.Service == vaultService && strings.HasSuffix(call.Path, "/login"):
			case call.Service == vaultService && call.Method == http.MethodGet:
				c.reads++
			case call.Service == vaultService:
				c.writes++
			case call.Action == "GetItem":
				c.ledgerReads++
			case call.Action == "PutItem":
				c.puts++
			case call.Action == "TransactWriteItems":
				c.transactions++
			default:
				return c, fmt.Errorf("a storm of %s events called %s %s, which the design does not", state, call.Service, call.Action)
			}
		}
	}
	return c, err
}

func (e expected) beside(c counted, prefix string, n, sandboxes int) []Count {
	exactly := func(what string, seen, want int) Count {
		return Count{What: prefix + what, Seen: seen, Least: want, Most: want}
	}
	return []Count{
		{What: prefix + "DescribeInstances", Seen: c.describes, Least: 1, Most: (n + 49) / 50},
		// Each sandbox reads the owner of the PKI mount once.
		{What: prefix + "reads of Vault", Seen: c.reads, Least: e.reads, Most: e.reads + e.marks*sandboxes},
		exactly("writes to Vault", c.writes, e.writes),
		// Each sandbox reads every ten seconds whether the deployment is torn down.
		{What: prefix + "reads of the ledger", Seen: c.ledgerReads, Least: e.ledgerReads, Most: e.ledgerReads + 3*sandboxes},
		exactly("single writes to the ledger", c.puts, e.puts),
		exactly("transactions of the ledger", c.transactions, e.transactions),
		exactly("calls refused or failed (429, 5xx)", c.troubles, 0),
	}
}
