package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// verdict counts the instances, records, claims and cut tokens at the end.
type verdict struct {
	live, gone, granted, deadTokens, records, claims int
}

// fewest is the number of objects of the smallest built-in profile.
const fewest = 4

// judge compares EC2, Vault and the ledger by the lab's own lists with the root token, and returns every disagreement.
func judge(ctx context.Context, w *lab.World, c *churn) (verdict, []error) {
	e, err := gather(ctx, w)
	if err != nil {
		return verdict{}, []error{err}
	}
	for id, state := range e.states {
		switch {
		case state != running:
			e.gone++
			e.wantNothing(id, state)
		case e.roles[id] == stranger:
			e.live++
			e.wantNothing(id, "of no profile")
		default:
			e.live++
			e.granted++
			e.wantGrant(id)
		}
	}
	for id := range e.objects {
		if _, known := e.states[id]; !known {
			e.wrong("EC2 never had instance %s, but Vault has %v", id, e.objects[id])
		}
	}
	for name, id := range e.claimed {
		if e.states[id] != running {
			e.wrong("the name %v is claimed by %s in state %q", name, id, e.states[id])
		}
	}
	for id, session := range c.plan.sessions {
		e.deadTokens++
		var refused *vaultapi.ResponseError
		if _, err := session.Client.Auth().Token().LookupSelfWithContext(ctx); !errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden {
			e.wrong("instance %s has terminated, but Vault does not refuse its token: %v", id, err)
		}
	}
	return e.verdict, e.errs
}

const running = "running"

// evidence is the state of EC2, Vault and the ledger at the end.
type evidence struct {
	verdict
	states, roles map[string]string
	objects       map[string][]string
	recorded      map[string]ledger.Record
	claimed       map[ledger.Name]string
	errs          []error
}

func gather(ctx context.Context, w *lab.World) (*evidence, error) {
	e := &evidence{}
	var err error
	if e.states, e.roles, err = instances(ctx, w); err != nil {
		return nil, err
	}
	if e.objects, err = w.Objects(ctx); err != nil {
		return nil, err
	}
	if e.recorded, e.claimed, err = table(ctx, w); err != nil {
		return nil, err
	}
	e.records, e.claims = len(e.recorded), len(e.claimed)
	return e, nil
}

func (e *evidence) wrong(format string, args ...any) {
	e.errs = append(e.errs, fmt.Errorf(format, args...))
}

func (e *evidence) wantNothing(id, why string) {
	if len(e.objects[id]) > 0 {
		e.wrong("instance %s is %s, but still has %v", id, why, e.objects[id])
	}
	if record, known := e.recorded[id]; known && record.State != ledger.Deleted {
		e.wrong("instance %s is %s, but its record's state is %s (%s)", id, why, record.State, record.LastError)
	}
}

func (e *evidence) wantGrant(id string) {
	record := e.recorded[id]
	paths := slices.DeleteFunc(slices.Clone(e.objects[id]), func(p string) bool {
		_, _, isAccessList := grant.SplitAccessListPath(p)
		return isAccessList || strings.HasPrefix(p, "identity/")
	})
	if len(paths) < fewest || len(paths) != len(record.Objects) {
		e.wrong("instance %s (%s) runs with the objects %v, but %d are recorded", id, e.roles[id], paths, len(record.Objects))
	}
	if record.State != ledger.Active || record.LeaseOwner != "" || len(record.Claims) == 0 {
		e.wrong("instance %s runs, but its record has state %s, lease %q, names %v", id, record.State, record.LeaseOwner, record.Claims)
	}
	for _, name := range record.Claims {
		if e.claimed[name] != id {
			e.wrong("instance %s runs, but its name %s is claimed by %q", id, name, e.claimed[name])
		}
	}
}

// instances returns the states and roles of all instances in EC2, by ID.
func instances(ctx context.Context, w *lab.World) (states, roles map[string]string, err error) {
	states, roles = map[string]string{}, map[string]string{}
	pages := ec2.NewDescribeInstancesPaginator(ec2.NewFromConfig(w.AWS), &ec2.DescribeInstancesInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("listing EC2's instances at the end: %w", err)
		}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				id := aws.ToString(i.InstanceId)
				states[id] = string(i.State.Name)
				if i.IamInstanceProfile != nil {
					arn := aws.ToString(i.IamInstanceProfile.Arn)
					roles[id] = arn[strings.LastIndexByte(arn, '/')+1:]
				}
			}
		}
	}
	return states, roles, nil
}

