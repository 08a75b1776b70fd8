package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/autoscaling"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/instance"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault/vaulttest"
)

// States has no instance in a group.
func (w *world) States(context.Context, []facts.Ref) map[facts.Ref]autoscaling.GroupState {
	return nil
}

// explain explains the first instance.
func (w *world) explain(change ...func(*Options)) Explanation {
	w.t.Helper()
	x := &Explainer{Reconciler: w.reconciler(change...), Groups: w, Logins: w.vault(), Waiters: w.ledger()}
	return x.Explain(w.t.Context(), Input{Mode: Explain, InstanceIDs: []string{id(0)}})
}

// situations are what can be the matter with the first of two instances. Those of infra/lab/integration are made on the real parts.
var situations = map[string]struct {
	make   func(*world)
	change func(*Options)
	want   Status
	ok     bool
	says   string // in the summary
	next   string
}{
	"in order":             {make: func(*world) {}, want: Granted, ok: true, says: "alice_cluster-worker", next: "on the instance"},
	"logged in":            {make: func(w *world) { w.Add(alias(id(0)), id(0)) }, want: Granted, ok: true, says: "it has logged in", next: "nothing is left to do"},
	"stopped":              {make: func(w *world) { w.setState(facts.Stopped) }, want: Stopped, ok: true, says: "records its grant as active", next: "when it runs again"},
	"stopped and new":      {make: func(w *world) { w.forget(0); w.setState(facts.Stopped) }, want: Stopped, ok: true, says: "has no grant", next: "when it runs"},
	"a policy is gone":     {make: func(w *world) { delete(w.Objects, policyPath()) }, want: Drifted, says: "differs in 1 places", next: "--mode correct --instance " + id(0)},
	"a role was loosened":  {make: func(w *world) { w.loosen(grant.AuthRolePath("aws", id(0)), "token_ttl", int64(1)) }, want: Drifted, says: "differs", next: "--mode correct"},
	"a foreign policy":     {make: func(w *world) { w.loosen(policyPath(), "policy", "# other\n") }, want: Conflicted, says: "not this deployment's", next: policyPath()},
	"its end was not seen": {make: func(w *world) { w.terminate(0) }, want: ToRemove, says: "it is terminated", next: "--mode correct"},
	"it is ending":         {make: func(w *world) { w.setState(facts.ShuttingDown) }, want: Busy, says: "removed when it is terminated"},
	"EC2 forgot it":        {make: func(w *world) { delete(w.ec2, id(0)) }, want: ToRemove, says: "EC2 does not show it in account 123456789012, region us-east-1", next: "--mode correct"},
	"EC2 lacks it yet": {
		make: func(w *world) {
			delete(w.ec2, id(0))
			w.edit(id(0), func(r *ledger.Record) { r.UpdatedAt = w.now })
		}, want: Busy, says: "younger than 10 minutes", next: "ask again after 2026-01-02T03:14:05Z",
	},
	"removed":         {make: func(w *world) { w.terminate(0); w.remove(id(0)) }, want: Removed, ok: true, says: "removed by 2026-01-02T03:04:05Z"},
	"ended, no grant": {make: func(w *world) { w.terminate(0); w.remove(id(0)); delete(w.Records, id(0)) }, want: Removed, ok: true, says: "it has no grant"},
	"never was":       {make: func(w *world) { w.remove(id(0)); delete(w.Records, id(0)); delete(w.ec2, id(0)) }, want: Unheard, says: "neither the ledger nor Vault", next: "30 days"},
	"an orphan":       {make: func(w *world) { delete(w.ec2, id(0)); w.forgetRecord(0) }, want: ToRemove, says: "not all of its grant is removed"},
	"no event came":   {make: func(w *world) { w.forget(0) }, want: NotGranted, says: "granted nothing", next: "provision-dead-letters"},
	"elsewhere, new":  {make: func(w *world) { w.forget(0); w.move(0) }, change: func(o *Options) { o.Places = []facts.Place{there} }, want: Unheard, next: "--account and --region"},
	"elsewhere, drifted": {
		make:   func(w *world) { delete(w.Objects, policyPath()) },
		change: func(o *Options) { o.Places = []facts.Place{there} }, want: Drifted, next: "reconcile does not compare account 123456789012, region us-east-1",
	},
	"elsewhere, ended": {
		make:   func(w *world) { w.terminate(0) },
		change: func(o *Options) { o.Places = []facts.Place{there} }, want: ToRemove, says: "it is terminated", next: "--gone-instance " + id(0),
	},
	"it has no role": {make: func(w *world) { w.ec2[id(0)] = noRole(w.ec2[id(0)]) }, want: Unmatched, says: "the closest is alice_cluster-", next: "Its earlier grant is removed"},
	"a run works on it": {
		make: func(w *world) {
			w.edit(id(0), func(r *ledger.Record) {
				r.LeaseOwner, r.LeaseExpiresAt, r.LastError = "run", w.now.Add(time.Minute).UnixMilli(), "Vault is sealed"
			})
		}, want: Busy, says: "Vault is sealed", next: "ask again after 2026-01-02T03:05:05Z",
	},
	"a second cut waits": {
		make: func(w *world) {
			w.terminate(0)
			w.edit(id(0), func(r *ledger.Record) {
				until := w.now.Add(time.Minute)
				r.State, r.QuietUntil = ledger.Deprovisioning, &until
			})
		}, want: Busy, says: "second token cut", next: "ask again after",
	},
	"its group ends it": {
		make: func(w *world) {
			w.remove(id(0))
			w.edit(id(0), func(r *ledger.Record) { r.LeavingSince = &start })
		}, want: Leaving, says: "since 2026-01-02T03:04:05Z",
	},
	"a name comes late": {
		make: func(w *world) {
			w.forget(0)
			w.setFacts(0, func(f *facts.Instance) { f.PrivateDNSName, f.LaunchTime = "", w.now })
		},
		want: Awaiting, says: "may still come", next: "5 minutes",
	},
	"a name is missing": {
		make: func(w *world) { w.forget(0); w.setFacts(0, func(f *facts.Instance) { f.PrivateDNSName = "" }) },
		want: RefusedNow, says: "its grant is refused", next: "infra/RUNBOOK.md#refused",
	},
	"a recorded refusal": {
		make: func(w *world) {
			w.forget(0)
			w.Records[id(0)] = ledger.Record{InstanceID: id(0), Account: here.Account, Region: here.Region, State: ledger.Refused, LastError: "the mount is another's", UpdatedAt: start, Version: 1}
		}, want: RefusedNow, says: "(recorded since 2026-01-02T03:04:05Z: the mount is another's)", next: "if the cause is repaired",
	},
	"its name is held": {
		make: func(w *world) { w.forget(0); w.claimFor(1, w.ec2[id(0)].PrivateDNSName) },
		want: NameHeld, says: "held by instance " + id(1), next: "explain --stack vault-ec2 " + id(1),
	},
	"its holder is gone": {
		make: func(w *world) { w.forget(0); w.claimFor(1, w.ec2[id(0)].PrivateDNSName); w.terminate(1) },
		want: NotGranted, says: "held its name and is gone", next: "--mode correct",
	},
	"torn down":           {make: func(w *world) { w.Teardown = &start }, want: TornDown, says: "torn down at 2026-01-02", next: "item teardown"},
	"EC2 is away":         {make: func(w *world) { w.fail["describe"] = errStorage }, want: Undecided, says: "EC2 could not be asked about it; the ledger records it as active", next: "vault-ec2 doctor"},
	"the ledger is away":  {make: func(w *world) { w.fail["get"] = errStorage }, want: Undecided, says: "the ledger could not be read; profile alice_cluster-worker matches"},
	"the claims are away": {make: func(w *world) { w.fail["holder"] = errStorage }, want: Undecided, says: "could not be compared"},
	"the list is away":    {make: func(w *world) { w.fail["list sys/policies/acl"] = errStorage }, want: Undecided, says: "could not be compared"},
	"Vault reads fail":    {make: func(w *world) { w.fail["read"] = errStorage }, want: Undecided, says: "could not be compared"},
	"away and ended":      {make: func(w *world) { w.terminate(0); w.fail["list sys/policies/acl"] = errStorage }, want: Undecided, says: "it is terminated, and what is left"},
	"stopped with a door": {
		make: func(w *world) {
			w.setState(facts.Stopped)
			w.Objects[grant.PKIRolePath("alice_cluster/pki/k8s", id(0)+"-door")] = map[string]any{}
		}, want: Stopped, ok: true, says: "records its grant as active", // a stopped instance with a record is not compared
	},
	"ledger away, EC2 forgot": {make: func(w *world) { delete(w.ec2, id(0)); w.fail["get"] = errStorage }, want: Undecided, says: "the ledger or Vault could not be read"},
	"away and unknown":        {make: func(w *world) { delete(w.ec2, id(0)); w.fail["list sys/policies/acl"] = errStorage }, want: Undecided, says: "EC2 does not show it"},
	"no role in IAM": {
		make:   func(*world) {},
		change: func(o *Options) { o.Instances = withoutRole{o.Instances} }, want: RefusedNow, says: "does not exist in IAM; it keeps its earlier grant",
	},
}

