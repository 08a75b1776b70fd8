package integration

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/tap"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/vault"
)

const worker = "alice_cluster-worker"

// workers launches and provisions workers in a region of the test's own, and returns a reconcile function that compares only
// that region.
func workers(t *testing.T, region string, n int, change map[string]string) ([]fleet.Instance, *sandbox.Function) {
	t.Helper()
	env := map[string]string{"RECONCILE_REGIONS": region}
	maps.Copy(env, change)
	var launched []fleet.Instance
	for range n {
		i := launch(t, fleet.Spec{Role: "alice-worker", Region: region})
		must(t, provision, i, "running", "provisioned")
		launched = append(launched, i)
	}
	return launched, variant(t, reconcile, env)
}

// withObjects returns the number of instances that have objects in Vault.
func withObjects(t *testing.T, instances []fleet.Instance) int {
	t.Helper()
	n := 0
	for _, i := range instances {
		if len(objects(t, i)) > 0 {
			n++
		}
	}
	return n
}

func TestDeleteLimit_BlocksAllUnlessForced(t *testing.T) {
	all, f := workers(t, "eu-west-1", 12, nil)
	terminate(t, all[:6]...)
	for _, mode := range []rec.Mode{rec.Detect, rec.Correct} {
		a := runReconcile(t, f, rec.Input{Mode: mode, Profile: worker})
		if !a.Blocked || !strings.Contains(a.BlockedReason, "6 instances would be removed of 12") || a.Summary.Orphaned != 6 || a.Summary.Corrected != 0 {
			t.Fatalf("%s: want 6 of 12 removals blocked, got %+v", mode, a)
		}
		for _, d := range a.Drift {
			if d.Action != rec.None {
				t.Errorf("%s: want no action while blocked, got %+v", mode, d)
			}
		}
	}
	if n := withObjects(t, all); n != 12 {
		t.Fatalf("want every grant kept after a blocked run, got %d of 12", n)
	}
	if a := runReconcile(t, f, rec.Input{Mode: rec.Correct, Profile: worker, Force: true}); a.Blocked || a.Summary.Corrected != 6 {
		t.Errorf("forced: want 6 removals, got %+v", a)
	}
	if n := withObjects(t, all); n != 6 {
		t.Errorf("want the six running instances to keep their grants, got %d", n)
	}
}

func TestDeleteLimit_AllowsFiveInstances(t *testing.T) {
	all, f := workers(t, "eu-west-2", 6, nil)
	terminate(t, all[:5]...)
	if a := runReconcile(t, f, rec.Input{Mode: rec.Correct, Profile: worker}); a.Blocked || a.Summary.Corrected != 5 {
		t.Errorf("want 5 of 6 removed, got %+v", a)
	}
}

func TestYoungRecord_IsSparedThoughAbsentFromEC2(t *testing.T) {
	all, _ := workers(t, "eu-west-3", 1, nil)
	lost := all[0]
	// Its record names a region where EC2 does not know it.
	setRecord(t, lost.ID, map[string]string{"region": "eu-north-1"})
	f := variant(t, reconcile, map[string]string{"RECONCILE_REGIONS": "eu-north-1"})
	only := rec.Input{InstanceIDs: []string{lost.ID}, Mode: rec.Correct}
	if a := runReconcile(t, f, only); len(a.Drift) > 0 || a.Summary.Corrected > 0 {
		t.Fatalf("want no drift for a young record, got %+v", a)
	}
	backdate(t, lost.ID)
	repaired(t, f, only, []string{"record orphaned delete instance#" + lost.ID}, "+ instance: not in EC2")
}

// ec2Answers plays a fault as EC2's answer to unfiltered listings of a region. EC2 answers all other calls itself.
func ec2Answers(t *testing.T, region string, fault tap.Fault) {
	t.Helper()
	faultOn(t, world.Taps.AWS, fault,
		func(c tap.Call) bool {
			return c.Service == "ec2" && c.Action == "DescribeInstances" && c.Region == region && !strings.Contains(string(c.Body), "Filter")
		})
}

const noInstances = `<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>x</requestId><reservationSet/></DescribeInstancesResponse>`

func xml(body string) tap.Fault {
	return tap.Fault{Status: http.StatusOK, Header: http.Header{"Content-Type": {"text/xml"}}, Body: []byte(body)}
}

