package converge_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// everyKind returns a profile with an output of each kind, and lines of its own.
func everyKind(lines string) fstest.MapFS {
	return fstest.MapFS{
		"worker/profile.yaml": {Data: []byte(`name: alice_cluster-worker
match: {iam_role_arn: "arn:aws:iam::*:role/alice-worker"}
base_path: alice_cluster
fqdn: "{{ .PrivateDNSName }}"
auth: {token_ttl: 1h, token_max_ttl: 24h}
outputs:
  - {name: node, type: policy, template: policy.hcl.tmpl}
  - {name: kubelet, type: pki-role, path: pki/k8s/roles, template: role.json.tmpl}
  - {name: sshd, type: ssh-role, path: ssh/roles, template: ssh.json.tmpl}
  - {name: seed, type: generic, path: kv/nodes, template: seed.json.tmpl}
` + lines)},
		"worker/policy.hcl.tmpl": {Data: []byte("{{ pkiAccess \"kubelet\" }}\n{{ sshAccess \"sshd\" }}\n")},
		"worker/role.json.tmpl":  {Data: []byte(`{"max_ttl": "24h"}`)},
		"worker/ssh.json.tmpl":   {Data: []byte(`{"ttl": "24h", "max_ttl": "48h"}`)},
		"worker/seed.json.tmpl":  {Data: []byte(`{"name": "{{ .FQDN }}", "address": "{{ .InternalIPv4 }}"}`)},
	}
}

// by returns the option with the profiles of files.
func by(t *testing.T, files fstest.MapFS) func(*converge.Options) {
	t.Helper()
	set, err := grant.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *converge.Options) { o.Profiles = set }
}

// pathsByKind are the paths of instance A's objects by everyKind.
func pathsByKind() map[grant.Kind]string {
	return map[grant.Kind]string{
		grant.KindPolicy: "sys/policies/acl/ec2-" + idA + "-node", grant.KindPKIRole: "alice_cluster/pki/k8s/roles/" + idA + "-kubelet",
		grant.KindSSHRole: "alice_cluster/ssh/roles/" + idA + "-sshd", grant.KindGeneric: "alice_cluster/kv/nodes/" + idA + "-seed", grant.KindAuthRole: roleA,
	}
}

// fieldByKind is a field that is edited by hand, with a value that no profile gives.
func fieldByKind(w *world, kind grant.Kind) (string, any) {
	switch kind {
	case grant.KindPolicy: // the marker stays: without it the object is foreign
		return "policy", fmt.Sprint(w.Objects[pathsByKind()[kind]]["policy"], "path \"auth/token/lookup-self\" {\n  capabilities = [\"read\"]\n}\n")
	case grant.KindAuthRole:
		return "token_ttl", int64(60)
	case grant.KindGeneric:
		return "name", "by hand"
	case grant.KindPKIRole, grant.KindSSHRole:
	}
	return "max_ttl", int64(60)
}

// verify is the request of reconcile.
func (w *world) verify() converge.Request {
	req := w.event(idA, facts.Running)
	req.Verify = true
	return req
}

// Each kind in each mode, edited or deleted by hand, while another object of the instance is repaired.
func TestModes_DriftIsLeftWhileAnotherIsRepaired(t *testing.T) {
	for kind, path := range pathsByKind() {
		for _, mode := range []grant.DriftMode{grant.DriftCorrect, grant.DriftDetect, grant.DriftIgnore} {
			for _, hand := range []string{"edited", "deleted"} {
				t.Run(fmt.Sprint(kind, " ", mode, " ", hand), func(t *testing.T) {
					w, c := provisioned(t, both, by(t, everyKind(fmt.Sprintf("reconcile: {%s: %s}\n", kind, mode))))
					made := maps.Clone(w.Objects[path])
					field, value := fieldByKind(w, kind)
					if hand == "edited" {
						w.Objects[path] = maps.Clone(made)
						w.Objects[path][field] = value
					} else {
						delete(w.Objects, path)
					}
					spoiled := w.Objects[path]
					other := pathsByKind()[grant.KindPKIRole]
					if kind == grant.KindPKIRole {
						other = pathsByKind()[grant.KindSSHRole]
					}
					delete(w.Objects, other)
					w.mustAt(c, w.verify(), converge.Provisioned)
					if w.Objects[other] == nil {
						t.Error("want the other object made again")
					}
					got := w.Objects[path]
					isRepaired := got != nil && fmt.Sprint(got[field]) == fmt.Sprint(made[field])
					isLeft := fmt.Sprint(got) == fmt.Sprint(spoiled)
					if (mode == grant.DriftCorrect) != isRepaired || (mode != grant.DriftCorrect) != isLeft {
						t.Errorf("repaired %v, left %v, got %v", isRepaired, isLeft, got)
					}
					w.mustAt(c, w.verify(), converge.Unchanged)
					w.mustEnd(c) // no mode softens a removal
				})
			}
		}
	}
}

