package grant_test

import (
	"slices"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func TestPaths_AreThoseOfVault(t *testing.T) {
	for want, got := range map[string]string{
		"sys/policies/acl/web":             grant.PolicyPath("web"),
		"auth/team/aws":                    grant.AuthMountPath("team/aws"),
		"auth/aws/config/sts":              grant.AuthConfigPath("aws", "sts"),
		"auth/aws/role":                    grant.AuthRoleFolder("aws"),
		"auth/aws/role/i-1":                grant.AuthRolePath("aws", "i-1"),
		"auth/aws/identity-accesslist":     grant.AccessListFolder("aws"),
		"auth/aws/identity-accesslist/i-1": grant.AccessListPath("aws", "i-1"),
		"alice/pki/roles":                  grant.PKIRoleFolder("alice/pki"),
		"alice/pki/roles/web":              grant.PKIRolePath("alice/pki", "web"),
		"alice/pki/issue/web":              grant.IssuePath("alice/pki", "web"),
		"alice/pki/sign/web":               grant.SignPath("alice/pki", "web"),
		"sys/internal/ui/mounts/alice/pki": grant.MountInfoPath("alice/pki"),
		"sys/internal/ui/mounts/auth/aws":  grant.MountInfoPath(grant.AuthMountPath("aws")),
		"sys/leases/revoke-prefix/a/b":     grant.RevokePrefixPath("a/b"),
		"ec2-i-":                           grant.NamePrefix(grant.KindPolicy),
		"i-":                               grant.NamePrefix(grant.KindGeneric),
		"ec2-i-*":                          grant.NamePattern(grant.KindPolicy),
		"i-*":                              grant.NamePattern(grant.KindAuthRole),
		"sys/policy/web":                   grant.OldPolicyPath("web"),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got, want := grant.LeasePrefixes("alice/pki", "web"), []string{"alice/pki/issue/web", "alice/pki/sign/web"}; !slices.Equal(got, want) {
		t.Errorf("got lease prefixes %q, want %q", got, want)
	}
}

func TestPaths_SplitAtTheRightSegments(t *testing.T) {
	type parts struct {
		mount, name string
		ok          bool
	}
	type split func(path string) (string, string, bool)
	for _, row := range []struct {
		path  string
		split split
		want  parts
	}{
		{"auth/aws/role/i-1", grant.SplitAuthRolePath, parts{"aws", "i-1", true}},
		{"auth/team/aws/role/i-1", grant.SplitAuthRolePath, parts{"team/aws", "i-1", true}},
		{"auth/a/role/role/i-1", grant.SplitAuthRolePath, parts{"a/role", "i-1", true}},
		{"auth/aws/identity-accesslist/i-1", grant.SplitAuthRolePath, parts{}},
		{"auth/role/i-1", grant.SplitAuthRolePath, parts{}},
		{"auth//role/i-1", grant.SplitAuthRolePath, parts{}},
		{"auth/aws/role/", grant.SplitAuthRolePath, parts{}},
		{"auth/aws/role", grant.SplitAuthRolePath, parts{}},
		{"aws/role/i-1", grant.SplitAuthRolePath, parts{}},
		{"", grant.SplitAuthRolePath, parts{}},
		{"auth/aws/identity-accesslist/i-1", grant.SplitAccessListPath, parts{"aws", "i-1", true}},
		{"auth/aws/role/i-1", grant.SplitAccessListPath, parts{}},
		{"alice/pki/roles/i-1-web", grant.SplitPKIRolePath, parts{"alice/pki", "i-1-web", true}},
		{"alice/roles/roles/i-1-web", grant.SplitPKIRolePath, parts{"alice/roles", "i-1-web", true}},
		{"alice/pki/role/i-1-web", grant.SplitPKIRolePath, parts{}},
		{"alice/roles/web/key", grant.SplitPKIRolePath, parts{}},
		{"/roles/i-1-web", grant.SplitPKIRolePath, parts{}},
		{"alice/pki/roles/", grant.SplitPKIRolePath, parts{}},
	} {
		mount, name, ok := row.split(row.path)
		if got := (parts{mount, name, ok}); got != row.want {
			t.Errorf("%q: got %+v, want %+v", row.path, got, row.want)
		}
	}
	for path, want := range map[string]parts{
		"sys/policies/acl/web": {name: "web", ok: true}, "sys/policies/acl": {name: "sys/policies/acl"}, "sys/policy/web": {name: "sys/policy/web"},
	} {
		if name, ok := grant.SplitPolicyPath(path); ok != want.ok || (ok && name != want.name) {
			t.Errorf("%s: got policy %q, %v, want %+v", path, name, ok, want)
		}
	}
	for path, want := range map[string]string{"a/b/c": "a/b", "a/b/": "a/b", "a": "", "": ""} {
		if got := grant.FolderOf(path); got != want {
			t.Errorf("%q: got folder %q, want %q", path, got, want)
		}
	}
}

func TestKindOf_GoesByThePath(t *testing.T) {
	mounts := grant.Mounts{PKI: []string{"alice/pki", "bob/pki/web"}, SSH: []string{"bob/ssh"}}
	for path, want := range map[string]grant.Kind{
		"sys/policies/acl/ec2-i-1-node":    grant.KindPolicy,
		"auth/aws/role/i-1":                grant.KindAuthRole,
		"auth/aws/identity-accesslist/i-1": grant.KindAuthRole,
		"alice/pki/roles/i-1-web":          grant.KindPKIRole,
		"bob/pki/web/roles/i-1-web":        grant.KindPKIRole,
		"alice/ssh/roles/i-1-web":          grant.KindGeneric,
		"bob/ssh/roles/i-1-web":            grant.KindSSHRole,
		"bob/ssh/i-1-web":                  grant.KindGeneric,
		"alice/pki/i-1-web":                grant.KindGeneric,
		"bob/pki/roles/i-1-web":            grant.KindGeneric,
		"i-1":                              grant.KindGeneric,
	} {
		if got := grant.KindOf(path, mounts); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

func TestInstanceOf_GoesByTheKindsNames(t *testing.T) {
	const id = "i-0123456789abcdef0"
	for name, kinds := range map[string][]grant.Kind{
		id:                          {grant.KindAuthRole},
		id + "-web":                 {grant.KindPKIRole, grant.KindGeneric},
		"ec2-" + id + "-web":        {grant.KindPolicy},
		"ec2-" + id:                 nil,
		"i-0123-web":                nil,
		id + "-web-2":               nil,
		"ec2-provisioner-provision": nil,
		"":                          nil,
	} {
		for _, kind := range []grant.Kind{grant.KindPolicy, grant.KindPKIRole, grant.KindGeneric, grant.KindAuthRole} {
			got, ok := grant.InstanceOf(kind, name)
			if want := slices.Contains(kinds, kind); ok != want || (ok && got != id) {
				t.Errorf("%q as a %s: got %q, %v, want %v", name, kind, got, ok, want)
			}
		}
	}
}

func TestOutputFolders_AreThoseOfTheObjects(t *testing.T) {
	fs := filesWith(text("etcd/profile.yaml", `name: alice_cluster-etcd
match: {iam_role_arn: "arn:aws:iam::*:role/alice-etcd"}
base_path: alice_cluster
fqdn: "{{ .PrivateDNSName }}"
auth: {token_ttl: 1h, token_max_ttl: 24h}
outputs:
  - {name: server, type: pki-role, path: pki/etcd/roles, template: role.json.tmpl}
  - {name: peer, type: pki-role, path: pki/etcd/roles, template: role.json.tmpl}
  - {name: host, type: generic, path: ssh/roles, template: host.json.tmpl}
`), text("etcd/role.json.tmpl", baselineRole), text("etcd/host.json.tmpl", baselineHost))
	set := loaded(t, fs)
	want := []string{"alice_cluster/pki/etcd/roles", "alice_cluster/pki/k8s/roles", "alice_cluster/ssh/roles"}
	if got := set.OutputFolders(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	of := map[string][]string{}
	for _, p := range set.Profiles {
		of[p.Name] = p.OutputFolders()
		g, err := p.Render(baseline(), grant.Realm{Deployment: "test", AuthMount: "aws"})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range g.Objects {
			isOutput := o.Kind != grant.KindPolicy
			if isOutput != slices.Contains(p.OutputFolders(), grant.FolderOf(o.Path)) {
				t.Errorf("%s: %s: want in an output folder: %v, got the folders %q", p.Name, o.Path, isOutput, p.OutputFolders())
			}
			if kind := grant.KindOf(o.Path, set.Mounts()); kind != o.Kind {
				t.Errorf("%s: got %s, want %s", o.Path, kind, o.Kind)
			}
		}
	}
	if !slices.Equal(of["alice_cluster-etcd"], []string{want[0], want[2]}) || !slices.Equal(of["alice_cluster-worker"], want[1:]) {
		t.Errorf("by profile: got %q", of)
	}
}

func TestPath_BelongsToAnInstanceByForm(t *testing.T) {
	const id = "i-0123456789abcdef0"
	for path, kind := range map[string]grant.Kind{
		"sys/policies/acl/ec2-" + id + "-node":           grant.KindPolicy,
		"auth/aws/role/" + id:                            grant.KindAuthRole,
		"auth/team/AWS_2/role/" + id:                     grant.KindAuthRole,
		"alice_cluster/pki/k8s/roles/" + id + "-kubelet": grant.KindPKIRole,
		"alice_cluster/ssh/roles/" + id + "-host":        grant.KindGeneric,
	} {
		if !grant.IsPathOf(id, kind, path) {
			t.Errorf("%s: want a %s of the instance, which its removal would leave otherwise", path, kind)
		}
		for _, other := range []grant.Kind{grant.KindPolicy, grant.KindAuthRole} {
			if other != kind && grant.IsPathOf(id, other, path) {
				t.Errorf("%s: want no %s", path, other)
			}
		}
	}
	for _, path := range []string{
		"", "/", id, "auth/aws/role/i-0123456789abcdef1", "auth/aws/role/admin", "auth/aws", "auth//role/" + id, "auth/aws/../sys/role/" + id,
		"sys/policies/acl/ec2-" + id + "-node/x", "sys/policies/acl/" + id + "-node", "sys/policies/acl/ec2-i-0123456789abcdef1-node",
		"sys/policies/password/ec2-" + id + "-node", "alice_cluster/pki/k8s/roles/i-0123456789abcdef1-kubelet", "sys/mounts/" + id + "-x",
		"identity/entity/id/" + id + "-x", "a/../b/" + id + "-x", "alice_cluster/pki/k8s/roles/" + id,
	} {
		for _, kind := range []grant.Kind{grant.KindPolicy, grant.KindAuthRole, grant.KindPKIRole, grant.KindGeneric} {
			if grant.IsPathOf(id, kind, path) {
				t.Errorf("%q: want no %s of the instance: a forged record could have it deleted", path, kind)
			}
		}
	}
}
