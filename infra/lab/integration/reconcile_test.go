package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	vaultapi "github.com/hashicorp/vault/api"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/fleet"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/sandbox"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
	rec "github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/reconcile"
)

const reconcile = "ReconcileFunction"

// runReconcile invokes a reconcile function and returns its answer.
func runReconcile(t *testing.T, f *sandbox.Function, in rec.Input) rec.Answer {
	t.Helper()
	payload, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	result, err := f.Invoke(t.Context(), payload)
	if err != nil || result.Err() != nil {
		t.Fatalf("%v, %v\nlogs:\n%s", err, result.Err(), f.Logs())
	}
	var a rec.Answer
	if err := json.Unmarshal(result.Payload, &a); err != nil {
		t.Fatalf("the answer %s: %v", result.Payload, err)
	}
	return a
}

// row formats the parts of a drift row that tests compare.
func row(d rec.Drift) string {
	out := fmt.Sprintf("%s %s %s %s", d.Object, d.Reason, d.Action, d.Path)
	if len(d.Fields) > 0 {
		out += fmt.Sprint(" ", d.Fields)
	}
	return out
}

func rows(a rec.Answer) []string {
	var out []string
	for _, d := range a.Drift {
		out = append(out, row(d))
	}
	return out
}

// vaultWrite, vaultDelete and vaultRead call Vault with the root token, also after the end of the test. vaultWrite returns the
// data of Vault's answer.
func vaultWrite(t *testing.T, path string, fields map[string]any) map[string]any {
	t.Helper()
	s, err := world.Vault.Logical().WriteWithContext(context.WithoutCancel(t.Context()), path, fields)
	return dataOf(t, s, err)
}

func vaultDelete(t *testing.T, path string) {
	t.Helper()
	s, err := world.Vault.Logical().DeleteWithContext(context.WithoutCancel(t.Context()), path)
	dataOf(t, s, err)
}

func vaultRead(t *testing.T, path string) map[string]any {
	t.Helper()
	s, err := world.Vault.Logical().ReadWithContext(context.WithoutCancel(t.Context()), path)
	return dataOf(t, s, err)
}

func dataOf(t *testing.T, s *vaultapi.Secret, err error) map[string]any {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if s == nil {
		return nil
	}
	return s.Data
}

// vaultSet writes fields until the test ends. Then it writes back the former values, or deletes the path if it was absent.
func vaultSet(t *testing.T, path string, fields map[string]any) {
	t.Helper()
	before := vaultRead(t, path)
	vaultWrite(t, path, fields)
	t.Cleanup(func() {
		if before == nil {
			vaultDelete(t, path)
			return
		}
		former := map[string]any{}
		for name := range fields {
			former[name] = before[name]
		}
		vaultWrite(t, path, former)
	})
}

// setRecord sets attributes of an instance's record directly in the table.
func setRecord(t *testing.T, id string, set map[string]string) {
	t.Helper()
	var parts []string
	values := map[string]types.AttributeValue{}
	names := map[string]string{}
	for i, k := range slices.Sorted(maps.Keys(set)) {
		parts = append(parts, fmt.Sprintf("#k%d = :v%d", i, i))
		names[fmt.Sprintf("#k%d", i)] = k
		values[fmt.Sprintf(":v%d", i)] = &types.AttributeValueMemberS{Value: set[k]}
	}
	_, err := world.Dynamo.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{
		TableName: aws.String(world.Stack.Tables["Table"]), Key: recordKey(id),
		UpdateExpression:          aws.String("SET " + strings.Join(parts, ", ")),
		ExpressionAttributeNames:  names,
		ExpressionAttributeValues: values,
	})
	if err != nil {
		t.Fatal(err)
	}
}

func key(pk string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"pk": &types.AttributeValueMemberS{Value: pk}}
}

func recordKey(id string) map[string]types.AttributeValue { return key("instance#" + id) }

// dropItem deletes an item of the ledger directly in the table.
func dropItem(t *testing.T, pk string) {
	t.Helper()
	if _, err := world.Dynamo.DeleteItem(t.Context(), &dynamodb.DeleteItemInput{TableName: aws.String(world.Stack.Tables["Table"]), Key: key(pk)}); err != nil {
		t.Fatal(err)
	}
}

// backdate makes a record old enough for reconcile to act on its instance's absence.
func backdate(t *testing.T, id string) {
	t.Helper()
	setRecord(t, id, map[string]string{"updated_at": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339Nano)})
}

// paths holds the paths of a worker's objects, and the row path of its record.
type paths struct{ role, policy, kubelet, proxy, record string }

func pathsOf(id string) paths {
	return paths{
		role: "auth/" + world.AuthMount + "/role/" + id, policy: "sys/policies/acl/ec2-" + id + "-node",
		kubelet: "alice_cluster/pki/k8s/roles/" + id + "-kubelet", proxy: "alice_cluster/pki/k8s/roles/" + id + "-kube_proxy",
		record: "instance#" + id,
	}
}

