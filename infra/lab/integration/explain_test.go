package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// question invokes a reconcile function with a question, and decodes its answer.
func question(t *testing.T, f *sandbox.Function, in rec.Input, into any) []byte {
	t.Helper()
	payload, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	result, err := f.Invoke(t.Context(), payload)
	if err != nil || result.Err() != nil {
		t.Fatalf("%v, %v\nlogs:\n%s", err, result.Err(), f.Logs())
	}
	if err := json.Unmarshal(result.Payload, into); err != nil {
		t.Fatalf("the answer %s: %v", result.Payload, err)
	}
	return result.Payload
}

func explain(t *testing.T, f *sandbox.Function, id string) (e rec.Explanation, raw string) {
	t.Helper()
	raw = string(question(t, f, rec.Input{Mode: rec.Explain, InstanceIDs: []string{id}}, &e))
	return e, raw
}

// TestExplain_SaysWhatEachInstanceHas explains instances in each state on the real parts.
func TestExplain_SaysWhatEachInstanceHas(t *testing.T) {
	for name, c := range map[string]struct {
		make func(*testing.T) string // returns the ID to explain
		want rec.Status
		ok   bool
		says string // in the summary
		next string
	}{
		"a grant without a login": {
			make: func(t *testing.T) string { return provisioned(t).ID },
			want: rec.Granted, ok: true, says: "never logged in", next: "journalctl",
		},
		"a grant with a login": {
			make: func(t *testing.T) string { i, _ := withToken(t); return i.ID },
			want: rec.Granted, ok: true, says: "its last login was at", next: "nothing is left to do in Vault",
		},
		"an edited policy": {
			make: func(t *testing.T) string {
				i := provisioned(t)
				vaultDelete(t, pathsOf(i.ID).policy)
				return i.ID
			},
			want: rec.Drifted, says: "differs in 1 places", next: "--mode correct --instance",
		},
		"no profile": {
			make: func(t *testing.T) string { return launch(t, fleet.Spec{Role: "alice-workers"}).ID },
			want: rec.Unmatched, says: `the closest is alice_cluster-worker: match.iam_role_arn: the instance has "arn:aws:iam::123456789012:role/alice-workers"`, next: "docs/profiles.md",
		},
		"an event that did not come": {
			make: func(t *testing.T) string { return launch(t, fleet.Spec{Role: "alice-worker"}).ID },
			want: rec.NotGranted, says: "alice_cluster-worker matches it, and it was granted nothing", next: "--mode correct",
		},
		"an end that was not seen": {
			make: func(t *testing.T) string {
				i := provisioned(t)
				terminate(t, i)
				return i.ID
			},
			want: rec.ToRemove, says: "it is terminated, and not all of its grant is removed", next: "--mode correct",
		},
		"a removed grant": {
			make: func(t *testing.T) string {
				i := provisioned(t)
				remove(t, i)
				return i.ID
			},
			want: rec.Removed, ok: true, says: "its grant was removed by", next: "vault-ec2 who",
		},
		"another account": {
			make: func(t *testing.T) string {
				i := launch(t, fleet.Spec{Role: "alice-worker", AccountID: "444455556666"})
				must(t, provision, i, "running", "provisioned")
				return i.ID
			},
			want: rec.Granted, ok: true, says: "it has the grant of profile alice_cluster-worker",
		},
		"an unknown instance": {
			make: func(*testing.T) string { return "i-0fffffffffffffff0" },
			want: rec.Unheard, says: "neither the ledger nor Vault knows it", next: "--account and --region",
		},
		"no instance ID": {
			make: func(*testing.T) string { return "i-0FFF; rm -rf /" },
			want: rec.Malformed, says: "is not the ID of an EC2 instance", next: "vault-ec2 who",
		},
	} {
		t.Run(name, func(t *testing.T) {
			id := c.make(t)
			e, raw := explain(t, world.Functions[reconcile], id)
			if e.Status != c.want || e.OK != c.ok || !strings.Contains(e.Summary, c.says) || !strings.Contains(e.Next, c.next) {
				t.Errorf("want %s (%v), %q and %q, got\n%s", c.want, c.ok, c.says, c.next, raw)
			}
			if len(e.Unread) > 0 {
				t.Errorf("want everything read, got %+v", e.Unread)
			}
		})
	}
}