// withoutRole is EC2 with an instance whose instance profile was deleted.
type withoutRole struct{ Instances }

func (e withoutRole) Describe(ctx context.Context, refs []facts.Ref) map[facts.Ref]instance.Sighting {
	seen := e.Instances.Describe(ctx, refs)
	for ref, s := range seen {
		s.Err = errNoRole
		seen[ref] = s
	}
	return seen
}

func (e withoutRole) List(ctx context.Context, p facts.Place, ids []string, each func([]instance.Sighting) error) error {
	return e.Instances.List(ctx, p, ids, func(page []instance.Sighting) error {
		for i := range page {
			page[i].Err = errNoRole
		}
		return each(page)
	})
}

var errNoRole = &instance.RoleError{Err: fault.Refusef("its instance profile does not exist in IAM")}

// policyPath returns the path of the policy of the first instance.
func policyPath() string { return grant.PolicyPath(grant.PolicyName(id(0), "node")) }

// setFacts changes what EC2 shows of the n-th instance.
func (w *world) setFacts(n int, change func(*facts.Instance)) {
	f := w.ec2[id(n)]
	change(&f)
	w.ec2[id(n)] = f
}

// setState changes the state of the first instance.
func (w *world) setState(s facts.State) {
	w.setFacts(0, func(f *facts.Instance) { f.State = s })
}

