package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

// deployment is another deployment in the same account on the same Vault, with an ID, a table and functions of its own.
type deployment struct {
	env                 map[string]string
	granting, comparing *sandbox.Function
	ledger              *ledger.Ledger
}

// deploy makes a deployment that compares only one region.
func deploy(t *testing.T, name, region string) deployment {
	t.Helper()
	d := deployment{
		env:    map[string]string{"DEPLOYMENT_ID": name, "TABLE_NAME": name, "RECONCILE_REGIONS": region},
		ledger: newLedger(t, name),
	}
	return d.with(t, nil)
}

// newLedger makes a table for a ledger.
func newLedger(t *testing.T, name string) *ledger.Ledger {
	t.Helper()
	_, err := world.Dynamo.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return ledger.New(ledger.NewAPI(world.Dynamo), name, time.Now)
}

// with returns the deployment after a redeployment with changed variables.
func (d deployment) with(t *testing.T, change map[string]string) deployment {
	t.Helper()
	d.env = maps.Clone(d.env)
	maps.Copy(d.env, change)
	d.granting, d.comparing = variant(t, provision, d.env), variant(t, reconcile, d.env)
	return d
}

// grant launches n workers in a region and provisions them by the deployment.
func (d deployment) grant(t *testing.T, region string, n int) []fleet.Instance {
	t.Helper()
	unmarked(t) // the lab's PKI mounts have the mark of the lab's own deployment
	var all []fleet.Instance
	for range n {
		i := launch(t, fleet.Spec{Role: "alice-worker", Region: region})
		mustBy(t, d.granting, i, "running", "provisioned")
		all = append(all, i)
	}
	return all
}

func TestProfileChange_ReachesAllByReconcile(t *testing.T) {
	const region = "af-south-1"
	all, _ := workers(t, region, 3, nil)
	session := login(t, all[0])
	templates := changed(t, "worker/profile.yaml", "token_ttl: 1h", "token_ttl: 30m")
	redeployed := variant(t, reconcile, map[string]string{"RECONCILE_REGIONS": region, "TEMPLATES_DIR": templates})
	in := rec.Input{Mode: rec.Detect, Profile: worker}
	a := runReconcile(t, redeployed, in)
	if a.Summary != (rec.Summary{Changed: 3}) || !slices.Equal(a.Drift[0].Fields, []string{"token_ttl"}) {
		t.Fatalf("want a row with the changed TTL for each of 3 instances, got %+v", a)
	}
	in.Mode = rec.Correct
	if a := runReconcile(t, redeployed, in); a.Summary.Corrected != 3 || a.Blocked {
		t.Errorf("want all three corrected, got %+v", a)
	}
	for _, i := range all {
		if ttl := fmt.Sprint(vaultRead(t, pathsOf(i.ID).role)["token_ttl"]); ttl != "1800" {
			t.Errorf("want the new TTL of 1800 s on %s, got %s", i.ID, ttl)
		}
	}
	if _, err := session.Client.Auth().Token().LookupSelfWithContext(t.Context()); err != nil {
		t.Errorf("want an earlier token to work, since a changed profile removes nothing: %v", err)
	}
	if _, err := world.Fleet.Login(t.Context(), world.AuthMount, all[0], session.Nonce); err != nil {
		t.Errorf("want the instance to log in as before, got %v", err)
	}
	if a := runReconcile(t, redeployed, rec.Input{Mode: rec.Detect, Profile: worker}); len(a.Drift) > 0 {
		t.Errorf("want no drift after the correction, got %+v", a)
	}
}

