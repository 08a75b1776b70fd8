package bootstrap

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func (w *world) write(t *testing.T, path string, fields map[string]any) {
	t.Helper()
	if _, err := w.vault.Logical().WriteWithContext(t.Context(), path, fields); err != nil {
		t.Fatal(err)
	}
}

func (w *world) read(t *testing.T, path string) map[string]any {
	t.Helper()
	answer, err := w.vault.Logical().ReadWithContext(t.Context(), path)
	if err != nil || answer == nil {
		t.Fatalf("reading %s: %v, %v", path, answer, err)
	}
	return answer.Data
}

// must runs the command with the root token and returns its output.
func (w *world) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := w.run(t, w.token, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// refused runs the command and checks that it fails, prints each of the texts and writes nothing.
func (w *world) refused(t *testing.T, says []string, args ...string) {
	t.Helper()
	before := len(w.tap.Calls())
	out, err := w.run(t, w.token, args...)
	if err == nil {
		t.Errorf("%q: want an error, got\n%s", args, out)
	}
	for _, s := range says {
		if !strings.Contains(out, s) {
			t.Errorf("%q: want %q in\n%s", args, s, out)
		}
	}
	for _, c := range w.tap.Calls()[before:] {
		if !strings.HasPrefix(c.Action, "GET ") && !strings.HasPrefix(c.Action, "LIST ") {
			t.Errorf("%q: it was refused, but did %s", args, c.Action)
		}
	}
}

// Claims on names are unique within one ledger, so two deployments on one PKI mount could give one name to two instances.
func TestSetup_MarksPKIMountsWithDeployment(t *testing.T) {
	const bob, carol = "bob/pki/k8s", "carol/pki/k8s"
	w := start(t)
	w.write(t, "sys/mounts/"+bob, map[string]any{"type": "pki", "description": "the nodes' CA", "config": map[string]any{"max_lease_ttl": "100h"}})
	args := []string{"-templates-dir", profiles(t), "-resolve-unique-ids=false", "-pki"}
	marked := func(mount string) string { return fmt.Sprint(w.read(t, "sys/mounts/"+mount+"/tune")["description"]) }

	out := w.must(t, args...)
	if strings.Count(out, "notice  bob/ssh/machines is below no mount: mount the engine that this output of a profile needs") != 1 || strings.Contains(out, "roles is below no mount") {
		t.Errorf("want a notice for the output without a mount, and none for a PKI mount that was made:\n%s", out)
	}
	if !strings.Contains(out, "notice  the PKI mount "+bob+" does not say which deployment") || marked(bob) != "the nodes' CA" {
		t.Errorf("want a notice and no change for a mount without a mark and without -deployment: %q\n%s", marked(bob), out)
	}
	w.refused(t, []string{`the deployment ID "no id"`}, append(args, "-deployment", "no id")...)
	one := append(slices.Clone(args), "-deployment", "one")
	if out := w.must(t, append(one, "-dry-run")...); !strings.Contains(out, "update  sys/mounts/"+bob+"/tune") || marked(bob) != "the nodes' CA" {
		t.Errorf("want a dry run to print the mark and write nothing: %q\n%s", marked(bob), out)
	}
	if _, err := w.vault.Logical().DeleteWithContext(t.Context(), "sys/mounts/"+carol); err != nil {
		t.Fatal(err)
	}
	w.must(t, one...)
	for mount, want := range map[string]string{
		"bob/hosts": "managed-by: vault-ec2-provisioner, deployment: one", "carol/hosts": "managed-by: vault-ec2-provisioner, deployment: one",
		bob:   "the nodes' CA; managed-by: vault-ec2-provisioner, deployment: one",
		carol: "managed-by: vault-ec2-provisioner, deployment: one",
	} {
		if got := marked(mount); got != want {
			t.Errorf("%s: the description is %q, want %q", mount, got, want)
		}
	}
	if ttl := fmt.Sprint(w.read(t, "sys/mounts/"+bob+"/tune")["max_lease_ttl"]); ttl != "360000" {
		t.Errorf("the mark changed max_lease_ttl to %s", ttl)
	}
	if out := w.must(t, one...); !strings.Contains(out, "ok      sys/mounts/"+bob+"/tune") || !strings.Contains(out, "\n0 of ") {
		t.Errorf("want no change in a second run:\n%s", out)
	}
	if out := w.must(t, args...); strings.Contains(out, "does not say which deployment") {
		t.Errorf("want no notice for a marked mount:\n%s", out)
	}
	if key := fmt.Sprint(w.read(t, "carol/hosts/config/ca")["public_key"]); !strings.HasPrefix(key, "ssh-ed25519 ") {
		t.Errorf("want an SSH mount with a CA, got %q", key)
	}
	w.refused(t, []string{"the SSH mount bob/hosts", "belongs to the deployment one and not to two", "base_path"}, append(args, "-deployment", "two")...)
}

// iamProfiles returns a folder with one profile for instances that log in by their IAM role.
func iamProfiles(t *testing.T) string {
	t.Helper()
	dir := profiles(t)
	path := filepath.Join(dir, "node", "profile.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(text), "auth: {", "auth: {type: iam, ")
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A removal cuts an instance's tokens by its identity entity, and finds the entity by its alias.
func TestSetup_RefusesAliasesThatHideEntities(t *testing.T) {
	w := start(t)
	w.write(t, "sys/auth/aws", map[string]any{"type": "aws"})
	ec2, iam := []string{"-resolve-unique-ids=false", "-templates-dir", profiles(t)}, []string{"-resolve-unique-ids=false", "-templates-dir", iamProfiles(t)}
	for _, row := range []struct {
		args     []string
		settings map[string]any
		says     string // empty for valid settings
	}{
		{ec2, map[string]any{"ec2_alias": "image_id", "iam_alias": "role_id"}, "ec2_alias=image_id"},
		{ec2, map[string]any{"ec2_alias": "role_id", "iam_alias": "full_arn"}, ""},
		{iam, map[string]any{"ec2_alias": "role_id", "iam_alias": "full_arn"}, "iam_alias=full_arn"},
		{iam, map[string]any{"ec2_alias": "role_id", "iam_alias": "unique_id"}, "iam_alias=unique_id"},
		{iam, map[string]any{"ec2_alias": "instance_id", "iam_alias": "canonical_arn"}, "iam_alias=canonical_arn"},
		{iam, map[string]any{"ec2_alias": "instance_id", "iam_alias": "role_id"}, ""},
	} {
		w.write(t, "auth/aws/config/identity", row.settings)
		if row.says == "" {
			w.must(t, append(row.args, "-dry-run")...)
			continue
		}
		w.refused(t, []string{row.says, "could not cut its tokens", "-set-alias", "-auth-mount", "-keep-alias"}, row.args...)
		if out := w.must(t, append(row.args, "-keep-alias", "-dry-run")...); !strings.Contains(out, "notice  auth/aws/config/identity has "+row.says) {
			t.Errorf("want a notice with -keep-alias:\n%s", out)
		}
	}
	if out := w.must(t, ec2...); !strings.Contains(out, "does not put the instance ID into the metadata") {
		t.Errorf("want a notice for aliases without the instance's ID:\n%s", out)
	}
	if got := w.read(t, "auth/aws/config/identity"); got["iam_alias"] != "role_id" || slices.Contains(got["ec2_metadata"].([]any), "instance_id") {
		t.Errorf("without -set-alias the settings of an existing mount were changed to %v", got)
	}
	w.write(t, "auth/aws/config/identity", map[string]any{"ec2_alias": "image_id", "iam_alias": "full_arn"})
	w.must(t, append(iam, "-set-alias")...)
	if out := w.must(t, append(iam, "-set-alias")...); !strings.Contains(out, "ok      auth/aws/config/identity") || !strings.Contains(out, "\n0 of ") {
		t.Errorf("want no change in a second run:\n%s", out)
	}
	got := w.read(t, "auth/aws/config/identity")
	for field, want := range map[string]string{
		"ec2_alias": "instance_id", "iam_alias": "role_id",
		"ec2_metadata": "[account_id auth_type instance_id]", "iam_metadata": "[account_id auth_type inferred_entity_id]",
	} {
		if fmt.Sprint(got[field]) != want {
			t.Errorf("%s is %v, want %s", field, got[field], want)
		}
	}
	if out := w.must(t, iam...); strings.Contains(out, "notice  auth/aws/config/identity") {
		t.Errorf("want no notice for correct settings:\n%s", out)
	}
}

// Other policies that can write the instances' policies and roles, or use the PKI mounts, bypass the program's checks.
func TestSetup_NamesPoliciesThatReachInstances(t *testing.T) {
	w := start(t)
	args := []string{"-templates-dir", profiles(t), "-resolve-unique-ids=false", "-pki"}
	w.must(t, args...)
	for name, text := range map[string]string{
		"admin":                          `path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }`,
		"web":                            `path "bob/pki/k8s/issue/*" { capabilities = ["update"] }`,
		"signer":                         `{"path": {"+/pki/+/sign-verbatim": {"capabilities": ["create", "update"]}}}`,
		"ca":                             `path "carol/pki/k8s/root/*" { policy = "write" }`,
		"by-issuer":                      `path "bob/pki/k8s/issuer/default/sign/web" { capabilities = ["update"] }`,
		"roles":                          `path "auth/+/role/*" { capabilities = ["update"] }`,
		"door":                           `path "auth/aws/identity-accesslist/*" { capabilities = ["delete"] }`,
		"ec2-i-door":                     `path "secret/*" { capabilities = ["read"] }`,
		"ec2-i-0123456789abcdef0-node":   `path "bob/pki/k8s/issue/i-0123456789abcdef0-kubelet" { capabilities = ["update"] }`,
		"ec2-i-0123456789abcdef0-a-b":    `path "secret/x" { capabilities = ["read"] }`,
		"documents":                      `path "auth/aws/config/certificate/mine" { capabilities = ["create"] }`,
		"hosts":                          `path "bob/hosts/sign/+" { capabilities = ["update"] }`,
		"host-ca":                        `path "carol/hosts/config/ca" { capabilities = ["delete"] }`,
		"host-roles":                     `path "bob/hosts/roles/*" { capabilities = ["create"] }`,
		"owner":                          `path "sys/mounts/+/pki/k8s/tune" { capabilities = ["update"] }`,
		"acme":                           `path "bob/pki/k8s/config/acme" { capabilities = ["update"] }`,
		"reader":                         `path "*" { capabilities = ["read", "list"] }`,
		"nothing":                        `path "sys/policies/acl/*" { capabilities = ["deny"] }`,
		"other-mount":                    `path "dave/pki/k8s/issue/*" { capabilities = ["update"] }`,
		"i-0123456789abcdef0-not-an-ec2": `path "bob/pki/k8s/roles/web" { capabilities = ["update"] }`,
	} {
		w.write(t, "sys/policies/acl/"+name, map[string]any{"policy": text})
	}
	w.write(t, "auth/aws/role/i-door", map[string]any{"auth_type": "iam", "bound_iam_principal_arn": "arn:aws:iam::123456789012:role/x", "resolve_aws_unique_ids": false})
	w.write(t, "auth/aws/role/i-0123456789abcdef0", map[string]any{"auth_type": "ec2", "bound_ec2_instance_id": "i-0123456789abcdef0"})
	out := w.must(t, args...)
	for _, want := range []string{
		`notice  policy admin: path "*" (create read update delete list sudo) could change what instances may do; change who logs in as an instance; let another`,
		`notice  policy web: path "bob/pki/k8s/issue/*" (update) could get a certificate of any instance from bob/pki/k8s`,
		`notice  policy signer: path "+/pki/+/sign-verbatim" (create update) could get a certificate for any name from bob/pki/k8s; get a certificate for any name from carol/pki/k8s`,
		`notice  policy ca: path "carol/pki/k8s/root/*" (create read update delete list) could make a CA below carol/pki/k8s`,
		`notice  policy by-issuer: path "bob/pki/k8s/issuer/default/sign/web" (update) could get a certificate of any instance from bob/pki/k8s`,
		`notice  policy roles: path "auth/+/role/*" (update) could change who logs in as an instance`,
		`notice  policy door: path "auth/aws/identity-accesslist/*" (delete) could let another client log in with an instance's identity document`,
		`notice  policy documents: path "auth/aws/config/certificate/mine" (create) could change how logins on auth/aws are checked`,
		`notice  policy owner: path "sys/mounts/+/pki/k8s/tune" (update) could change the owner of the mount bob/pki/k8s; change the owner of the mount carol/pki/k8s`,
		`notice  policy hosts: path "bob/hosts/sign/+" (update) could get a host certificate of any instance from bob/hosts`,
		`notice  policy host-ca: path "carol/hosts/config/ca" (delete) could change the CA of carol/hosts`,
		`notice  policy host-roles: path "bob/hosts/roles/*" (create) could change what certificates bob/hosts signs`,
		`notice  policy acme: path "bob/pki/k8s/config/acme" (update) could change how bob/pki/k8s issues, or open ACME on it`,
		`notice  policy ec2-i-door: no instance has a policy of this name`,
		`notice  policy ec2-i-0123456789abcdef0-a-b: no instance has a policy of this name`,
		`notice  policy i-0123456789abcdef0-not-an-ec2: path "bob/pki/k8s/roles/web" (update) could change what certificates bob/pki/k8s issues`,
		`notice  auth role auth/aws/role/i-door: no instance has this ID`,
	} {
		if strings.Count(out, want) != 1 {
			t.Errorf("want exactly once: %s", want)
		}
	}
	for _, not := range []string{
		"policy ec2-provisioner", "policy ec2-i-0123456789abcdef0-node", "policy reader", "policy nothing", "policy other-mount", "policy default",
		"policy root", "role/i-0123456789abcdef0",
	} {
		if strings.Contains(out, "notice  "+not) {
			t.Errorf("%s is harmless, but got a notice", not)
		}
	}
	if t.Failed() {
		t.Log(out)
	}
}
