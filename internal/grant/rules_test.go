package grant_test

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// Load, which authors of profiles use, refuses a profile that breaks a rule which earlier versions did not have. The functions
// keep such a profile, so that existing grants stay, and grant nothing new by it.
func TestProfile_BreakingARuleIsBarred(t *testing.T) {
	const profile, policy, role = "worker/profile.yaml", "worker/policy.hcl.tmpl", "worker/kubelet.json.tmpl"
	for name, row := range map[string]struct {
		spoil func(fstest.MapFS)
		says  string
	}{
		"no max_ttl":                       {replace(role, `"max_ttl": "24h", `, ""), "max_ttl is required"},
		"max_ttl of zero":                  {replace(role, `"24h"`, "0"), "max_ttl is required"},
		"max_ttl past the bound":           {replace(role, `"24h"`, `"8761h"`), "MAX_CERTIFICATE_TTL (8760h0m0s)"},
		"a name from a tag, no suffix":     {both(tagged, replace(profile, "fqdn_suffixes: [corp.example]\n", "")), "fqdn_suffixes: is required"},
		"a branch on a tag's FQDN":         {both(tagged, replace(policy, "{{ pkiAccess", `{{ if eq .FQDN "boss.corp.example" }}# x{{ end }}{{ pkiAccess`)), "no branch may depend on an FQDN"},
		"a variable of a tag's FQDN":       {both(tagged, replace(policy, "{{ pkiAccess", `{{ $x := .FQDN }}# {{ $x }}`+"\n{{ pkiAccess")), "cannot be put into a variable"},
		"a comparison of a tag's FQDN":     {both(tagged, replace(policy, "{{ pkiAccess", `# {{ eq .FQDN "a" }}`+"\n{{ pkiAccess")), "eq cannot use an FQDN"},
		"a branch on it in a common name":  {both(tagged, replace(profile, `"system:node:{{ .FQDN }}"`, `'{{ if eq .FQDN "x" }}admin{{ else }}node{{ end }}'`)), "no branch may depend on an FQDN"},
		"a tag's FQDN as organization":     {both(tagged, replace(role, "system:nodes", "{{ .FQDN }}")), "choose the instance's organization"},
		"a tag's FQDN as a shared CN":      {both(tagged, replace(profile, "type: pki-role,", "type: pki-role, shared_common_name: true,")), "shared_common_name"},
		"a search for a tag's FQDN":        {both(tagged, replace(policy, "{{ pkiAccess", `# {{ replace .FQDN "x" "boss.corp.example" }}`+"\n{{ pkiAccess")), "cannot search for an FQDN"},
		"a search for a tag":               {replace(policy, "{{ pkiAccess", `# {{ trimPrefix (.Tag "team") "boss" }}`+"\n{{ pkiAccess"), "cannot search for a tag"},
		"a branch in a shared name":        {replace(profile, "type: pki-role,", `type: pki-role, shared_dns_names: ['{{ if eq .Region "us-east-1" }}a{{ else }}b{{ end }}.corp.example'],`), "write each name out"},
		"a shared name with the FQDN":      {replace(profile, "type: pki-role,", `type: pki-role, shared_dns_names: ["x.{{ .FQDN }}"],`), "others do not share"},
		"a function's policy":              {replace(profile, "token_ttl: 1h", "extra_policies: [ec2-provisioner-provision], token_ttl: 1h"), "a policy of the functions"},
		"sys deep in a base path":          {replace(profile, "base_path: alice_cluster", "base_path: team/sys"), `the segment "sys"`},
		"identity deep in a path":          {replace(profile, "path: ssh/roles", "path: x/identity/roles"), `the segment "identity"`},
		"sys of a namespace in a policy":   {replace(policy, "/kv/data/", "/team/sys/policies/"), `the segment "sys"`},
		"auth of a namespace by wildcard":  {replace(policy, `"{{ .BasePath }}/kv/data/{{ .InstanceID }}"`, `"{{ .BasePath }}/a*"`), "alice_cluster/auth"},
		"a wildcard in a listed value":     {replace(policy, `capabilities = ["read"]`, `capabilities = ["update"] allowed_parameters = {"a" = [["b", "c*"]]}`), "compares as text"},
		"a base path that lies in another": {second(strings.ReplaceAll(masterProfile, "base_path: alice_cluster", "base_path: alice_cluster/pki")), "lies in"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := filesWith(row.spoil)
			wantFault(t, fs, "alice_cluster-worker", row.says)
			set, err := grant.LoadDeployed(fs, grant.DefaultRules())
			if err != nil {
				t.Fatalf("want the profile loaded and barred, so that existing grants stay, got %v", err)
			}
			f := baseline()
			p, err := set.Match(f)
			if err != nil || p == nil || p.Barred == nil {
				t.Fatalf("want the barred profile to fit the instance, which would lose its grant otherwise, got %v, %v", p, err)
			}
			if _, err := p.Render(f, grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"}); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), row.says) {
				t.Errorf("want a refusal that names the rule (%q), got %v", row.says, err)
			}
		})
	}
}

func TestRules_FollowTheDeployment(t *testing.T) {
	fs := filesWith(replace("worker/profile.yaml", "token_ttl: 1h", "extra_policies: [ours-provision], token_ttl: 1h"))
	for name, row := range map[string]struct {
		rules grant.Rules
		says  string
	}{
		"the default":       {grant.DefaultRules(), ""},
		"a shorter max_ttl": {grant.Rules{MaxTTL: time.Hour, RolePrefix: "x"}, "MAX_CERTIFICATE_TTL (1h0m0s)"},
		"another prefix":    {grant.Rules{MaxTTL: 24 * time.Hour, RolePrefix: "ours"}, "a policy of the functions"},
	} {
		if _, err := grant.LoadBy(fs, row.rules); (err == nil) != (row.says == "") || (err != nil && !strings.Contains(err.Error(), row.says)) {
			t.Errorf("%s: want an error that says %q, got %v", name, row.says, err)
		}
	}
}

func TestOverlappingAddresses_NeedEqualVPCs(t *testing.T) {
	const profile = "worker/profile.yaml"
	overlapping := replace(profile, "base_path:", "overlapping_addresses: true\nbase_path:")
	vpcs := replace(profile, "match: {", "match: {vpc_ids: [vpc-0a1b2c3d], ")
	for name, row := range map[string]struct {
		spoil func(fstest.MapFS)
		says  string
	}{
		"without VPCs":       {overlapping, "must name each VPC"},
		"with a pattern":     {both(overlapping, replace(profile, "match: {", `match: {vpc_ids: ["vpc-*"], `)), "must name each VPC"},
		"beside one without": {both(overlapping, vpcs, second(masterProfile)), "must be the same in both"},
		"with its VPCs":      {both(overlapping, vpcs), ""},
	} {
		if _, err := grant.Load(filesWith(row.spoil)); (err == nil) != (row.says == "") || (err != nil && !strings.Contains(err.Error(), row.says)) {
			t.Errorf("%s: want an error that says %q, got %v: two instances could claim the same address", name, row.says, err)
		}
	}
}