// A run that breaks off must not have the next one take the drift for an object that is still to be made.
func TestModes_DriftIsLeftAfterABrokenRepair(t *testing.T) {
	w, c := provisioned(t, both, by(t, everyKind("reconcile: {generic: detect}\n")))
	seed, role := pathsByKind()[grant.KindGeneric], pathsByKind()[grant.KindPKIRole]
	w.Objects[seed] = map[string]any{"name": "by hand", "address": "10.1.1.4"}
	delete(w.Objects, role)
	w.breakOff(c, w.verify(), "vault write "+role, errDown)
	w.mustAt(c, w.event(idA, facts.Running), converge.Provisioned)
	if w.Objects[role] == nil || w.Objects[seed]["name"] != "by hand" {
		t.Errorf("want the role made and the seed left, got %v and %v", w.Objects[role], w.Objects[seed])
	}

	// What the first run was to make is made, whatever the mode.
	w2, c2 := launched(t, both, by(t, everyKind("reconcile: {generic: ignore, policy: ignore, auth-role: ignore}\n")))
	w2.breakOff(c2, w2.event(idA, facts.Running), "vault write "+seed, errDown)
	w2.must(c2, idA, facts.Running, converge.Provisioned)
	for kind, path := range pathsByKind() {
		if w2.Objects[path] == nil {
			t.Errorf("want the %s made by the second run", kind)
		}
	}
}

// A changed grant is no drift.
func TestModes_ChangedGrantIsWritten(t *testing.T) {
	w, _ := provisioned(t, both, by(t, everyKind("reconcile: {generic: ignore, policy: detect}\n")))
	seed, policy := pathsByKind()[grant.KindGeneric], pathsByKind()[grant.KindPolicy]
	w.Objects[seed] = map[string]any{"name": "by hand", "address": "10.1.1.4"}
	w.Objects[policy] = map[string]any{"policy": marked("vault-ec2", idA)["policy"]}
	files := everyKind("reconcile: {generic: ignore, policy: detect}\n")
	files["worker/seed.json.tmpl"] = &fstest.MapFile{Data: []byte(`{"name": "{{ .FQDN }}", "zone": "a"}`)}
	w.must(w.converger(both, by(t, files)), idA, facts.Running, converge.Provisioned)
	if w.Objects[seed]["zone"] != "a" || w.Objects[seed]["name"] == "by hand" {
		t.Errorf("the seed's own grant changed: want it written, got %v", w.Objects[seed])
	}
	if strings.Contains(fmt.Sprint(w.Objects[policy]), "issue") {
		t.Errorf("the policy is granted as before: want it left, got %v", w.Objects[policy])
	}
}

// Ownership comes before any mode.
func TestModes_ForeignObjectIsNoDrift(t *testing.T) {
	files := everyKind("reconcile: {policy: ignore}\n")
	w, c := provisioned(t, both, by(t, files))
	policy := pathsByKind()[grant.KindPolicy]
	w.Objects[policy] = marked("another", idA)
	if _, err := w.handleAt(c, w.verify()); err == nil || !strings.Contains(err.Error(), "not made by this deployment") {
		t.Errorf("want a conflict for a policy with another marker, got %v", err)
	}
	adopting := w.converger(both, by(t, files), func(o *converge.Options) { o.Adopt = true })
	w.mustAt(adopting, w.verify(), converge.Provisioned)
	if !strings.Contains(fmt.Sprint(w.Objects[policy]), "issue") {
		t.Errorf("want the adopted policy written, got %v", w.Objects[policy])
	}
}

// An auth role of another type is drift too: a mode that leaves it must not refuse the whole instance to provision.
func TestModes_LeavesAnAuthRoleOfAnotherType(t *testing.T) {
	w, c := provisioned(t, mayMake, by(t, everyKind("reconcile: {auth-role: detect}\n")))
	w.Objects[roleA] = maps.Clone(w.Objects[roleA])
	w.Objects[roleA]["auth_type"] = "iam"
	delete(w.Objects, pathsByKind()[grant.KindPolicy])
	w.mustAt(c, w.verify(), converge.Provisioned)
	if w.Objects[roleA]["auth_type"] != "iam" || w.Objects[pathsByKind()[grant.KindPolicy]] == nil {
		t.Errorf("want the role left and the policy made, got %v", w.Objects[roleA])
	}
}
