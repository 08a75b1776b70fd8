package grant_test

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// The samples of the plugin jetstack/vault-plugin-auth-templated-aws: one policy and one PKI role for each instance, and every
// variable of its templates. docs/upgrades.md explains how to port them.
const (
	pluginPolicy = `path "secret/*" { capabilities = ["create"] } path "secret/foo" { capabilities = ["read"] }`
	pluginPKI    = `{"allowed_domains": ["{{ .FQDN }}"], "allow_subdomains": true}`
	pluginAll    = `{"of": "{{ .InstanceHash }} {{ .FQDN }} {{ .InternalIPv4 }}", "at": "{{ .BasePath }}/{{ .OutputPath }}/{{ .TemplateName }}-{{ .InstanceHash }}"}`
)

const portedProfile = `name: tarmak-vault
match: {iam_role_arn: "arn:aws:iam::*:role/alice-worker"}
base_path: tarmak
fqdn: "{{ .PrivateDNSName }}"
auth: {token_ttl: 1h, token_max_ttl: 24h}
outputs:
  - {name: test_policy, type: policy, template: policy.hcl.tmpl}
  - {name: test_pki, type: pki-role, path: pki/roles, template: pki.json.tmpl}
  - {name: all, type: generic, path: ssh/roles, template: all.json.tmpl}
`

func ported() fstest.MapFS {
	return fstest.MapFS{
		"vault/profile.yaml": {Data: []byte(portedProfile)},
		"vault/policy.hcl.tmpl": {Data: []byte(`{{ pkiAccess "test_pki" }}
path "{{ .BasePath }}/secret/*" { capabilities = ["create"] }
path "{{ .BasePath }}/secret/foo" { capabilities = ["read"] }
`)},
		"vault/pki.json.tmpl": {Data: []byte(`{"max_ttl": "24h"}`)},
		"vault/all.json.tmpl": {Data: []byte(pluginAll)},
	}
}

func TestPluginSamples_RenderAsPorted(t *testing.T) {
	g := rendered(t, ported(), baseline())
	id := baseline().ID
	var paths []string
	for _, o := range g.All() {
		paths = append(paths, o.Path)
	}
	want := []string{"sys/policies/acl/ec2-" + id + "-test_policy", "tarmak/pki/roles/" + id + "-test_pki", "tarmak/ssh/roles/" + id + "-all", "auth/aws/role/" + id}
	if !slices.Equal(paths, want) {
		t.Errorf("want the objects %q, got %q", want, paths)
	}
	policy := policyOf(g)
	for _, rule := range []string{`path "tarmak/secret/*"`, `path "tarmak/secret/foo"`, `path "tarmak/pki/issue/` + id + `-test_pki"`} {
		if !strings.Contains(policy, rule) {
			t.Errorf("want the rule %s in\n%s", rule, policy)
		}
	}
	role := g.Objects[1].Fields
	if names, _ := role["allowed_domains"].([]string); !slices.Equal(names, []string{"ip-10-1-1-4.ec2.internal"}) || role["allow_subdomains"] != false {
		t.Errorf("want the instance's own name and no subdomain, which the plugin's sample allows, got %v", role)
	}
	all := g.Objects[2].Fields
	if all["of"] != id+" ip-10-1-1-4.ec2.internal 10.1.1.4" || all["at"] != "tarmak/ssh/roles/all-"+id {
		t.Errorf("want every variable of the plugin rendered unchanged, got %v", all)
	}
}

func TestPluginSamples_UnportedAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ file, text, says string }{
		"a policy outside the base path": {"vault/policy.hcl.tmpl", pluginPolicy, "is outside the base path"},
		"the names of a PKI role":        {"vault/pki.json.tmpl", pluginPKI, "allow_subdomains"},
		"a PKI path without a lock":      {"vault/policy.hcl.tmpl", `path "{{ .BasePath }}/pki/issue/*" { capabilities = ["update"] }`, "pkiAccess"},
		"an unknown variable":            {"vault/all.json.tmpl", `{"x": "{{ .Hostname }}"}`, "Hostname"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := ported()
			text(c.file, c.text)(fs)
			wantFault(t, fs, c.says)
		})
	}
}
