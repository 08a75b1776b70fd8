package integration

import (
	"encoding/json"
	"fmt"
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

// deployment is another one in the same account, on the same Vault: an ID, a table and functions of its own.
type deployment struct {
	env                 map[string]string
	granting, comparing *sandbox.Function
	ledger              *ledger.Ledger
}

// deploy makes a deployment that looks after one region only.
func deploy(t *testing.T, name, region string) deployment {
	t.Helper()
	_, err := world.Dynamo.CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String("pk"), AttributeType: types.ScalarAttributeTypeS}},
		KeySchema:            []types.KeySchemaElement{{AttributeName: aws.String("pk"), KeyType: types.KeyTypeHash}},
	})
	if err != nil {
		t.Fatal(err)
	}
	d := deployment{
		env:    map[string]string{"DEPLOYMENT_ID": name, "TABLE_NAME": name, "RECONCILE_REGIONS": region},
		ledger: ledger.New(ledger.NewAPI(world.Dynamo), name, time.Now),
	}
	return d.with(t, nil)
}

// with is the deployment after a redeployment with other variables.
func (d deployment) with(t *testing.T, change map[string]string) deployment {
	t.Helper()
	env := map[string]string{}
	for _, m := range []map[string]string{d.env, change} {
		for k, v := range m {
			env[k] = v
		}
	}
	d.env = env
	d.granting, d.comparing = variant(t, provision, env), variant(t, reconcile, env)
	return d
}

// grant launches workers in a region and has the deployment provision them.
func (d deployment) grant(t *testing.T, region string, n int) []fleet.Instance {
	t.Helper()
	unmarked(t) // the lab's PKI mounts are marked for the lab's own deployment
	var all []fleet.Instance
	for range n {
		i := launch(t, fleet.Spec{Role: "alice-worker", Region: region})
		if a := bare(t, d.granting, fleet.Event(i, "running", time.Now())); a.Action != "provisioned" {
			t.Fatalf("want %s provisioned, got %+v\n%s", i.ID, a, d.granting.Logs())
		}
		all = append(all, i)
	}
	return all
}

func TestAChangedProfileReachesEveryInstanceWithTheNextReconcile(t *testing.T) {
	const region = "af-south-1"
	all, _ := workers(t, region, 3, nil)
	session, err := world.Fleet.Login(t.Context(), world.AuthMount, all[0], "")
	if err != nil {
		t.Fatal(err)
	}
	templates := changed(t, "worker/profile.yaml", "token_ttl: 1h", "token_ttl: 30m")
	redeployed := variant(t, reconcile, map[string]string{"RECONCILE_REGIONS": region, "TEMPLATES_DIR": templates})
	in := rec.Input{Mode: rec.Detect, Profile: worker}
	a := runReconcile(t, redeployed, in)
	if a.Summary != (rec.Summary{Changed: 3}) || !slices.Equal(a.Drift[0].Fields, []string{"token_ttl"}) {
		t.Fatalf("want the changed TTL told for each of 3 instances before anything is done, got %+v", a)
	}
	in.Mode = rec.Correct
	if a := runReconcile(t, redeployed, in); a.Summary.Corrected != 3 || a.Blocked {
		t.Errorf("want all three set right, got %+v", a)
	}
	for _, i := range all {
		if ttl := fmt.Sprint(vaultRead(t, pathsOf(i.ID).role)["token_ttl"]); ttl != "1800" {
			t.Errorf("want the new TTL of 1800 s on %s, got %s", i.ID, ttl)
		}
	}
	if _, err := session.Client.Auth().Token().LookupSelfWithContext(t.Context()); err != nil {
		t.Errorf("a token from before must live on: a profile's change is no removal: %v", err)
	}
	if _, err := world.Fleet.Login(t.Context(), world.AuthMount, all[0], session.Nonce); err != nil {
		t.Errorf("want the instance to log in as before, got %v", err)
	}
	if a := runReconcile(t, redeployed, rec.Input{Mode: rec.Detect, Profile: worker}); len(a.Drift) > 0 {
		t.Errorf("want no drift once it is done, got %+v", a)
	}
}