func table(ctx context.Context, w *lab.World) (map[string]ledger.Record, map[ledger.Name]string, error) {
	records, claims := map[string]ledger.Record{}, map[ledger.Name]string{}
	err := ledger.New(ledger.NewAPI(w.Dynamo), w.Stack.Tables["Table"], time.Now).Scan(ctx, ledger.Visitor{
		Record: func(r ledger.Record) { records[r.InstanceID] = r },
		Claim:  func(n ledger.Name, c ledger.Claim) { claims[n] = c.InstanceID },
	})
	return records, claims, err
}

// inWork returns the number of records that are leased or not in a final state.
func inWork(ctx context.Context, w *lab.World) (int, error) {
	records, _, err := table(ctx, w)
	n := 0
	for _, r := range records {
		if r.State == ledger.Provisioning || r.State == ledger.Deprovisioning || r.LeaseOwner != "" {
			n++
		}
	}
	return n, err
}

func line(name string, n int) string { return fmt.Sprintf("  %-40s %7d", name, n) }

// report prints the run's events and its result. idle is the time until no work was left.
func report(out io.Writer, in *injector, life *churn, w *watch, v verdict, idle time.Duration) {
	faults, total := in.summary()
	d := life.done
	fmt.Fprintf(out, "\n%d faults injected\n%s\n%s\n", total, strings.Join(faults, "\n"), line("kills of all sandboxes of a function", in.kills))
	fmt.Fprintln(out, "\nthe fleet")
	for _, l := range []struct {
		name string
		n    int
	}{
		{"launched", d.launched}, {"terminated", d.terminated}, {"stopped and started", d.stopped}, {"tagged", d.tagged},
		{"events sent", d.announced}, {"events lost", d.lost}, {"events doubled", d.doubled},
		{"logins tried", d.logins}, {"logins refused", d.loginsRefused},
	} {
		fmt.Fprintln(out, line(l.name, l.n))
	}
	fmt.Fprintf(out, "\nreconcile, every %s\n", reconcileEvery)
	s := w.summary
	for _, l := range []struct {
		name string
		n    int
	}{
		{"runs answered", w.runs}, {"runs that failed", w.failedRuns}, {"runs blocked", w.blocked},
		{"rows missing", s.Missing}, {"rows changed", s.Changed}, {"rows orphaned", s.Orphaned}, {"rows conflicting", s.Conflicting},
		{"rows corrected", s.Corrected}, {"rows failed", s.Failed},
	} {
		fmt.Fprintln(out, line(l.name, l.n))
	}
	fmt.Fprintln(out, "\nmemory of the largest process, in the first and the last third of the run (MB, median)")
	for _, name := range slices.Sorted(maps.Keys(w.memory)) {
		first, last := thirds(w.memory[name])
		fmt.Fprintf(out, "  %-40s %7.1f %7.1f\n", name, first, last)
	}
	fmt.Fprintf(out, "\nidle after %s: %d live instances, %d of them granted, %d terminated, %d records, %d claims, %d tokens of terminated instances tried\n",
		idle.Round(time.Second), v.live, v.granted, v.gone, v.records, v.claims, v.deadTokens)
}

// grew returns an error for each function whose memory grew by more than half and a few megabytes: that is a leak.
func grew(memory map[string][]int64) []error {
	const room = 8 // MB
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(memory)) {
		if first, last := thirds(memory[name]); last > first*1.5+room {
			errs = append(errs, fmt.Errorf("the memory of %s grew from %.1f to %.1f MB", name, first, last))
		}
	}
	return errs
}

// thirds returns the medians of the first and the last third, in MB.
func thirds(samples []int64) (first, last float64) {
	n := max(1, len(samples)/3)
	median := func(s []int64) float64 {
		s = slices.Sorted(slices.Values(s))
		return float64(s[len(s)/2]) / (1 << 20)
	}
	return median(samples[:n]), median(samples[len(samples)-n:])
}
