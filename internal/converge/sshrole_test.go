package converge_test

import (
	"context"
	"io/fs"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

const sshA = "alice_cluster/hosts/roles/" + idA + "-sshd"

// withHostCertificates gives the built-in workers an SSH role.
func withHostCertificates(t *testing.T) func(*converge.Options) {
	t.Helper()
	files := fstest.MapFS{"worker/sshd.json.tmpl": {Data: []byte(`{"max_ttl": "48h"}`)}}
	for _, name := range []string{"profile.yaml", "policy.hcl.tmpl", "kubelet.json.tmpl", "kube-proxy.json.tmpl"} {
		text, err := fs.ReadFile(templates.FS, "worker/"+name)
		if err != nil {
			t.Fatal(err)
		}
		with := strings.Replace(string(text), "outputs:\n", "outputs:\n  - {name: sshd, type: ssh-role, path: hosts/roles, template: sshd.json.tmpl}\n", 1)
		files["worker/"+name] = &fstest.MapFile{Data: []byte(strings.Replace(with, "{{ identityAccess }}", "{{ identityAccess }}\n{{ sshAccess \"sshd\" }}", 1))}
	}
	set, err := grant.Load(files)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *converge.Options) { o.Profiles = set }
}

func TestSSHRole_LivesWithItsInstance(t *testing.T) {
	w, c := provisioned(t, both, withHostCertificates(t))
	record := w.Records[idA]
	if w.Objects[sshA]["allow_user_certificates"] != false || !record.Has(sshA) {
		t.Fatalf("want the SSH role in Vault and in the record, got %v and %+v", w.Objects[sshA], record.Objects)
	}
	w.pass(time.Hour)
	w.Objects[sshA]["allow_user_certificates"] = true
	w.must(c, idA, facts.Running, converge.Unchanged) // by the record: a comparison finds it
	w.setState(facts.Terminated)
	w.must(c, idA, facts.Terminated, converge.Deprovisioned)
	if w.Objects[sshA] != nil {
		t.Error("want the SSH role removed with its instance")
	}
}

// forgetful is a Vault before 1.18.2, which drops, or does not show, a field of SSH roles without a word.
type forgetful struct{ converge.Vault }

func (f forgetful) Write(ctx context.Context, path string, fields map[string]any) (map[string]any, error) {
	if strings.Contains(path, "/hosts/roles/") {
		fields = maps.Clone(fields)
		delete(fields, "allow_empty_principals")
	}
	return f.Vault.Write(ctx, path, fields)
}

// There a host could get a certificate for every host.
func TestSSHRole_WithoutItsLockGrantsNothing(t *testing.T) {
	w, c := launched(t, mayMake, withHostCertificates(t), func(o *converge.Options) { o.Vault = forgetful{o.Vault} })
	const says = "reads back with other values in [allow_empty_principals]"
	w.wantFault(c, w.event(idA, facts.Running), fault.Retry, "it may be a lag", says)
	if _, exists := w.Objects[roleA]; exists {
		t.Error("want no auth role: with it the instance could ask for a certificate for every host")
	}
	w.pass(2 * time.Minute)
	w.wantFault(c, w.event(idA, facts.Running), fault.Refuse, "no lag lasts so long", says)
}

func TestSSHMount_OfAnotherDeploymentIsRefused(t *testing.T) {
	w, c := launched(t, mayMake, withHostCertificates(t))
	w.owners = map[string]string{"alice_cluster/hosts": "another"}
	w.wantFault(c, w.event(idA, facts.Running), fault.Refuse, "names are unique in one ledger", "the SSH mount alice_cluster/hosts is marked as deployment another's")
}
