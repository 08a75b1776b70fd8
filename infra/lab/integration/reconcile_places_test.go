package integration

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/audit"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

func TestReconcile_FailedRegionBlocksOnlyItself(t *testing.T) {
	here, _ := workers(t, "ap-southeast-2", 2, nil)
	there, _ := workers(t, "ap-southeast-1", 2, nil)
	f := variant(t, reconcile, map[string]string{"RECONCILE_REGIONS": "ap-southeast-2,ap-southeast-1"})
	terminate(t, here[0], there[0])
	vaultDelete(t, pathsOf(here[1].ID).policy)
	ec2Answers(t, "ap-southeast-1", tap.Fault{Status: http.StatusForbidden, Header: http.Header{"Content-Type": {"text/xml"}},
		Body: []byte(`<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>no</Message></Error></Errors></Response>`)})
	a := runReconcile(t, f, rec.Input{Mode: rec.Correct, Profile: worker, Force: true})
	if !a.Blocked || !strings.Contains(a.BlockedReason, "ap-southeast-1") || strings.Contains(a.BlockedReason, "ap-southeast-2") {
		t.Fatalf("want only the failed region blocked, even if forced, got %+v", a)
	}
	want := []string{"record orphaned delete instance#" + here[0].ID, "policy missing create " + pathsOf(here[1].ID).policy}
	if got := rows(a); len(got) != 2 || !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) || a.Summary.Corrected != 2 {
		t.Errorf("want %q, both corrected, got %q, %+v", want, got, a.Summary)
	}
	if len(objects(t, here[0])) > 0 || withObjects(t, there) != 2 {
		t.Errorf("want the orphan removed and the failed region unchanged, got %q and %d of 2", objects(t, here[0]), withObjects(t, there))
	}
}

// TestReconcile_BrokenMemberRoleBlocksItsAccount breaks the role of a member account, so that nothing is removed there. The same
// run repairs the home account.
func TestReconcile_BrokenMemberRoleBlocksItsAccount(t *testing.T) {
	const account, region = "222233334444", "il-central-1"
	home, f := workers(t, region, 2, map[string]string{"RECONCILE_ACCOUNTS": world.AccountID + "," + account})
	theirs := launch(t, fleet.Spec{Role: "alice-worker", AccountID: account, Region: region})
	must(t, provision, theirs, "running", "provisioned")
	terminate(t, home[0])
	terminate(t, theirs)
	denyRole(t, account)
	a := runReconcile(t, f, rec.Input{Mode: rec.Correct, Profile: worker})
	if !a.Blocked || !strings.Contains(a.BlockedReason, "nothing is deleted in account "+account) || !strings.Contains(a.BlockedReason, "AccessDenied") {
		t.Errorf("want the member account named with the reason, got %+v", a)
	}
	if len(objects(t, home[0])) > 0 || a.Summary.Corrected != 1 || len(objects(t, theirs)) == 0 {
		t.Errorf("want only the orphan of the home account removed, got %q and %q left, %+v", objects(t, home[0]), objects(t, theirs), a)
	}
	world.Taps.AWS.SetFault(nil)
	if a := runReconcile(t, f, rec.Input{Mode: rec.Correct, Profile: worker}); a.Blocked || len(objects(t, theirs)) > 0 {
		t.Errorf("want the rest removed once the role works again, got %+v", a)
	}
}