func TestShortListing_DeletesNoLiveInstance(t *testing.T) {
	all, f := workers(t, "us-west-1", 2, nil)
	for _, i := range all {
		backdate(t, i.ID)
	}
	ec2Answers(t, "us-west-1", xml(noInstances))
	a := runReconcile(t, f, rec.Input{Mode: rec.Correct, Profile: worker})
	if a.Summary.Orphaned != 2 {
		t.Fatalf("want both rows orphaned by the short listing, got %+v", a)
	}
	if n := withObjects(t, all); n != 2 {
		t.Errorf("want the second look-up, by ID, to keep their grants, got %d of 2", n)
	}
}

func TestFailedVaultList_StopsDeletesNotRepairs(t *testing.T) {
	all, f := workers(t, "us-west-2", 2, nil)
	terminate(t, all[0])
	p := pathsOf(all[1].ID)
	vaultDelete(t, p.kubelet)
	faultOn(t, world.Taps.Vault, tap.Fault{Status: http.StatusInternalServerError, Body: []byte(`{"errors":["storage unavailable"]}`)},
		func(c tap.Call) bool {
			return c.Method == http.MethodGet && strings.HasSuffix(c.Path, "/alice_cluster/pki/k8s/roles")
		})
	a := runReconcile(t, f, rec.Input{Mode: rec.Correct, Profile: worker})
	if !a.Blocked || !strings.Contains(a.BlockedReason, "listing alice_cluster/pki/k8s/roles in Vault") {
		t.Fatalf("want the run blocked and the folder named, got %+v", a)
	}
	if a.Summary.Corrected != 1 || vaultRead(t, p.kubelet) == nil || withObjects(t, all) != 2 {
		t.Errorf("want the PKI role made again and nothing deleted, got %+v", a)
	}
}

func TestFailedComparison_IsOneRowOnly(t *testing.T) {
	all, f := workers(t, "ca-central-1", 2, nil)
	vaultDelete(t, pathsOf(all[1].ID).policy)
	bad := pathsOf(all[0].ID).proxy
	faultOn(t, world.Taps.Vault, tap.Fault{Status: http.StatusInternalServerError, Body: []byte(`{"errors":["storage unavailable"]}`)},
		func(c tap.Call) bool { return strings.HasSuffix(c.Path, "/"+bad) })
	a := runReconcile(t, f, rec.Input{Mode: rec.Correct, Profile: worker})
	if a.Summary.Failed != 1 || a.Summary.Missing != 1 || a.Summary.Changed != 0 || a.Summary.Corrected != 1 {
		t.Fatalf("want one failed row and one repaired, got %+v", a)
	}
	i := slices.IndexFunc(a.Drift, func(d rec.Drift) bool { return d.InstanceID == all[0].ID })
	if i < 0 || a.Drift[i].Action != rec.None || !strings.Contains(a.Drift[i].Error, bad) {
		t.Errorf("want the failed row to name %s, got %+v", bad, a.Drift)
	}
}

func TestProfileChange_IsDriftOfEachInstance(t *testing.T) {
	all, f := workers(t, "sa-east-1", 3, nil)
	in := rec.Input{Mode: rec.Detect, Profile: worker}
	text := changed(t, "worker/policy.hcl.tmpl", `path "auth/token/lookup-self"`, "# Own token.\npath \"auth/token/lookup-self\"")
	if a := runReconcile(t, variant(t, reconcile, map[string]string{"RECONCILE_REGIONS": "sa-east-1", "TEMPLATES_DIR": text}), in); a.Summary != (rec.Summary{Changed: 3}) {
		t.Errorf("a template with another comment: want every instance changed, got %+v", a)
	}
	power := changed(t, "worker/profile.yaml", "token_ttl: 1h", "token_ttl: 30m")
	shorter := variant(t, reconcile, map[string]string{"RECONCILE_REGIONS": "sa-east-1", "TEMPLATES_DIR": power})
	var want []string
	for _, i := range all {
		want = append(want, "auth-role changed update "+pathsOf(i.ID).role+" [token_ttl]")
	}
	slices.Sort(want)
	repaired(t, shorter, in, want, "- token_ttl: 3600\n+ token_ttl: 1800")
	repaired(t, f, in, want, "- token_ttl: 1800\n+ token_ttl: 3600")

	none := changed(t, "worker/profile.yaml", "role/alice-worker", "role/alice-unused")
	without := variant(t, reconcile, map[string]string{"RECONCILE_REGIONS": "sa-east-1", "TEMPLATES_DIR": none})
	want = nil
	for _, i := range all {
		want = append(want, "record changed delete instance#"+i.ID+" [profile]")
	}
	slices.Sort(want)
	repaired(t, without, in, want, "+ profile: none fits")
	if n := withObjects(t, all); n != 0 {
		t.Errorf("want no grants without a profile, got %d", n)
	}
	in.Mode = rec.Correct
	if a := runReconcile(t, f, in); a.Summary.Missing != 3 || a.Summary.Corrected != 3 {
		t.Errorf("want all granted again when the profile is back, got %+v", a)
	}
}