func TestNewDeploymentID_ConflictsUntilAdopted(t *testing.T) {
	const region = "ap-northeast-3"
	old := deploy(t, "old-name", region)
	all := old.grant(t, region, 2)
	session := login(t, all[0])
	before := grantFields(t, all[0])
	renamed := deploy(t, "new-name", region)
	in := rec.Input{Mode: rec.Correct, Profile: worker}
	if a := runReconcile(t, renamed.comparing, in); a.Summary.Conflicting == 0 || a.Summary.Corrected > 0 {
		t.Errorf("want conflicting rows for the old deployment's instances and nothing changed, got %+v", a)
	}
	if !reflect.DeepEqual(grantFields(t, all[0]), before) {
		t.Error("the new deployment changed an object with the old one's marker")
	}
	adopting := renamed.with(t, map[string]string{"CONFLICT_MODE": "adopt"})
	if a := runReconcile(t, adopting.comparing, in); a.Summary.Failed > 0 || a.Summary.Corrected == 0 {
		t.Errorf("want them adopted, got %+v", a)
	}
	for _, i := range all {
		if text := fmt.Sprint(vaultRead(t, pathsOf(i.ID).policy)["policy"]); !strings.Contains(text, "# deployment: new-name\n") {
			t.Errorf("want the new deployment's marker on %s, got\n%s", i.ID, text)
		}
		if r, err := renamed.ledger.Get(t.Context(), i.ID); err != nil || r == nil || r.State != ledger.Active {
			t.Errorf("want %s active in the new ledger, got %+v, %v", i.ID, r, err)
		}
	}
	if _, err := session.Client.Auth().Token().LookupSelfWithContext(t.Context()); err != nil {
		t.Errorf("want an earlier token to work: %v", err)
	}
	adopted := grantFields(t, all[0])
	if a := runReconcile(t, old.comparing, in); a.Summary.Corrected > 0 {
		t.Errorf("want the old deployment's reconcile to change nothing, got %+v", a)
	}
	if a := runReconcile(t, old.comparing, rec.Input{Mode: rec.Teardown, Confirm: "old-name"}); a.Summary.Corrected > 0 || a.Summary.Conflicting != 2 || a.Summary.Failed > 0 {
		t.Errorf("want the old deployment's teardown to change nothing and report conflicts, got %+v", a)
	}
	if !reflect.DeepEqual(grantFields(t, all[0]), adopted) {
		t.Error("the old deployment changed an object that the new one adopted")
	}
	if a := runReconcile(t, renamed.with(t, nil).comparing, rec.Input{Mode: rec.Detect, Profile: worker}); len(a.Drift) > 0 {
		t.Errorf("want no drift after adopting is switched off, got %+v", a)
	}
}

func TestEmptyVault_IsFilledFromEC2AndLedger(t *testing.T) {
	const region = "eu-south-2"
	moving := deploy(t, "moving", region)
	all := moving.grant(t, region, 3)
	gone := all[2]
	terminate(t, gone) // its event is lost in the move
	other, err := world.OtherVault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	moved := moving.with(t, map[string]string{"VAULT_ADDR": other.VaultAddr, "VAULT_CA_SECRET_ARN": secret(t, "other-vault-ca", other.VaultCAPEM)})
	if a := runReconcile(t, moved.comparing, rec.Input{Mode: rec.Correct}); a.Blocked || a.Summary.Failed > 0 || a.Summary.Corrected == 0 {
		t.Fatalf("want the new Vault filled, got %+v\n%s", a, moved.comparing.Logs())
	}
	for _, i := range all[:2] {
		found, err := other.ObjectsOf(t.Context(), i.ID)
		if err != nil || len(ofGrant(found)) != 4 {
			t.Errorf("want the four objects of %s in the new Vault, got %q, %v", i.ID, found, err)
		}
		session, err := other.Fleet.Login(t.Context(), other.AuthMount, i, "")
		if err != nil {
			t.Errorf("want %s to log in to the new Vault, got %v", i.ID, err)
			continue
		}
		if _, err := session.Logical().WriteWithContext(t.Context(), "alice_cluster/pki/k8s/issue/"+i.ID+"-kubelet", map[string]any{
			"common_name": "system:node:" + i.PrivateDNS, "alt_names": i.PrivateDNS, "ip_sans": i.PrivateIP,
		}); err != nil {
			t.Errorf("want a certificate from the new Vault, got %v", err)
		}
	}
	if found, err := other.ObjectsOf(t.Context(), gone.ID); err != nil || len(found) > 0 {
		t.Errorf("want no object for a terminated instance, got %q, %v", found, err)
	}
	if a := runReconcile(t, moved.comparing, rec.Input{Mode: rec.Detect}); len(a.Drift) > 0 || a.Blocked {
		t.Errorf("want no drift after the move, got %+v", a)
	}
}