func TestAnotherDeploymentIDConflictsUntilItAdoptsAndTheOldOneThenLeavesAllAlone(t *testing.T) {
	const region = "ap-northeast-3"
	old := deploy(t, "old-name", region)
	all := old.grant(t, region, 2)
	session, err := world.Fleet.Login(t.Context(), world.AuthMount, all[0], "")
	if err != nil {
		t.Fatal(err)
	}
	before := grantFields(t, all[0])
	renamed := deploy(t, "new-name", region)
	in := rec.Input{Mode: rec.Correct, Profile: worker}
	if a := runReconcile(t, renamed.comparing, in); a.Summary.Conflicting == 0 || a.Summary.Corrected > 0 {
		t.Errorf("want the old deployment's instances told as conflicting and left alone, got %+v", a)
	}
	if !reflect.DeepEqual(grantFields(t, all[0]), before) {
		t.Error("the new deployment changed what bears the old one's marker")
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
		t.Errorf("a token from before must live on: %v", err)
	}
	taken := grantFields(t, all[0])
	if a := runReconcile(t, old.comparing, in); a.Summary.Corrected > 0 {
		t.Errorf("want the old deployment's reconcile to leave them alone, got %+v", a)
	}
	if a := runReconcile(t, old.comparing, rec.Input{Mode: rec.Teardown, Confirm: "old-name"}); a.Summary.Corrected > 0 || a.Summary.Conflicting != 2 || a.Summary.Failed > 0 {
		t.Errorf("want the old deployment's teardown to leave them alone and say so, got %+v", a)
	}
	if !reflect.DeepEqual(grantFields(t, all[0]), taken) {
		t.Error("the old deployment changed what the new one has adopted")
	}
	if a := runReconcile(t, renamed.with(t, nil).comparing, rec.Input{Mode: rec.Detect, Profile: worker}); len(a.Drift) > 0 {
		t.Errorf("want no drift with adopting switched off again, got %+v", a)
	}
}

func TestAnEmptyVaultIsFilledFromEC2AndTheLedger(t *testing.T) {
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
		t.Errorf("want nothing for an instance that is gone, got %q, %v", found, err)
	}
	if a := runReconcile(t, moved.comparing, rec.Input{Mode: rec.Detect}); len(a.Drift) > 0 || a.Blocked {
		t.Errorf("want no drift after the move, got %+v", a)
	}
}