func TestLostEvent_IsGrantedByReconcile(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "alice-etcd"})
	repaired(t, world.Functions[reconcile], rec.Input{InstanceIDs: []string{i.ID}}, []string{"record missing create instance#" + i.ID}, "+ profile: alice_cluster-etcd")
	if len(objects(t, i)) != 6 {
		t.Errorf("want policy, four PKI roles and auth role, got %v", objects(t, i))
	}
}

func TestNameTag_ChangeRenamesTheInstance(t *testing.T) {
	byTag := changed(t, "worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, "fqdn: '{{ .Tag \"Name\" }}'\nfqdn_suffixes: [example]")
	f := variant(t, reconcile, map[string]string{"TEMPLATES_DIR": byTag})
	name := fmt.Sprintf("n%d", time.Now().UnixNano())
	a := launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": name + ".example"}})
	b := launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": name + ".example"}})
	only := func(i fleet.Instance) rec.Input { return rec.Input{InstanceIDs: []string{i.ID}} }
	repaired(t, f, only(a), []string{"record missing create instance#" + a.ID}, "")
	setTags(t, a, map[string]string{"Name": name + "-2.example"})
	p := pathsOf(a.ID)
	repaired(t, f, only(a), []string{"pki-role changed update " + p.kubelet + " [allowed_domains]", "policy changed update " + p.policy + " [policy]"}, name+"-2.example")
	// The former name stays held while a certificate for it may be valid.
	former := runReconcile(t, f, rec.Input{Mode: rec.Correct, InstanceIDs: []string{b.ID}})
	if len(former.Drift) != 1 || row(former.Drift[0]) != "record conflicting none instance#"+b.ID || !strings.Contains(former.Drift[0].Error, "held by instance "+a.ID) {
		t.Fatalf("want the former name of a live instance held, got %+v", former)
	}

	// An instance with the name that a holds is in conflict until a is gone. Then one run frees the name and grants it.
	c := launch(t, fleet.Spec{Role: "alice-worker", Tags: map[string]string{"Name": name + "-2.example"}})
	in := rec.Input{Mode: rec.Correct, InstanceIDs: []string{a.ID, c.ID}}
	held := runReconcile(t, f, in)
	if len(held.Drift) != 1 || row(held.Drift[0]) != "record conflicting none instance#"+c.ID || !strings.Contains(held.Drift[0].Error, "held by instance "+a.ID) {
		t.Fatalf("want a row for the held name, got %+v", held)
	}
	terminate(t, a)
	if got := runReconcile(t, f, in); got.Summary.Corrected != 2 || len(objects(t, a)) != 0 || len(objects(t, c)) != 4 {
		t.Errorf("want the name freed and granted to the next, got %+v", got)
	}
	repaired(t, f, only(b), []string{"record missing create instance#" + b.ID}, "")
}

func TestGenericObject_IsRepairedAndNeverShown(t *testing.T) {
	dir := changed(t, "worker/profile.yaml", "outputs:\n", "outputs:\n  - {name: host, type: generic, path: ssh/roles, template: host.json.tmpl}\n")
	if err := os.WriteFile(filepath.Join(dir, "worker", "host.json.tmpl"), []byte(`{"key_type": "ca", "allow_host_certificates": true, "allowed_domains": "{{ .FQDN }}", "ttl": "1h"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	vaultWrite(t, "sys/mounts/alice_cluster/ssh", map[string]any{"type": "ssh"})
	setUp(t, "-templates-dir", dir)
	f := variant(t, reconcile, map[string]string{"TEMPLATES_DIR": dir})
	i := launch(t, fleet.Spec{Role: "alice-worker"})
	only := rec.Input{InstanceIDs: []string{i.ID}}
	repaired(t, f, only, []string{"record missing create instance#" + i.ID}, "")
	path := "alice_cluster/ssh/roles/" + i.ID + "-host"
	role := vaultRead(t, path)
	role["allowed_domains"] = "example.com"
	vaultWrite(t, path, role)
	repaired(t, f, only, []string{"generic changed update " + path + " [allowed_domains]"}, "~ allowed_domains (values of generic objects are not shown)")
	vaultDelete(t, path)
	repaired(t, f, only, []string{"generic missing create " + path}, "")
	terminate(t, i)
	repaired(t, f, only, []string{"record orphaned delete instance#" + i.ID}, "")
	if vaultRead(t, path) != nil {
		t.Error("want the generic object removed with its instance")
	}
}

const orphan = "i-0fffffffffffffff1"

// marked returns the text of a policy with a marker.
func marked(deployment, id string) string {
	return grant.Marker{Deployment: deployment, InstanceID: id, Profile: worker}.String() + "\npath \"alice_cluster/pki/k8s/cert/ca\" { capabilities = [\"read\"] }\n"
}

func TestUntracked_RemovedOnlyWithOurMarker(t *testing.T) {
	p, f := pathsOf(orphan), world.Functions[reconcile]
	in := rec.Input{InstanceIDs: []string{orphan}, Mode: rec.Correct}
	role := map[string]any{
		"auth_type": "ec2", "bound_ec2_instance_id": orphan, "bound_account_id": world.AccountID, "bound_region": world.Region,
		"token_policies": strings.TrimPrefix(p.policy, "sys/policies/acl/"),
	}
	t.Run("another deployment's", func(t *testing.T) {
		vaultWrite(t, p.policy, map[string]any{"policy": marked("foreign", orphan)})
		vaultWrite(t, p.role, role)
		a := runReconcile(t, f, in)
		if got := rows(a); !slices.Equal(got, []string{"policy conflicting none " + p.policy}) || a.Summary.Conflicting != 1 || a.Summary.Corrected > 0 {
			t.Errorf("want one conflicting row, got %+v", a)
		}
		if vaultRead(t, p.policy) == nil || vaultRead(t, p.role) == nil {
			t.Error("want the foreign objects untouched")
		}
		vaultDelete(t, p.role)
		vaultDelete(t, p.policy)
	})
	t.Run("without a marker anywhere", func(t *testing.T) {
		vaultWrite(t, p.kubelet, map[string]any{"allowed_domains": "x"})
		a := runReconcile(t, f, in)
		if got := rows(a); !slices.Equal(got, []string{"pki-role conflicting none " + p.kubelet}) || vaultRead(t, p.kubelet) == nil {
			t.Errorf("want one conflicting row and the object kept, got %q", got)
		}
		vaultDelete(t, p.kubelet)
	})
	t.Run("an auth role without our policy", func(t *testing.T) {
		vaultWrite(t, p.policy, map[string]any{"policy": marked("lab", orphan)})
		other := maps.Clone(role)
		other["token_policies"] = "admin"
		vaultWrite(t, p.role, other)
		if a := runReconcile(t, f, rec.Input{InstanceIDs: []string{orphan}, Mode: rec.Detect}); !slices.Contains(rows(a), "auth-role conflicting none "+p.role) || vaultRead(t, p.role) == nil {
			t.Errorf("want one conflicting row and the object kept, got %q", rows(a))
		}
		vaultDelete(t, p.role)
		vaultDelete(t, p.policy)
	})
	t.Run("bound to a region that is not compared", func(t *testing.T) {
		vaultWrite(t, p.policy, map[string]any{"policy": marked("lab", orphan)})
		vaultWrite(t, p.role, map[string]any{"auth_type": "ec2", "bound_ec2_instance_id": orphan, "bound_account_id": world.AccountID, "bound_region": "me-south-1", "token_policies": strings.TrimPrefix(p.policy, "sys/policies/acl/")})
		if a := runReconcile(t, f, in); len(a.Drift) > 0 || vaultRead(t, p.role) == nil {
			t.Errorf("want an instance of a region that is not compared kept, got %+v", a)
		}
		vaultDelete(t, p.role)
		vaultDelete(t, p.policy)
	})
	t.Run("ours", func(t *testing.T) {
		vaultWrite(t, p.policy, map[string]any{"policy": marked("lab", orphan)})
		vaultWrite(t, p.role, role)
		vaultWrite(t, p.kubelet, map[string]any{"allowed_domains": "x"})
		repaired(t, f, in, []string{"auth-role orphaned delete " + p.role, "pki-role orphaned delete " + p.kubelet, "policy orphaned delete " + p.policy}, "")
		for _, path := range []string{p.policy, p.role, p.kubelet} {
			if vaultRead(t, path) != nil {
				t.Errorf("%s is left", path)
			}
		}
	})
}

func TestEntity_OfGoneInstanceIsDeleted(t *testing.T) {
	i := provisioned(t)
	remove(t, i)
	mounts := vaultRead(t, "sys/auth")
	mount, _ := mounts[world.AuthMount+"/"].(map[string]any)
	entity := fmt.Sprint(vaultWrite(t, "identity/entity", map[string]any{"name": "late-" + i.ID})["id"])
	vaultWrite(t, "identity/entity-alias", map[string]any{"name": i.ID, "canonical_id": entity, "mount_accessor": mount["accessor"]})
	f, in := world.Functions[reconcile], rec.Input{InstanceIDs: []string{i.ID}, Mode: rec.Detect}
	backdate(t, i.ID)
	repaired(t, f, in, []string{"auth-role orphaned delete identity/entity/id/" + entity}, "")
	if vaultRead(t, "identity/entity/id/"+entity) != nil {
		t.Error("the entity is left, so its tokens would still work")
	}
}

// Vault lists all aliases of all mounts. Where that takes too long, it is asked about single ones.
func TestEntity_IsDeletedAlthoughAliasesAreNotListed(t *testing.T) {
	i, ended := provisioned(t), provisioned(t)
	remove(t, i)
	mounts := vaultRead(t, "sys/auth")
	mount, _ := mounts[world.AuthMount+"/"].(map[string]any)
	entity := fmt.Sprint(vaultWrite(t, "identity/entity", map[string]any{"name": "late-" + i.ID})["id"])
	vaultWrite(t, "identity/entity-alias", map[string]any{"name": i.ID, "canonical_id": entity, "mount_accessor": mount["accessor"]})
	backdate(t, i.ID)
	terminate(t, ended)
	faultOn(t, world.Taps.Vault, tap.Fault{Delay: vault.CallTimeout + time.Second}, func(c tap.Call) bool { return strings.HasSuffix(c.Path, "/identity/entity-alias/id") })
	a := runReconcile(t, world.Functions[reconcile], rec.Input{InstanceIDs: []string{i.ID, ended.ID}, Mode: rec.Correct})
	if a.Blocked || a.Summary != (rec.Summary{Orphaned: 2, Corrected: 2}) || len(objects(t, ended)) > 0 {
		t.Errorf("want both instances removed, got %+v", a)
	}
	if vaultRead(t, "identity/entity/id/"+entity) != nil {
		t.Error("the entity is left, so its tokens would still work")
	}
	if len(a.Places) != 1 || a.Places[0].Folder != "identity/entity-alias/id" || a.Places[0].Withholds {
		t.Errorf("want the answer to say that the aliases were not listed, got %+v", a.Places)
	}
}

func TestRepairs_GoThroughTheConvergeQueue(t *testing.T) {
	all, f := workers(t, "eu-south-1", 2, map[string]string{"CONVERGE_QUEUE_URL": world.Stack.Outputs["ProvisionQueueUrl"]})
	p := pathsOf(all[0].ID)
	vaultDelete(t, p.policy)
	terminate(t, all[1])
	a := runReconcile(t, f, rec.Input{Mode: rec.Correct, Profile: worker})
	if a.Summary.Enqueued != 1 || a.Summary.Corrected != 1 {
		t.Fatalf("want the policy's repair sent to the queue and the removal done at once, got %+v", a)
	}
	for deadline := time.Now().Add(20 * time.Second); vaultRead(t, p.policy) == nil; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the provision function did not repair %s\n%s", p.policy, world.Functions[provision].Logs())
		}
	}
}

func TestScheduledRun_TakesItsModeFromSettings(t *testing.T) {
	i := launch(t, fleet.Spec{Role: "alice-worker", Region: "ap-east-1"})
	f := variant(t, reconcile, map[string]string{"RECONCILE_MODE": "detect", "RECONCILE_REGIONS": "ap-east-1"})
	payload, err := os.ReadFile(filepath.Join("..", "..", "..", "events", "scheduled.json"))
	if err != nil {
		t.Fatal(err)
	}
	result, err := f.Invoke(t.Context(), payload)
	if err != nil || result.Err() != nil {
		t.Fatalf("%v, %v", err, result.Err())
	}
	if !strings.Contains(string(result.Payload), `"mode":"detect"`) || !strings.Contains(string(result.Payload), i.ID) || len(objects(t, i)) > 0 {
		t.Errorf("want a row for the missing instance and nothing made, got %s", result.Payload)
	}
	for _, bad := range []string{`{"instanceID": ["i-0123456789abcdef0"]}`, `{"mode": "fix"}`, `{"instanceIds": ["all"]}`, `[]`} {
		result, err := f.Invoke(t.Context(), []byte(bad))
		if err != nil || result.Err() == nil {
			t.Errorf("%s: want it refused, got %s, %v", bad, result.Payload, err)
		}
	}
}
