package storm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/bench/report"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// objects is the number of objects that the storm's profile renders for an instance: a policy, two PKI roles, an auth role.
const objects = 4

// calls is a number of calls of each kind.
type calls struct {
	reads, lists, writes                        int // of Vault; a look-up of an entity is a write
	ledgerReads, batchReads, puts, transactions int
}

func (c calls) toVault() int  { return c.reads + c.lists + c.writes }
func (c calls) toLedger() int { return c.ledgerReads + c.batchReads + c.puts + c.transactions }

// design is the number of calls that a function makes.
type design struct {
	each    calls // for each instance
	batch   calls // at most, for each batch
	moment  calls // at most, for each batch, and again each two seconds of it
	sandbox calls // at most, for each sandbox
}

// designs returns the calls of the functions as they are designed.
func designs() (start, startAlone, repetition, end design) {
	// A sandbox reads every ten seconds whether the deployment is torn down, and every ten minutes a PKI mount's mark.
	sandbox := calls{ledgerReads: 3, reads: 1}
	batch := calls{batchReads: 1} // the records
	start = design{sandbox: sandbox, batch: calls{
		batchReads: 1,
		// The last instance of a batch looks for itself if the lists are too old for it: for one, a list does not pay.
		reads: objects,
	}, each: calls{
		// The auth role after its write: the others' answers prove what is stored.
		reads: 1, writes: objects, puts: 1, transactions: 1,
	}, moment: calls{
		// The policies, the roles of one PKI mount and the auth roles show that nothing is at the paths.
		lists: 3,
	}}
	startAlone = design{sandbox: sandbox, each: start.each}
	startAlone.each.reads += objects // each path before its first write
	startAlone.each.ledgerReads++    // its record
	repetition = design{batch: batch, sandbox: sandbox}
	end = design{batch: batch, sandbox: sandbox, each: calls{
		// The policy and the auth role before their deletion.
		reads: 2,
		// The objects, the access list entry, and the alias look-ups: two for the first cut, one for the second.
		writes: objects + 1 + 3,
		// The read is for the instances that wait for a name of the ending one.
		ledgerReads: 1, puts: 1, transactions: 1,
	}, moment: calls{
		// The auth mount's accessor and alias settings before the cuts.
		reads: 2,
	}}
	return start, startAlone, repetition, end
}

// Count is a number of calls with its bounds.
type Count struct {
	What        string
	Seen        int
	Least, Most int
	instances   int
}

// String returns the count with the calls for each instance.
func (c Count) String() string {
	each := func(n int) float64 { return float64(n) / float64(c.instances) }
	return fmt.Sprintf("%-55s %5d, for each instance %.2f (by design %.2f to %.2f)", c.What, c.Seen, each(c.Seen), each(c.Least), each(c.Most))
}

// Err returns an error if the count is outside its bounds.
func (c Count) Err() error {
	if c.Seen >= c.Least && c.Seen <= c.Most {
		return nil
	}
	return fmt.Errorf("%s: %d calls, where the design makes %d to %d", c.What, c.Seen, c.Least, c.Most)
}