func TestATeardownRemovesAllOfOneDeploymentWhileItsInstancesRunAndNothingElse(t *testing.T) {
	const region = "ap-southeast-3"
	resetTaps()
	d := deploy(t, "retiring", region)
	all := d.grant(t, region, 4)
	bystander := launch(t, fleet.Spec{Role: "alice-worker"})
	must(t, provision, bystander, "running", "provisioned")
	foreign := grantFields(t, bystander)
	session, err := world.Fleet.Login(t.Context(), world.AuthMount, all[0], "")
	if err != nil {
		t.Fatal(err)
	}
	byHand := "sys/policies/acl/ec2-" + all[1].ID + "-byhand"
	vaultWrite(t, byHand, map[string]any{"policy": "# somebody else's\n"})

	for _, wrong := range []string{`{"mode":"teardown"}`, `{"mode":"teardown","confirm":"lab"}`, `{"mode":"teardown","confirm":"retiring","profile":"x"}`} {
		result, err := d.comparing.Invoke(t.Context(), []byte(wrong))
		if err != nil || result.Err() == nil {
			t.Errorf("%s: want it refused, got %s, %v", wrong, result.Payload, err)
		}
	}
	if n := withObjects(t, all); n != 4 {
		t.Fatalf("want all four to stand after what was refused, got %d", n)
	}

	confirmed := rec.Input{Mode: rec.Teardown, Confirm: "retiring"}
	left := backdoors(t)
	a := runReconcile(t, d.comparing, confirmed)
	if a.Blocked || a.Summary.Corrected != 4 || a.Summary.Failed > 0 {
		t.Fatalf("want four instances removed, got %+v\n%s", a, d.comparing.Logs())
	}
	if got := misnamed(t, a); !slices.Equal(got, left) {
		t.Errorf("want the teardown to tell what it leaves that belongs to no instance, %q, got %q", left, got)
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

	// Nothing comes back: not by an event, not of a new instance, not by reconcile.
	late := launch(t, fleet.Spec{Role: "alice-worker", Region: region})
	for _, i := range []fleet.Instance{all[0], late} {
		fresh := variant(t, provision, d.env) // a new sandbox knows of it at once
		if a := bare(t, fresh, fleet.Event(i, "running", time.Now())); a.Action != "torn-down" || len(objects(t, i)) > 0 {
			t.Errorf("want %s left alone, got %+v, %q", i.ID, a, objects(t, i))
		}
	}
	if a := runReconcile(t, d.comparing, rec.Input{Mode: rec.Correct}); !a.Blocked || !strings.Contains(a.BlockedReason, "torn down") {
		t.Errorf("want reconcile to make nothing again, got %+v", a)
	}
	if a := runReconcile(t, d.comparing, confirmed); a.Summary != (rec.Summary{}) || a.Blocked {
		t.Errorf("want nothing left for a second teardown, got %+v", a)
	}
	if used := rightsUsed(t)[reconcile]; !used["dynamodb:PutItem teardown"] {
		t.Errorf("the teardown wrote no item of its own, only used %v", used)
	}

	// And all comes back when it is taken up again by hand.
	vaultDelete(t, byHand)
	if _, err := world.Dynamo.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String("retiring"), Key: key("teardown")}); err != nil {
		t.Fatal(err)
	}
	if a := runReconcile(t, d.comparing, rec.Input{Mode: rec.Correct}); a.Blocked || a.Summary.Failed > 0 || withObjects(t, all) != 4 {
		answer, _ := json.Marshal(a)
		t.Errorf("want the four granted again, got %s", answer)
	}
}

func TestATeardownThatMeetsAFaultSaysSoAndTheNextOneEndsIt(t *testing.T) {
	const region = "ap-south-2"
	d := deploy(t, "retiring-badly", region)
	all := d.grant(t, region, 3)
	l := line(t, lab.LineOptions{Functions: []string{reconcile}, Env: d.env})
	l.Taps.Vault.SetFault(func(c tap.Call) *tap.Fault {
		switch c.Action {
		case "DELETE sys/policies/acl/ec2-" + all[1].ID + "-node":
			return &tap.Fault{Status: http.StatusInternalServerError}
		case "DELETE auth/aws/role/" + all[2].ID:
			return &tap.Fault{CutAfter: true} // it is gone, and nobody was told
		}
		return nil
	})
	confirmed := rec.Input{Mode: rec.Teardown, Confirm: "retiring-badly"}
	a := runReconcile(t, l.Functions[reconcile], confirmed)
	if a.Summary.Failed != 2 || a.Summary.Corrected != 1 {
		t.Errorf("want two told as failed and one removed, got %+v", a)
	}
	l.Taps.Vault.SetFault(nil)
	if a := runReconcile(t, l.Functions[reconcile], confirmed); a.Summary.Corrected != 2 || a.Summary.Failed > 0 || withObjects(t, all) > 0 {
		t.Errorf("want the other two removed by the next one, got %+v", a)
	}
	for _, i := range all {
		if r, err := d.ledger.Get(t.Context(), i.ID); err != nil || r.State != ledger.Deleted || len(r.Objects) > 0 {
			t.Errorf("want a tombstone for %s, got %+v, %v", i.ID, r, err)
		}
	}
}