// TestDrift_IsReportedRepairedAndGone breaks one thing at a time by direct writes.
func TestDrift_IsReportedRepairedAndGone(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*testing.T, fleet.Instance, paths)
		want  func(paths) []string
		diff  string // part of the first row's diff
	}{
		"a policy edited by hand": {
			spoil: func(t *testing.T, _ fleet.Instance, p paths) {
				text := fmt.Sprint(vaultRead(t, p.policy)["policy"])
				vaultWrite(t, p.policy, map[string]any{"policy": text + "\npath \"alice_cluster/*\" { capabilities = [\"read\"] }\n"})
			},
			want: func(p paths) []string { return []string{"policy changed update " + p.policy + " [policy]"} },
			diff: `- path "alice_cluster/*" { capabilities = ["read"] }`,
		},
		"a policy deleted": {
			spoil: func(t *testing.T, _ fleet.Instance, p paths) { vaultDelete(t, p.policy) },
			want:  func(p paths) []string { return []string{"policy missing create " + p.policy} },
		},
		"a PKI role loosened by one boolean": {
			spoil: func(t *testing.T, _ fleet.Instance, p paths) {
				role := vaultRead(t, p.kubelet)
				role["allow_subdomains"] = true
				vaultWrite(t, p.kubelet, role)
			},
			want: func(p paths) []string {
				return []string{"pki-role changed update " + p.kubelet + " [allow_subdomains]"}
			},
			diff: "- allow_subdomains: true\n+ allow_subdomains: false",
		},
		"a PKI role deleted": {
			spoil: func(t *testing.T, _ fleet.Instance, p paths) { vaultDelete(t, p.proxy) },
			want:  func(p paths) []string { return []string{"pki-role missing create " + p.proxy} },
		},
		"an auth role's binding widened": {
			spoil: func(t *testing.T, i fleet.Instance, p paths) {
				vaultWrite(t, p.role, map[string]any{"bound_ec2_instance_id": []string{i.ID, "i-0fedcba9876543210"}})
			},
			want: func(p paths) []string {
				return []string{"auth-role changed update " + p.role + " [bound_ec2_instance_id]"}
			},
			diff: "i-0fedcba9876543210",
		},
		"an auth role's TTL changed": {
			spoil: func(t *testing.T, _ fleet.Instance, p paths) {
				vaultWrite(t, p.role, map[string]any{"token_ttl": "2h"})
			},
			want: func(p paths) []string { return []string{"auth-role changed update " + p.role + " [token_ttl]"} },
			diff: "- token_ttl: 7200\n+ token_ttl: 3600",
		},
		"an auth role deleted": {
			spoil: func(t *testing.T, _ fleet.Instance, p paths) { vaultDelete(t, p.role) },
			want:  func(p paths) []string { return []string{"auth-role missing create " + p.role} },
		},
		"the record lost": {
			spoil: func(t *testing.T, i fleet.Instance, _ paths) { dropItem(t, "instance#"+i.ID) },
			want:  func(p paths) []string { return []string{"record missing create " + p.record} },
		},
		"its name's claim lost": {
			spoil: func(t *testing.T, i fleet.Instance, _ paths) {
				r := recordOf(t, i)
				dropItem(t, "claim#"+r.BasePath+"#"+r.FQDN)
			},
			want: func(p paths) []string { return []string{"record changed update " + p.record + " [claim]"} },
		},
		"a record left provisioning by a crash": {
			spoil: func(t *testing.T, i fleet.Instance, _ paths) {
				setRecord(t, i.ID, map[string]string{"state": string(ledger.Provisioning)})
			},
			want: func(p paths) []string { return []string{"record changed update " + p.record + " [state]"} },
		},
		"a record left deprovisioning by a crash, of an instance that runs": {
			spoil: func(t *testing.T, i fleet.Instance, p paths) {
				setRecord(t, i.ID, map[string]string{"state": string(ledger.Deprovisioning)})
				vaultDelete(t, p.role)
			},
			want: func(p paths) []string {
				return []string{"auth-role missing create " + p.role, "record changed update " + p.record + " [state]"}
			},
		},
		"a record left deprovisioning by a crash, of an instance that is gone": {
			spoil: func(t *testing.T, i fleet.Instance, p paths) {
				terminate(t, i)
				vaultDelete(t, p.role)
				setRecord(t, i.ID, map[string]string{"state": string(ledger.Deprovisioning)})
			},
			want: func(p paths) []string { return []string{"record orphaned delete " + p.record} },
			diff: "- instance: deprovisioning",
		},
		"the event of the termination lost": {
			spoil: func(t *testing.T, i fleet.Instance, _ paths) { terminate(t, i) },
			want:  func(p paths) []string { return []string{"record orphaned delete " + p.record} },
			diff:  "+ instance: terminated",
		},
		"an old output's policy left behind": {
			spoil: func(t *testing.T, _ fleet.Instance, p paths) {
				old := strings.TrimSuffix(p.policy, "node") + "old"
				vaultWrite(t, old, map[string]any{"policy": vaultRead(t, p.policy)["policy"]})
			},
			want: func(p paths) []string {
				return []string{"policy orphaned delete " + strings.TrimSuffix(p.policy, "node") + "old"}
			},
		},
		"an instance profile taken away": {
			spoil: func(t *testing.T, i fleet.Instance, _ paths) { disassociate(t, i) },
			want:  func(p paths) []string { return []string{"record changed delete " + p.record + " [profile]"} },
			diff:  "- profile: alice_cluster-worker\n+ profile: none fits",
		},
		"an address more": {
			spoil: func(t *testing.T, i fleet.Instance, _ paths) { assignAddress(t, i) },
			want: func(p paths) []string {
				return []string{"auth-role changed update " + p.role + " [token_bound_cidrs]", "policy changed update " + p.policy + " [policy]"}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			i := provisioned(t)
			p, f := pathsOf(i.ID), world.Functions[reconcile]
			only := rec.Input{Mode: rec.Detect, InstanceIDs: []string{i.ID}}
			if before := runReconcile(t, f, only); len(before.Drift) > 0 {
				t.Fatalf("want no drift before the change, got %v", before.Drift)
			}
			c.spoil(t, i, p)
			repaired(t, f, only, c.want(p), c.diff)
		})
	}
}