// move has EC2 show the n-th instance in a place that is not compared.
func (w *world) move(n int) {
	w.setFacts(n, func(f *facts.Instance) { f.Region = "eu-west-1" })
}

// forget removes what Vault and the ledger hold of the n-th instance, as before its first event.
func (w *world) forget(n int) {
	w.remove(id(n))
	delete(w.Records, id(n))
}

// forgetRecord removes the record alone.
func (w *world) forgetRecord(n int) {
	for name, c := range w.Claims {
		if c.InstanceID == id(n) {
			delete(w.Claims, name)
		}
	}
	delete(w.Records, id(n))
}

// claimFor has the n-th instance hold a name below the base path.
func (w *world) claimFor(n int, name string) {
	w.Claims[ledger.Name{Under: "alice_cluster", Text: name}] = ledger.Claim{InstanceID: id(n), Account: here.Account, Region: here.Region}
}

// situated returns a world with a situation.
func situated(t *testing.T, name string) *world {
	w := newWorld(t, 2)
	situations[name].make(w)
	return w
}

func TestExplain_HasAVerdictForEachSituation(t *testing.T) {
	for name, s := range situations {
		t.Run(name, func(t *testing.T) {
			w := situated(t, name)
			e := w.explain(changes(s.change)...)
			if e.Status != s.want || e.OK != s.ok || !strings.Contains(e.Summary, s.says) || !strings.Contains(e.Next, s.next) || e.Next == "" {
				text, _ := json.MarshalIndent(e, "", "  ")
				t.Errorf("want %s (%v), %q and %q, got\n%s", s.want, s.ok, s.says, s.next, text)
			}
			if isUnread := len(e.Unread) > 0; isUnread != (len(w.fail) > 0 || name == "no role in IAM") {
				t.Errorf("want named exactly what could not be read, got %+v", e.Unread)
			}
		})
	}
}

func changes(change func(*Options)) []func(*Options) {
	if change == nil {
		return nil
	}
	return []func(*Options){change}
}

// An explanation must not have rules of its own: its rows are those of a run for this instance.
func TestExplain_ComparesAsARunDoes(t *testing.T) {
	compared := 0
	for name, s := range situations {
		w := situated(t, name)
		e := w.explain(changes(s.change)...)
		if !e.Compared || strings.HasPrefix(name, "elsewhere") { // a run does not compare such a place at all
			continue
		}
		compared++
		a := situated(t, name).run(w.reconciler(changes(s.change)...), Input{Mode: Detect, InstanceIDs: []string{id(0)}})
		if !reflect.DeepEqual(e.Drift, a.Drift) {
			t.Errorf("%s: the explanation has the rows\n%+v\nand a run has\n%+v", name, e.Drift, a.Drift)
		}
	}
	if compared < 20 {
		t.Errorf("want most situations compared, got %d", compared)
	}
}

// An explanation changes nothing, whatever is the matter.
func TestExplain_OnlyReads(t *testing.T) {
	reads := []string{"read", "aliases", "mount", "entity", "get", "holder", "waiting", "torn down", "describe", "role"}
	for name, s := range situations {
		w := situated(t, name)
		clear(w.calls)
		w.explain(changes(s.change)...)
		for kind := range maps.Keys(w.calls) {
			if !slices.Contains(reads, kind) && !strings.HasPrefix(kind, "list ") {
				t.Errorf("%s: the call %q is none that only reads", name, kind)
			}
		}
		if w.calls["get"] == 0 {
			t.Errorf("%s: want the calls counted", name)
		}
	}
}

