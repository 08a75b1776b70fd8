package grant_test

import (
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// withSeed is the baseline's profile with one more output.
func withSeed(output string) string { return baselineProfile + "  - {" + output + "}\n" }

func TestRetain_IsForObjectsThatLetNothingIn(t *testing.T) {
	for output, says := range map[string]string{
		"name: x, type: policy, template: policy.hcl.tmpl, on_removal: retain":                                 "output of type policy lets something in",
		"name: x, type: pki-role, path: pki/k8s/roles, template: kubelet.json.tmpl, on_removal: retain":        "type pki-role lets something in",
		"name: x, type: ssh-role, path: hosts/roles, template: host.json.tmpl, on_removal: retain":             "type ssh-role lets something in",
		"name: x, type: generic, path: ssh/roles, template: host.json.tmpl, on_removal: retain":                `an object below "ssh/roles" may let something in`,
		"name: x, type: generic, path: database/static-roles, template: host.json.tmpl, on_removal: retain":    "may let something in",
		"name: x, type: generic, path: transit/keys, template: host.json.tmpl, on_removal: retain":             "may let something in",
		"name: x, type: generic, path: a/config/b, template: host.json.tmpl, on_removal: retain":               "may let something in",
		"name: x, type: generic, path: kv/data/nodes, template: host.json.tmpl, on_removal: retain":            "version 2 of the KV engine",
		"name: x, type: generic, path: auth/token/roles, template: host.json.tmpl, on_removal: retain":         "may let something in",
		"name: x, type: generic, path: ns/sys/policies/acl, template: host.json.tmpl, on_removal: retain":      "may let something in",
		"name: x, type: generic, path: ns/identity/entity-alias, template: host.json.tmpl, on_removal: retain": "may let something in",
		"name: x, type: generic, path: kv/nodes, template: host.json.tmpl, on_removal: keep":                   `on_removal: "keep" is neither delete nor retain`,
	} {
		wantFault(t, filesWith(text("worker/profile.yaml", withSeed(output))), "worker/profile.yaml", `"x"`, says)
	}
	wantFault(t, filesWith(replace("worker/profile.yaml", "auth: {", "auth: {on_removal: retain, ")), "on_removal not found")
}

func TestRetain_IsRenderedForItsOutputAlone(t *testing.T) {
	fs := filesWith(text("worker/profile.yaml", withSeed("name: seed, type: generic, path: kv/nodes, template: host.json.tmpl, on_removal: retain")))
	g := rendered(t, fs, baseline())
	for _, o := range g.All() {
		if want := o.Path == "alice_cluster/kv/nodes/"+baseline().ID+"-seed"; o.Retain != want {
			t.Errorf("%s: want retained: %v", o.Path, want)
		}
	}
	set := loaded(t, fs)
	for path, want := range map[string]bool{
		"alice_cluster/kv/nodes/" + baseline().ID + "-seed": true, "alice_cluster/kv/nodes/" + baseline().ID + "-other": false,
		"alice_cluster/kv/nodes/seed": false, "alice_cluster/kv/" + baseline().ID + "-seed": false, grant.PolicyPath(grant.PolicyName(baseline().ID, "seed")): false,
	} {
		if got := set.Retains(path); got != want {
			t.Errorf("%s: want %v, got %v", path, want, got)
		}
	}
	without := rendered(t, filesWith(text("worker/profile.yaml", withSeed("name: seed, type: generic, path: kv/nodes, template: host.json.tmpl"))), baseline())
	for i, o := range g.All() {
		if o.SHA256() != without.All()[i].SHA256() {
			t.Errorf("%s: want the same digest with and without on_removal", o.Path)
		}
	}
}

func TestMayRetain_NeedsKindAndPath(t *testing.T) {
	const id = "i-0123456789abcdef0"
	for path, kind := range map[string]grant.Kind{
		"sys/policies/acl/ec2-" + id + "-node": grant.KindPolicy, "alice_cluster/kv/" + id + "-a": grant.KindPKIRole, "auth/aws/role/" + id: grant.KindAuthRole,
		"alice_cluster/ssh/roles/" + id + "-host": grant.KindGeneric, "ns/auth/aws/" + id + "-x": grant.KindGeneric, "alice_cluster/kv/x/" + id + "-b": grant.KindSSHRole,
	} {
		if grant.MayRetain(kind, path) {
			t.Errorf("a %s at %s: it may let something in", kind, path)
		}
	}
	if !grant.MayRetain(grant.KindGeneric, "alice_cluster/kv/nodes/"+id+"-seed") {
		t.Error("a generic object of a key-value engine may be retained")
	}
}