// repaired fails unless detect finds exactly these rows, correct repairs them all, and detect then finds none.
func repaired(t *testing.T, f *sandbox.Function, in rec.Input, want []string, diff string) {
	t.Helper()
	in.Mode = rec.Detect
	for range 2 { // twice: detect changes nothing
		found := runReconcile(t, f, in)
		if !slices.Equal(rows(found), want) || found.Blocked || found.Summary.Failed > 0 {
			t.Fatalf("detect: want the rows %q, got %q\n%+v", want, rows(found), found)
		}
		if diff != "" && !strings.Contains(found.Drift[0].Diff, diff) {
			t.Errorf("want %q in the diff, got\n%s", diff, found.Drift[0].Diff)
		}
	}
	in.Mode = rec.Correct
	if fixed := runReconcile(t, f, in); fixed.Summary.Corrected != len(want) || fixed.Summary.Failed > 0 || fixed.Blocked {
		t.Fatalf("correct: want all %d rows corrected, got %+v", len(want), fixed)
	}
	in.Mode = rec.Detect
	if after := runReconcile(t, f, in); len(after.Drift) > 0 || after.Blocked {
		t.Errorf("want no drift after the repair, got %+v", after)
	}
}

func TestReconcile_RemovesAsFullyAsAnEvent(t *testing.T) {
	i := provisioned(t)
	session := login(t, i)
	terminate(t, i)
	repaired(t, world.Functions[reconcile], rec.Input{InstanceIDs: []string{i.ID}}, []string{"record orphaned delete instance#" + i.ID}, "")
	wantGone(t, i, session)
}

// disassociate removes the instance profile of an instance.
func disassociate(t *testing.T, i fleet.Instance) {
	t.Helper()
	client := ec2.NewFromConfig(world.AWS)
	out, err := client.DescribeIamInstanceProfileAssociations(t.Context(), &ec2.DescribeIamInstanceProfileAssociationsInput{
		Filters: []ec2types.Filter{{Name: aws.String("instance-id"), Values: []string{i.ID}}},
	})
	if err != nil || len(out.IamInstanceProfileAssociations) != 1 {
		t.Fatalf("the instance profile of %s: %v, %v", i.ID, out, err)
	}
	if _, err := client.DisassociateIamInstanceProfile(t.Context(), &ec2.DisassociateIamInstanceProfileInput{
		AssociationId: out.IamInstanceProfileAssociations[0].AssociationId,
	}); err != nil {
		t.Fatal(err)
	}
}

// assignAddress assigns one more address that no other instance has.
func assignAddress(t *testing.T, i fleet.Instance) {
	t.Helper()
	n := extraAddresses.Add(1)
	assign(t, i, fmt.Sprintf("127.18.%d.%d", n/250, n%250+1))
}

// extraAddresses counts the assigned addresses: one chosen by moto may be the next instance's first address.
var extraAddresses atomic.Int64

// assign assigns one more address to an instance, even if another has it.
func assign(t *testing.T, i fleet.Instance, address string) {
	t.Helper()
	client := ec2.NewFromConfig(world.AWS)
	out, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{i.ID}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.AssignPrivateIpAddresses(t.Context(), &ec2.AssignPrivateIpAddressesInput{
		NetworkInterfaceId: out.Reservations[0].Instances[0].NetworkInterfaces[0].NetworkInterfaceId, PrivateIpAddresses: []string{address},
	}); err != nil {
		t.Fatal(err)
	}
}