// Without profiles there is nothing to compare with; the rest is explained.
func TestExplain_GoesOnWithoutProfiles(t *testing.T) {
	w := newWorld(t, 1)
	w.profiles = &grant.Set{}
	x := &Explainer{Reconciler: w.reconciler(), Groups: w, Logins: w.vault(), Waiters: w.ledger(), Doubt: errors.New("no profiles are active in the ledger")}
	e := x.Explain(t.Context(), Input{Mode: Explain, InstanceIDs: []string{id(0)}})
	if e.Status != Undecided || !strings.Contains(e.Summary, "no profiles could be loaded") || e.Compared || e.Record == nil || e.EC2 == nil || e.Unread[0].What != "profiles" {
		t.Errorf("want the ledger and EC2 without a comparison, got %+v", e)
	}
}

// The record of an instance says where it is. Without one each compared place is asked, and the place that the question names.
func TestExplain_AsksWhereTheInstanceMayBe(t *testing.T) {
	w := newWorld(t, 2)
	w.move(1)
	w.forget(1)
	ask := func(in Input) []string {
		x := &Explainer{Reconciler: w.reconciler(func(o *Options) { o.Places = append(o.Places, there) }), Groups: w, Logins: w.vault(), Waiters: w.ledger()}
		in.Mode = Explain
		e := x.Explain(t.Context(), in)
		return append(e.Asked, string(e.Status))
	}
	for _, c := range []struct {
		in   Input
		want []string
	}{
		{Input{InstanceIDs: []string{id(0)}}, []string{here.Name(), "granted"}},
		{Input{InstanceIDs: []string{id(1)}}, []string{here.Name(), there.Name(), "unknown"}},
		{Input{InstanceIDs: []string{id(1)}, Account: here.Account, Region: "eu-west-1"}, []string{"account 123456789012, region eu-west-1", "not-granted"}},
	} {
		if got := ask(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%+v: want %q, got %q", c.in, c.want, got)
		}
	}
}

// Times of an accesslist entry are shown, and its nonce is not.
func TestExplain_ShowsTheTimesOfLogins(t *testing.T) {
	w := newWorld(t, 1)
	w.Objects[grant.AccessListPath("aws", id(0))] = map[string]any{
		"creation_time": "2026-01-01T00:00:00.5Z", "last_updated_time": "2026-01-02T00:00:00Z", "client_nonce": "a-nonce",
	}
	w.Add(vaulttest.Alias{Mount: "aws", Name: id(0)}, id(0))
	e := w.explain()
	text, err := json.Marshal(e)
	if err != nil || e.Login.LoggedIn != Yes || e.Login.First == nil || e.Login.Last == nil || e.Login.EntityID == "" || strings.Contains(string(text), "a-nonce") {
		t.Errorf("want both times and the entity, got %s, %v", text, err)
	}
	if want := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC); !e.Login.Last.Equal(want) || !strings.Contains(e.Summary, "last login was at 2026-01-02") {
		t.Errorf("want %s, got %+v, %s", want, e.Login, e.Summary)
	}
}

func TestQuestions_RefuseOtherFields(t *testing.T) {
	ids := []string{id(0)}
	for name, in := range map[string]Input{
		"no instance":             {Mode: Explain},
		"two instances":           {Mode: Explain, InstanceIDs: []string{id(0), id(1)}},
		"a cursor":                {Mode: Explain, InstanceIDs: ids, Cursor: &Cursor{Limit: 1}},
		"an account alone":        {Mode: Explain, InstanceIDs: ids, Account: here.Account},
		"no account":              {Mode: Explain, InstanceIDs: ids, Account: "alice", Region: here.Region},
		"force":                   {Mode: Explain, InstanceIDs: ids, Force: true},
		"a place for a run":       {Mode: Detect, Account: here.Account, Region: here.Region},
		"names for a run":         {Mode: Correct, Names: []string{"web-1"}},
		"current for a run":       {Mode: Detect, Current: true},
		"no name":                 {Mode: Who},
		"too many names":          {Mode: Who, Names: make([]string, maxNames+1)},
		"names and instances":     {Mode: Who, Names: []string{"web-1"}, InstanceIDs: ids},
		"who by force":            {Mode: Who, Names: []string{"web-1"}, Force: true},
		"who with a wrong cursor": {Mode: Who, Names: []string{"web-1"}, Cursor: &Cursor{}},
		"a name for an instance":  {Mode: Explain, InstanceIDs: ids, Names: []string{"web-1"}},
	} {
		if err := CheckInput(in); err == nil {
			t.Errorf("%s: want %+v refused", name, in)
		}
	}
	for _, in := range []Input{
		{Mode: Explain, InstanceIDs: []string{"malformed"}}, {Mode: Explain, InstanceIDs: ids, Account: here.Account, Region: here.Region},
		{Mode: Who, Names: []string{"web-1"}, Current: true}, {Mode: Who, Names: []string{"web-1"}, Cursor: &Cursor{After: "instance#i-0a", Limit: 1}},
	} {
		if err := CheckInput(in); err != nil {
			t.Errorf("%+v: %v", in, err)
		}
	}
}