// Counts lets n instances start, sends their events again, lets one start alone, ends all at once, and counts every call. It
// fails if an instance was not granted or removed; the caller checks the counts.
func (r *Rig) Counts(ctx context.Context, n int) (all []Count, result report.Calls, err error) {
	w, err := r.way(ctx, wayOptions{name: "counts", tapAll: true})
	if err != nil {
		return nil, result, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	first, instances, one := r.launch(r.mapping(provision).MaximumConcurrency), r.launch(n), r.launch(1)
	start, startAlone, repetition, end := designs()
	for _, part := range []struct {
		name, function, state string
		warm, instances       []fleet.Instance
		after                 ledger.State
		writes                int64
		design                design
		toVault, toLedger     *float64 // of the result
	}{
		{"start of", provision, "running", first, instances, ledger.Active, writesToGrant, start, &result.StartToVault, &result.StartToLedger},
		{"repetition of", provision, "running", nil, instances, ledger.Active, writesToGrant, repetition, nil, nil},
		{"start alone of", provision, "running", nil, one, ledger.Active, writesToGrant, startAlone, &result.StartAloneToVault, nil},
		{"end of", deprovision, "terminated", first, instances, ledger.Deleted, writesToGrant + writesToRemove, end, &result.EndToVault, &result.EndToLedger},
	} {
		if part.state == "terminated" {
			r.cloud.terminate(append(part.warm, part.instances...)...)
		}
		if err := w.warm(ctx, part.function, part.state, part.warm); err != nil {
			return all, result, err
		}
		c, err := w.counted(ctx, part.function, part.state, part.instances)
		if err != nil {
			return all, result, err
		}
		if err := w.want(ctx, part.instances, part.after, part.writes); err != nil {
			return all, result, err
		}
		of := len(part.instances)
		sandboxes := min(r.mapping(part.function).MaximumConcurrency, c.batches)
		all = append(all, part.design.beside(c, fmt.Sprintf("%s %d, ", part.name, of), of, sandboxes)...)
		if part.toVault != nil {
			*part.toVault = float64(c.toVault()) / float64(of)
		}
		if part.toLedger != nil {
			*part.toLedger = float64(c.toLedger()) / float64(of)
		}
	}
	return all, result, nil
}

type counted struct {
	calls
	describes, batches, troubles int
	seconds                      int // begun
}

// counted drains a storm and counts its calls.
func (w *way) counted(ctx context.Context, function, state string, instances []fleet.Instance) (counted, error) {
	w.Reset()
	s, err := w.drain(ctx, function, state, instances)
	c := counted{describes: s.describes, batches: s.batches, seconds: int(s.took/time.Second) + 1}
	for _, t := range []*tap.Tap{w.Taps.Vault, w.Taps.Dynamo} {
		for _, call := range t.Calls() {
			if err := c.add(call); err != nil {
				return c, fmt.Errorf("counting the calls of %s events: %w", state, err)
			}
		}
	}
	return c, err
}

func (c *counted) add(call tap.Call) error {
	switch {
	case call.Status == http.StatusTooManyRequests || call.Status >= http.StatusInternalServerError:
		c.troubles++
	case call.Service == vaultService && strings.HasSuffix(call.Path, "/login"):
	case isList(call):
		c.lists++
	case call.Service == vaultService && call.Method == http.MethodGet:
		c.reads++
	case call.Service == vaultService:
		c.writes++
	case call.Action == "GetItem":
		c.ledgerReads++
	case call.Action == "BatchGetItem":
		c.batchReads++
	case call.Action == "PutItem":
		c.puts++
	case call.Action == "TransactWriteItems":
		c.transactions++
	default:
		return fmt.Errorf("the function called %s %s, which the design does not", call.Service, call.Action)
	}
	return nil
}

func (d design) beside(c counted, prefix string, n, sandboxes int) []Count {
	moments := c.batches + sandboxes*c.seconds/2
	all := []Count{
		{What: "DescribeInstances", Seen: c.describes, Least: 1, Most: (n + 49) / 50},
		{What: "calls refused or failed (429, 5xx)", Seen: c.troubles},
	}
	for _, k := range []struct {
		what string
		of   func(calls) int
	}{
		{"reads of Vault", func(c calls) int { return c.reads }},
		{"lists of Vault", func(c calls) int { return c.lists }},
		{"writes to Vault", func(c calls) int { return c.writes }},
		{"calls to Vault", calls.toVault},
		{"reads of a ledger item", func(c calls) int { return c.ledgerReads }},
		{"reads of a batch's ledger items", func(c calls) int { return c.batchReads }},
		{"single writes to the ledger", func(c calls) int { return c.puts }},
		{"transactions of the ledger", func(c calls) int { return c.transactions }},
		{"calls to the ledger", calls.toLedger},
	} {
		all = append(all, Count{
			What: k.what, Seen: k.of(c.calls), Least: n * k.of(d.each),
			Most: n*k.of(d.each) + c.batches*k.of(d.batch) + moments*k.of(d.moment) + sandboxes*k.of(d.sandbox),
		})
	}
	for i := range all {
		all[i].What, all[i].instances = prefix+all[i].What, n
	}
	return all
}