// An explanation shows who holds the name, since when the refusal is recorded, and which instances wait.
func TestExplain_ShowsTheNamesAndTheRefusal(t *testing.T) {
	profiles := map[string]string{"TEMPLATES_DIR": byName(t), "NAME_WAIT": "0s"}
	grants, f := variant(t, provision, profiles), variant(t, reconcile, profiles)
	tags := map[string]string{"Name": fmt.Sprintf("t%d.alice.example", time.Now().UnixNano())}
	holder, i := launch(t, fleet.Spec{Role: "alice-worker", Tags: tags}), launch(t, fleet.Spec{Role: "alice-worker", Tags: tags})
	mustBy(t, grants, holder, "running", "provisioned")
	defer func() {
		terminate(t, i) // before the release wakes it
		remove(t, holder)
	}()
	if a := bare(t, grants, fleet.Event(i, "running", time.Now())); a.Kind != "refuse" {
		t.Fatalf("want the name refused, got %+v", a)
	}
	e, raw := explain(t, f, i.ID)
	if e.Status != rec.NameHeld || !strings.Contains(e.Summary, "held by instance "+holder.ID) || !strings.Contains(e.Next, "explain --stack lab "+holder.ID) {
		t.Errorf("want the holder named, got\n%s", raw)
	}
	if e.Refusal == nil || e.Refusal.Since == nil || !strings.Contains(e.Refusal.Error, "may not have the name") {
		t.Errorf("want the refusal with its time, got %+v", e.Refusal)
	}
	if seen, _ := explain(t, f, holder.ID); len(seen.Waiting) != 1 || seen.Waiting[0] != i.ID {
		t.Errorf("want the waiting instance shown with the holder, got %v", seen.Waiting)
	}
	for _, o := range e.Objects {
		if !o.Granted || o.Recorded || o.InVault != rec.No {
			t.Errorf("want objects that the profile grants, and that are neither recorded nor made, got %+v", o)
		}
	}
	if len(e.Objects) != 4 || e.EC2.Tags["Name"] != tags["Name"] {
		t.Errorf("want the four objects of a worker, and the tag of its name, got\n%s", raw)
	}
}

// A hook's wait is the first thing to know of an instance that does not come into service.
func TestExplain_ShowsTheLifecycleState(t *testing.T) {
	i := provisioned(t)
	(&autoScaling{state: "Pending:Wait"}).install(t)
	if e, raw := explain(t, world.Functions[reconcile], i.ID); e.Group == nil || e.Group.Name != "workers" || e.Group.State != "Pending:Wait" {
		t.Errorf("want the group and the wait, got\n%s", raw)
	}
}

// What cannot be read is named, and the rest is explained.
func TestExplain_GoesOnWithoutAService(t *testing.T) {
	i := provisioned(t)
	vaultDown := variant(t, reconcile, map[string]string{"VAULT_ADDR": "https://127.0.0.1:1"})
	e, raw := explain(t, vaultDown, i.ID)
	if e.Status != rec.Undecided || e.EC2 == nil || e.EC2.State != "running" || e.Record == nil || e.Record.State != "active" || len(e.Matches) != 1 || !unread(e, "Vault's lists") || e.Login.LoggedIn != rec.Unknown {
		t.Errorf("without Vault: want EC2, the profile and the ledger, got\n%s", raw)
	}
	for _, o := range e.Objects {
		if o.InVault != rec.Unknown {
			t.Errorf("without Vault nothing is known of its objects, got %+v", o)
		}
	}
	noTable := variant(t, reconcile, map[string]string{"TABLE_NAME": "none"})
	if e, raw = explain(t, noTable, i.ID); e.Status != rec.Undecided || e.EC2 == nil || len(e.Matches) != 1 || !unread(e, "the ledger's record") || e.Objects[0].InVault != rec.Yes {
		t.Errorf("without the ledger: want EC2, the profile and Vault, got\n%s", raw)
	}
	faultOn(t, world.Taps.AWS, tap.Fault{Status: 503}, func(c tap.Call) bool { return c.Action == "DescribeInstances" })
	if e, raw = explain(t, world.Functions[reconcile], i.ID); e.Status != rec.Undecided || e.EC2 != nil || e.Record == nil || !unread(e, "EC2") || e.Objects[0].InVault != rec.Yes || e.Compared {
		t.Errorf("without EC2: want the ledger and Vault, and nothing called gone, got\n%s", raw)
	}
	world.Taps.AWS.SetFault(nil)
	faultOn(t, world.Taps.AWS, tap.Fault{Status: 403, Body: []byte("<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>")}, func(c tap.Call) bool { return c.Service == "autoscaling" })
	if e, raw = explain(t, world.Functions[reconcile], i.ID); e.Status != rec.Granted || !unread(e, "the Auto Scaling group") {
		t.Errorf("without Auto Scaling: want the rest, got\n%s", raw)
	}
}