// TestGoneAccount_IsRemovedByTheWord closes a member account: its role cannot be assumed any more. The word of an operator removes what
// is recorded there, with its tokens, and the audit event says so.
func TestGoneAccount_IsRemovedByTheWord(t *testing.T) {
	const account, region = "777788889999", "ap-south-2"
	s, form := subscribe(t, "closed"), schema(t)
	env := map[string]string{"RECONCILE_ACCOUNTS": world.AccountID + "," + account + ":" + region, "EVENT_BUS_NAME": "closed"}
	home, f := workers(t, region, 1, env)
	theirs := launch(t, fleet.Spec{Role: "alice-worker", AccountID: account, Region: region})
	mustBy(t, variant(t, provision, map[string]string{"RECONCILE_ACCOUNTS": env["RECONCILE_ACCOUNTS"]}), theirs, "running", "provisioned")
	word := rec.Input{Mode: rec.Correct, Force: true, Gone: &rec.Gone{Accounts: []string{account}, AtMost: 1}}
	if a := runReconcile(t, f, word); !a.Blocked || a.Summary.Corrected > 0 || !strings.Contains(a.Drift[0].Error, "EC2 shows it as running") {
		t.Fatalf("want the word refused while EC2 shows the instance, got %+v", a)
	}
	denyRole(t, account)
	env["RECONCILE_REGIONS"] = region
	f = variant(t, reconcile, env) // the former one still has credentials of the role
	preview := rec.Input{Mode: rec.Detect, Gone: &rec.Gone{Accounts: []string{account}}}
	if a := runReconcile(t, f, preview); a.Summary != (rec.Summary{Orphaned: 1}) || len(objects(t, theirs)) == 0 {
		t.Errorf("want one row and nothing removed, got %+v", a)
	}
	if a := runReconcile(t, f, word); a.Blocked || a.Summary != (rec.Summary{Orphaned: 1, Corrected: 1}) {
		t.Errorf("want it removed, got %+v\n%s", a, f.Logs())
	}
	if len(objects(t, theirs)) > 0 || len(objects(t, home[0])) == 0 {
		t.Errorf("want only the closed account's grant removed, left are %q and %q", objects(t, theirs), objects(t, home[0]))
	}
	removed := s.received(t, theirs.ID, audit.Removed)[audit.Removed]
	if detail, _ := removed["detail"].(map[string]any); detail["byWord"] != true {
		t.Errorf("want the audit event to say that it was an operator's word, got %v", removed)
	}
	if err := form.Validate(removed); err != nil {
		t.Errorf("the event does not match the documented schema: %v", err)
	}
	terminate(t, home[0]) // the region is another test's too
	if a := runReconcile(t, f, rec.Input{Mode: rec.Correct}); a.Blocked || len(a.Places) != 1 || a.Places[0].Recorded != 0 {
		t.Errorf("want the account named and nothing blocked by it any more, got %+v", a)
	}
}

// denyRole has STS refuse the member role of an account until the test ends.
func denyRole(t *testing.T, account string) {
	t.Helper()
	world.Taps.AWS.SetFault(func(c tap.Call) *tap.Fault {
		if c.Action != "AssumeRole" || !strings.Contains(string(c.Body), account) {
			return nil
		}
		return &tap.Fault{Status: http.StatusForbidden, Header: http.Header{"Content-Type": {"text/xml"}},
			Body: []byte(`<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`)}
	})
	t.Cleanup(func() { world.Taps.AWS.SetFault(nil) })
}

func TestReconcile_EmptyRegionBlocksOnlyItself(t *testing.T) {
	here, _ := workers(t, "ap-northeast-1", 2, nil)
	there, _ := workers(t, "ap-northeast-2", 1, nil)
	f := variant(t, reconcile, map[string]string{"RECONCILE_REGIONS": "ap-northeast-1,ap-northeast-2"})
	backdate(t, there[0].ID)
	terminate(t, here[0])
	ec2Answers(t, "ap-northeast-2", xml(noInstances))
	a := runReconcile(t, f, rec.Input{Mode: rec.Correct, Profile: worker})
	if !a.Blocked || !strings.Contains(a.BlockedReason, "no instance at all in account 123456789012, region ap-northeast-2") {
		t.Fatalf("want the run blocked and the region named, got %+v", a)
	}
	if len(objects(t, here[0])) > 0 || a.Summary.Corrected != 1 || !slices.Contains(rows(a), "record orphaned none instance#"+there[0].ID) {
		t.Errorf("want the orphan of the other region removed and the empty region's withheld, got %q, %+v", rows(a), a.Summary)
	}
	// In a forced run the second look-up, by ID, still finds the instance, which keeps its grant.
	a = runReconcile(t, f, rec.Input{Mode: rec.Correct, Profile: worker, Force: true})
	if withObjects(t, there) != 1 || withObjects(t, here) != 1 {
		t.Errorf("want a running instance to keep its grant although a listing omitted it, got %+v", a)
	}
}