func TestTeardown_RemovesExactlyOneDeployment(t *testing.T) {
	const region = "ap-southeast-3"
	resetTaps()
	d := deploy(t, "retiring", region)
	all := d.grant(t, region, 4)
	bystander := provisioned(t)
	foreign := grantFields(t, bystander)
	session := login(t, all[0])
	byHand := "sys/policies/acl/ec2-" + all[1].ID + "-byhand"
	vaultWrite(t, byHand, map[string]any{"policy": "# foreign\n"})

	for _, wrong := range []string{`{"mode":"teardown"}`, `{"mode":"teardown","confirm":"lab"}`, `{"mode":"teardown","confirm":"retiring","profile":"x"}`} {
		result, err := d.comparing.Invoke(t.Context(), []byte(wrong))
		if err != nil || result.Err() == nil {
			t.Errorf("%s: want a refusal, got %s, %v", wrong, result.Payload, err)
		}
	}
	if n := withObjects(t, all); n != 4 {
		t.Fatalf("want all four grants kept after the refused teardowns, got %d", n)
	}

	confirmed := rec.Input{Mode: rec.Teardown, Confirm: "retiring"}
	left := backdoors(t)
	a := runReconcile(t, d.comparing, confirmed)
	if a.Blocked || a.Summary.Corrected != 4 || a.Summary.Failed > 0 {
		t.Fatalf("want four instances removed, got %+v\n%s", a, d.comparing.Logs())
	}
	if got := misnamed(t, a); !slices.Equal(got, left) {
		t.Errorf("want the teardown to report the misnamed objects that it leaves, %q, got %q", left, got)
	}
	for _, path := range left {
		if vaultRead(t, path) == nil {
			t.Errorf("%s was removed", path)
		}
		vaultDelete(t, path)
	}
	for n, i := range all {
		want := []string{}
		if n == 1 {
			want = []string{byHand}
		}
		if left := objects(t, i); !slices.Equal(append([]string{}, left...), want) {
			t.Errorf("want %q left of %s, got %q", want, i.ID, left)
		}
		if r, err := d.ledger.Get(t.Context(), i.ID); err != nil || r.State != ledger.Deleted || len(r.Objects) > 0 {
			t.Errorf("want a tombstone for %s, got %+v, %v", i.ID, r, err)
		}
	}
	if _, err := session.Client.Auth().Token().LookupSelfWithContext(t.Context()); err == nil {
		t.Error("a token of a running instance outlived the teardown")
	}
	if !reflect.DeepEqual(grantFields(t, bystander), foreign) {
		t.Error("the teardown changed another deployment's instance")
	}

	// Nothing is granted again, by an event of an old or a new instance or by reconcile.
	late := launch(t, fleet.Spec{Role: "alice-worker", Region: region})
	for _, i := range []fleet.Instance{all[0], late} {
		fresh := variant(t, provision, d.env) // a new sandbox reads the teardown at once
		if a := bare(t, fresh, fleet.Event(i, "running", time.Now())); a.Action != "torn-down" || len(objects(t, i)) > 0 {
			t.Errorf("want no grant for %s, got %+v, %q", i.ID, a, objects(t, i))
		}
	}
	if a := runReconcile(t, d.comparing, rec.Input{Mode: rec.Correct}); !a.Blocked || !strings.Contains(a.BlockedReason, "torn down") {
		t.Errorf("want reconcile blocked by the teardown, got %+v", a)
	}
	if a := runReconcile(t, d.comparing, confirmed); a.Summary != (rec.Summary{}) || a.Blocked {
		t.Errorf("want nothing left for a second teardown, got %+v", a)
	}
	if used := rightsUsed(t)[reconcile]; !used["dynamodb:PutItem teardown"] {
		t.Errorf("want the teardown's item written, but the rights used are %v", used)
	}

	// Everything is granted again after the teardown's item is deleted by hand.
	vaultDelete(t, byHand)
	if _, err := world.Dynamo.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String("retiring"), Key: key("teardown")}); err != nil {
		t.Fatal(err)
	}
	if a := runReconcile(t, d.comparing, rec.Input{Mode: rec.Correct}); a.Blocked || a.Summary.Failed > 0 || withObjects(t, all) != 4 {
		answer, _ := json.Marshal(a)
		t.Errorf("want the four granted again, got %s", answer)
	}
}

func TestTeardown_ReportsFaultAndNextOneFinishes(t *testing.T) {
	const region = "ap-south-2"
	d := deploy(t, "retiring-badly", region)
	all := d.grant(t, region, 3)
	l := line(t, lab.LineOptions{Functions: []string{reconcile}, Env: d.env})
	l.Taps.Vault.SetFault(func(c tap.Call) *tap.Fault {
		switch c.Action {
		case "DELETE sys/policies/acl/ec2-" + all[1].ID + "-node":
			return &tap.Fault{Status: http.StatusInternalServerError}
		case "DELETE auth/aws/role/" + all[2].ID:
			return &tap.Fault{CutAfter: true} // the deletion takes effect, and its answer is lost
		}
		return nil
	})
	confirmed := rec.Input{Mode: rec.Teardown, Confirm: "retiring-badly"}
	a := runReconcile(t, l.Functions[reconcile], confirmed)
	if a.Summary.Failed != 2 || a.Summary.Corrected != 1 {
		t.Errorf("want two failed rows and one removal, got %+v", a)
	}
	l.Taps.Vault.SetFault(nil)
	if a := runReconcile(t, l.Functions[reconcile], confirmed); a.Summary.Corrected != 2 || a.Summary.Failed > 0 || withObjects(t, all) > 0 {
		t.Errorf("want the other two removed by the next teardown, got %+v", a)
	}
	for _, i := range all {
		if r, err := d.ledger.Get(t.Context(), i.ID); err != nil || r.State != ledger.Deleted || len(r.Objects) > 0 {
			t.Errorf("want a tombstone for %s, got %+v, %v", i.ID, r, err)
		}
	}
}