func unread(e rec.Explanation, what string) bool {
	for _, u := range e.Unread {
		if u.What == what && u.Error != "" {
			return true
		}
	}
	return false
}

// An answer may be copied into a ticket.
func TestExplain_ShowsNothingSecret(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"db": "tag-that-no-profile-uses"}})
	must(t, provision, i, "running", "provisioned")
	session := login(t, i)
	entry := vaultRead(t, grant.AccessListPath(world.AuthMount, i.ID))
	nonce, _ := entry["client_nonce"].(string)
	_, raw := explain(t, world.Functions[reconcile], i.ID)
	for _, secret := range []string{session.Token(), session.Nonce, nonce, session.Auth.Accessor, "tag-that-no-profile-uses"} {
		if secret == "" || strings.Contains(raw, secret) {
			t.Errorf("want %q not in\n%s", secret, raw)
		}
	}
}

// readOnly are the calls that read. Vault's look-up of an entity and its login are sent as writes.
func readOnly(c tap.Call) bool {
	switch c.Service {
	case "vault":
		method, path, _ := strings.Cut(c.Action, " ")
		return method == "GET" || method == "LIST" || path == "identity/lookup/entity" || strings.HasSuffix(path, "/login")
	case "dynamodb":
		return c.Action == "GetItem" || c.Action == "BatchGetItem" || c.Action == "Scan"
	}
	return strings.HasPrefix(c.Action, "Describe") || strings.HasPrefix(c.Action, "Get") || c.Action == "AssumeRole"
}

// TestQuestions_WriteNothing asks about instances with every kind of work to do, and looks at each call.
func TestQuestions_WriteNothing(t *testing.T) {
	drifted, gone, fresh, removed := provisioned(t), provisioned(t), launch(t, fleet.Spec{Role: "alice-worker"}), provisioned(t)
	session, _ := withToken(t)
	vaultDelete(t, pathsOf(drifted.ID).policy)
	terminate(t, gone)
	remove(t, removed)
	f := variant(t, reconcile, nil)
	if err := world.Pollers[provision].Drained(t.Context()); err != nil { // another test's release may have woken an instance
		t.Fatal(err)
	}
	resetTaps()
	for _, id := range []string{drifted.ID, gone.ID, fresh.ID, removed.ID, session.ID, "i-0fffffffffffffff1"} {
		explain(t, f, id)
	}
	for _, current := range []bool{false, true} {
		var a struct{ Holders []any }
		question(t, f, rec.Input{Mode: rec.Who, Names: []string{drifted.PrivateDNS, removed.PrivateIP, gone.ID, "ec2-" + drifted.ID + "-node"}, Current: current}, &a)
	}
	n := 0
	for _, on := range []*tap.Tap{world.Taps.AWS, world.Taps.Dynamo, world.Taps.Vault} {
		for _, c := range on.Calls() {
			n++
			if !readOnly(c) {
				t.Errorf("a question must change nothing, got %s %s", c.Service, c.Action)
			}
		}
	}
	if n < 50 {
		t.Errorf("want all calls seen, got %d", n)
	}
}

// The command prints what a person needs, and its exit status is for scripts.
func TestExplain_CommandPrintsAndExits(t *testing.T) {
	i := provisioned(t)
	env := servedBy(t, world.Functions[reconcile])
	out := ranWith(t, env, 0, "explain", "--stack", world.Stack.Name, i.ID)
	for _, says := range []string{i.ID + ": granted", "alice_cluster-worker matches", "not alice_cluster-etcd: match.iam_role_arn", "no drift", "Vault knows of none", pathsOf(i.ID).kubelet} {
		if !strings.Contains(out, says) {
			t.Errorf("want %q in\n%s", says, out)
		}
	}
	if out := ranWith(t, env, 1, "explain", "--stack", world.Stack.Name, "-o", "json", "i-0fffffffffffffff0"); !strings.HasPrefix(out, `{"mode":"explain"`) {
		t.Errorf("want JSON, got\n%.200s", out)
	}
}
