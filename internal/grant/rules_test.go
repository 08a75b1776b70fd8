package grant_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// tagged makes the baseline's FQDN one that a tag chooses.
var tagged = replace("worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, "fqdn: '{{ .Tag \"name\" }}'\nfqdn_suffixes: [corp.example]")

func both(changes ...func(fstest.MapFS)) func(fstest.MapFS) {
	return func(fs fstest.MapFS) {
		for _, c := range changes {
			c(fs)
		}
	}
}

// second adds a profile beside the baseline.
func second(profile string) func(fstest.MapFS) {
	return func(fs fstest.MapFS) {
		fs["master/profile.yaml"] = &fstest.MapFile{Data: []byte(profile)}
		for _, file := range []string{"policy.hcl.tmpl", "kubelet.json.tmpl", "host.json.tmpl"} {
			fs["master/"+file] = fs["worker/"+file]
		}
	}
}

// masterProfile shares the baseline's PKI mount and puts all there is into certificates.
const masterProfile = `name: alice_cluster-master
match: {iam_role_arn: "arn:aws:iam::*:role/alice-master"}
base_path: alice_cluster
fqdn: "{{ .PrivateDNSName }}"
auth: {token_ttl: 1h, token_max_ttl: 24h}
outputs:
  - {name: node, type: policy, template: policy.hcl.tmpl}
  - name: kubelet
    type: pki-role
    path: pki/k8s/roles
    dns_names: ["{{ .FQDN }}", "etcd-{{ .FQDN }}", localhost]
    shared_dns_names: [api.corp.example, "{{ .Region }}.api.corp.example"]
    ip_addresses: ["{{ .InternalIPv4 }}", 10.254.0.1]
    template: kubelet.json.tmpl
`

// A profile that breaks a rule earlier versions did not have is refused by Load, which whoever writes profiles uses. The
// functions keep it, so that what stands goes on standing, and grant nothing by it.
func TestProfile_ThatBreaksARuleIsBarred(t *testing.T) {
	const profile, policy, role = "worker/profile.yaml", "worker/policy.hcl.tmpl", "worker/kubelet.json.tmpl"
	for name, row := range map[string]struct {
		spoil func(fstest.MapFS)
		says  string
	}{
		"no max_ttl":                       {replace(role, `"max_ttl": "24h", `, ""), "max_ttl is required"},
		"max_ttl of zero":                  {replace(role, `"24h"`, "0"), "max_ttl is required"},
		"max_ttl past the bound":           {replace(role, `"24h"`, `"8761h"`), "MAX_CERTIFICATE_TTL (8760h0m0s)"},
		"a name from a tag, no suffix":     {both(tagged, replace(profile, "fqdn_suffixes: [corp.example]\n", "")), "fqdn_suffixes: is required"},
		"a branch on a tag's FQDN":         {both(tagged, replace(policy, "{{ pkiAccess", `{{ if eq .FQDN "boss.corp.example" }}# x{{ end }}{{ pkiAccess`)), "no branch hangs on the FQDN"},
		"a variable of a tag's FQDN":       {both(tagged, replace(policy, "{{ pkiAccess", `{{ $x := .FQDN }}# {{ $x }}`+"\n{{ pkiAccess")), "not kept in a variable"},
		"a comparison of a tag's FQDN":     {both(tagged, replace(policy, "{{ pkiAccess", `# {{ eq .FQDN "a" }}`+"\n{{ pkiAccess")), "says nothing about the FQDN"},
		"a branch in a name on it":         {both(tagged, replace(profile, `"system:node:{{ .FQDN }}"`, `'{{ if eq .FQDN "x" }}admin{{ else }}node{{ end }}'`)), "no branch hangs on the FQDN"},
		"a tag's FQDN as organization":     {both(tagged, replace(role, "system:nodes", "{{ .FQDN }}")), "choose its organization"},
		"a tag's FQDN as a shared CN":      {both(tagged, replace(profile, "type: pki-role,", "type: pki-role, shared_common_name: true,")), "shared_common_name"},
		"a search for a tag's FQDN":        {both(tagged, replace(policy, "{{ pkiAccess", `# {{ replace .FQDN "x" "boss.corp.example" }}`+"\n{{ pkiAccess")), "is told to look for the FQDN"},
		"a search for a tag":               {replace(policy, "{{ pkiAccess", `# {{ trimPrefix (.Tag "team") "boss" }}`+"\n{{ pkiAccess"), "is told to look for a tag"},
		"a branch in a shared name":        {replace(profile, "type: pki-role,", `type: pki-role, shared_dns_names: ['{{ if eq .Region "us-east-1" }}a{{ else }}b{{ end }}.corp.example'],`), "write each name out"},
		"a shared name of its own":         {replace(profile, "type: pki-role,", `type: pki-role, shared_dns_names: ["x.{{ .FQDN }}"],`), "others do not share"},
		"a function's policy":              {replace(profile, "token_ttl: 1h", "extra_policies: [ec2-provisioner-provision], token_ttl: 1h"), "a policy of the functions"},
		"sys deep in a base path":          {replace(profile, "base_path: alice_cluster", "base_path: team/sys"), `the segment "sys"`},
		"identity deep in a path":          {replace(profile, "path: ssh/roles", "path: x/identity/roles"), `the segment "identity"`},
		"sys of a namespace in a policy":   {replace(policy, "/kv/data/", "/team/sys/policies/"), `the segment "sys"`},
		"auth of a namespace by wildcard":  {replace(policy, `"{{ .BasePath }}/kv/data/{{ .InstanceID }}"`, `"{{ .BasePath }}/a*"`), "alice_cluster/auth"},
		"a base path that lies in another": {second(strings.ReplaceAll(masterProfile, "base_path: alice_cluster", "base_path: alice_cluster/pki")), "lies in"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := files()
			row.spoil(fs)
			if _, err := grant.Load(fs); err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), "alice_cluster-worker") {
				t.Fatalf("want an error that names the profile and says %q, got %v", row.says, err)
			}
			set, err := grant.LoadStanding(fs, grant.DefaultRules())
			if err != nil {
				t.Fatalf("what stands by the profile must go on: want it loaded and barred, got %v", err)
			}
			f := baseline()
			p, err := set.Match(f)
			if err != nil || p == nil || p.Barred == nil {
				t.Fatalf("want the profile barred and still the instance's, since one that no profile fits loses its grant: %v, %v", p, err)
			}
			if _, err := p.Render(f, grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"}); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), row.says) {
				t.Errorf("want nothing new granted and the rule named (%q), got %v", row.says, err)
			}
		})
	}
}

func TestRules_AreTheDeployments(t *testing.T) {
	fs := files()
	replace("worker/profile.yaml", "token_ttl: 1h", "extra_policies: [ours-provision], token_ttl: 1h")(fs)
	for name, row := range map[string]struct {
		rules grant.Rules
		says  string
	}{
		"as they are by default": {grant.DefaultRules(), ""},
		"a shorter max_ttl":      {grant.Rules{MaxTTL: time.Hour, RolePrefix: "x"}, "MAX_CERTIFICATE_TTL (1h0m0s)"},
		"another prefix":         {grant.Rules{MaxTTL: 24 * time.Hour, RolePrefix: "ours"}, "a policy of the functions"},
	} {
		if _, err := grant.LoadBy(fs, row.rules); (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: want an error that says %q, got %v", name, row.says, err)
		}
	}
}

func TestOverlap_IsSaidByAllProfilesOfAMountAndNamesItsVPCs(t *testing.T) {
	const profile = "worker/profile.yaml"
	overlapping := replace(profile, "base_path:", "overlapping_addresses: true\nbase_path:")
	vpcs := replace(profile, "match: {", "match: {vpc_ids: [vpc-0a1b2c3d], ")
	for name, row := range map[string]struct {
		spoil func(fstest.MapFS)
		says  string
	}{
		"without VPCs":        {overlapping, "must name each VPC"},
		"with a pattern":      {both(overlapping, replace(profile, "match: {", `match: {vpc_ids: ["vpc-*"], `)), "must name each VPC"},
		"beside one that not": {both(overlapping, vpcs, second(masterProfile)), "must be the same in both"},
		"as it should be":     {both(overlapping, vpcs), ""},
	} {
		fs := files()
		row.spoil(fs)
		if _, err := grant.Load(fs); (err == nil) != (row.says == "") || err != nil && !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: want an error that says %q, got %v: equal addresses would not be told apart", name, row.says, err)
		}
	}
}

func TestClaims_AreAllThatIsNotShared(t *testing.T) {
	const mount = "alice_cluster/pki/k8s"
	fqdn := grant.Claim{Under: "alice_cluster", Text: "ip-10-1-1-4.ec2.internal"}
	at := func(texts ...string) []grant.Claim {
		out := []grant.Claim{fqdn}
		for _, text := range texts {
			out = append(out, grant.Claim{Under: mount, Text: text})
		}
		return out
	}
	asMaster := func(fs fstest.MapFS) {
		second(strings.Replace(masterProfile, "role/alice-master", "role/alice-worker", 1))(fs)
		delete(fs, "worker/profile.yaml")
	}
	for name, row := range map[string]struct {
		change func(fstest.MapFS)
		want   []grant.Claim
	}{
		"names, common name and addresses": {nil, at("10.1.1.4", "ip-10-1-1-4.ec2.internal", "system:node:ip-10-1-1-4.ec2.internal")},
		"derived names, and no literal, shared or service's": {asMaster,
			at("10.1.1.4", "etcd-ip-10-1-1-4.ec2.internal", "ip-10-1-1-4.ec2.internal")},
		"a common name that is shared": {replace("worker/profile.yaml", `common_name: "system:node:{{ .FQDN }}"`, `common_name: "nodes of {{ .Region }}", shared_common_name: true`),
			at("10.1.1.4", "ip-10-1-1-4.ec2.internal")},
		"addresses within their VPC": {both(replace("worker/profile.yaml", "base_path:", "overlapping_addresses: true\nbase_path:"), replace("worker/profile.yaml", "match: {", "match: {vpc_ids: [vpc-0a1b2c3d], ")),
			at("10.1.1.4@vpc-0a1b2c3d", "ip-10-1-1-4.ec2.internal", "system:node:ip-10-1-1-4.ec2.internal")},
		"none of a role that no policy gives access to": {replace("worker/policy.hcl.tmpl", `{{ pkiAccess "kubelet" }}`, ""),
			at("ip-10-1-1-4.ec2.internal", "system:node:ip-10-1-1-4.ec2.internal")},
	} {
		fs := files()
		if row.change != nil {
			row.change(fs)
		}
		g, err := render(t, fs, baseline())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.Equal(g.Claims, row.want) {
			t.Errorf("%s: got %v\nwant %v: what is not claimed, another instance can hold as well", name, g.Claims, row.want)
		}
		if g.CertificateTTL != 24*time.Hour {
			t.Errorf("%s: want certificates good for the role's max_ttl of 24h, got %s", name, g.CertificateTTL)
		}
	}
}

func TestClaims_PastOneTransactionAreRefusedWithTheirNumber(t *testing.T) {
	f := baseline()
	for last := byte(1); last < 120; last++ {
		f.IPv4s = append(f.IPv4s, netipFrom(10, 1, 2, last))
	}
	if _, err := render(t, files(), f); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "123 names and addresses") {
		t.Errorf("want the instance refused with the number, since half of them claimed is none, got %v", err)
	}
}

// No tag, and no address that an instance was given, makes an instance hold what another profile, or its own, keeps for its
// instances.
func TestName_OfAnotherProfileIsRefused(t *testing.T) {
	for name, row := range map[string]struct {
		master string // what is changed in the other profile: old, new
		with   string
		tag    string
		says   string // empty: it is granted
	}{
		"a free name":                          {tag: "db1.corp.example"},
		"a shared name":                        {tag: "api.corp.example", says: "stands in profile alice_cluster-master"},
		"a shared name made from a value":      {tag: "us-east-1.api.corp.example", says: "has the form of a name that profile alice_cluster-master"},
		"a literal name":                       {master: "localhost]", with: "vault.corp.example]", tag: "vault.corp.example", says: "stands in profile"},
		"a literal FQDN":                       {master: `fqdn: "{{ .PrivateDNSName }}"`, with: "fqdn: m1.corp.example", tag: "m1.corp.example", says: "stands in profile"},
		"a derived name":                       {tag: "etcd-ip-10-0-0-1.corp.example", says: "has the form"},
		"a derived name of a domain":           {master: "etcd-{{ .FQDN }}", with: "{{ .InstanceID }}.corp.example", tag: "i-0123456789abcdef1.corp.example", says: "has the form"},
		"not that form, in the same domain":    {master: "etcd-{{ .FQDN }}", with: "{{ .InstanceID }}.corp.example", tag: "i-x.corp.example"},
		"a name that AWS gives":                {master: "etcd-{{ .FQDN }}", with: "etcd-x.{{ .FQDN }}", tag: "ip-10-0-0-1.corp.example", says: "has the form"},
		"what the other's tags may make too":   {master: `fqdn: "{{ .PrivateDNSName }}"`, with: "fqdn: '{{ .Tag \"role\" }}-{{ .Tag \"n\" }}.corp.example'\nfqdn_suffixes: [corp.example]", tag: "n-1.corp.example"},
		"what it derives from its tags":        {master: `fqdn: "{{ .PrivateDNSName }}"`, with: "fqdn: '{{ .Tag \"n\" }}.corp.example'\nfqdn_suffixes: [corp.example]", tag: "etcd-1.corp.example", says: "has the form"},
		"a shared name beside much fixed text": {master: `"{{ .Region }}.api.corp.example"`, with: `"api.{{ .Region }}.corp.example"`, tag: "api.us-east-1.corp.example", says: "has the form"},
		"a shared name of a function":          {master: `"{{ .Region }}.api.corp.example"`, with: `"{{ replace \"-\" \"\" .Region }}.corp.example"`, tag: "useast1.corp.example", says: "has the form"},
		"a shared name with the deployment":    {master: `"{{ .Region }}.api.corp.example"`, with: `"{{ .Deployment }}.corp.example"`, tag: "vaultec.corp.example", says: "has the form"},
		"an FQDN that a function makes":        {master: `fqdn: "{{ .PrivateDNSName }}"`, with: `fqdn: '{{ trimSuffix ".ec2.internal" .PrivateDNSName }}.corp.example'`, tag: "ip-10-0-0-9.corp.example", says: "has the form"},
		"an FQDN of an address":                {master: `fqdn: "{{ .PrivateDNSName }}"`, with: `fqdn: 'm-{{ replace "." "-" .InternalIPv4 }}.corp.example'`, tag: "m-10-0-0-9.corp.example", says: "has the form"},
		"the same form as the other's":         {master: `fqdn: "{{ .PrivateDNSName }}"`, with: "fqdn: '{{ .Tag \"name\" }}'\nfqdn_suffixes: [corp.example]", tag: "db1.corp.example"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := files()
			tagged(fs)
			second(strings.Replace(masterProfile, row.master, row.with, 1))(fs)
			f := baseline()
			f.Tags["name"] = row.tag
			_, err := render(t, fs, f)
			if refused := fault.KindOf(err) == fault.Refuse && err != nil; refused != (row.says != "") || refused && !strings.Contains(err.Error(), row.says) {
				t.Errorf("tag %q: want an error that says %q, got %v", row.tag, row.says, err)
			}
		})
	}
	t.Run("a service's address", func(t *testing.T) {
		fs := files()
		second(masterProfile)(fs)
		f := baseline()
		f.IPv4s = append(f.IPv4s, netipFrom(10, 254, 0, 1))
		if _, err := render(t, fs, f); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "10.254.0.1 stands in profile alice_cluster-master") {
			t.Errorf("want an instance with the address of the cluster's API service refused, got %v", err)
		}
	})
	t.Run("a service's address in another spelling", func(t *testing.T) {
		fs := files()
		second(strings.Replace(masterProfile, "10.254.0.1", `"FD00:0:0::1"`, 1))(fs)
		f := baseline()
		f.IPv6s = append(f.IPv6s, netip.MustParseAddr("fd00::1"))
		if _, err := render(t, fs, f); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "fd00::1 stands in profile alice_cluster-master") {
			t.Errorf("want the address known however the profile spells it, got %v", err)
		}
	})
	t.Run("an address as common name", func(t *testing.T) {
		fs := files()
		both(tagged, replace("worker/profile.yaml", `"system:node:{{ .FQDN }}"`, `'{{ trimSuffix ".corp.example" .FQDN }}'`))(fs)
		f := baseline()
		f.Tags["name"] = "10.9.9.9.corp.example"
		if _, err := render(t, fs, f); fault.KindOf(err) != fault.Refuse {
			t.Errorf("want an address refused as a common name, got %v", err)
		}
	})
	t.Run("its own shared name", func(t *testing.T) {
		fs := files()
		both(tagged, replace("worker/profile.yaml", "type: pki-role,", "type: pki-role, shared_dns_names: [api.corp.example],"))(fs)
		f := baseline()
		f.Tags["name"] = "api.corp.example"
		if _, err := render(t, fs, f); fault.KindOf(err) != fault.Refuse {
			t.Errorf("want the name that all share refused as one instance's own: it would be claimed from the others, got %v", err)
		}
	})
}

func TestGenericObject_TakesPlainTagsOnly(t *testing.T) {
	fs := files()
	replace("worker/host.json.tmpl", "{{ .FQDN }}", `role/app-{{ .Tag "team" }}`)(fs)
	for value, granted := range map[string]bool{"storage": true, "a_b.c-1": true, "a/team-b/root": false, "web SUPERUSER": false, "a=b": false, "a:b": false, "a+b": false, "a@b": false} {
		f := baseline()
		f.Tags["team"] = value
		if _, err := render(t, fs, f); (err == nil) != granted || err != nil && fault.KindOf(err) != fault.Refuse {
			t.Errorf("tag %q: want granted %v, got %v: what a character means to an engine is not known", value, granted, err)
		}
	}
}

func TestPKIRole_WithoutAccessHoldsNoSharedNames(t *testing.T) {
	fs := files()
	both(replace("worker/profile.yaml", "type: pki-role,", "type: pki-role, shared_dns_names: [api.corp.example],"),
		replace("worker/policy.hcl.tmpl", `{{ pkiAccess "kubelet" }}`, ""))(fs)
	g, err := render(t, fs, baseline())
	if err != nil {
		t.Fatal(err)
	}
	role := g.Objects[1].Fields
	if domains, _ := role["allowed_domains"].([]string); slices.Contains(domains, "api.corp.example") || role["allow_ip_sans"] != false {
		t.Errorf("no policy lets anybody ask this role for the shared name or an address: want it to hold neither, got %v and addresses %v", domains, role["allow_ip_sans"])
	}
}

func TestAuthRole_BindsTheInstancesOwnRole(t *testing.T) {
	f := baseline()
	f.IAMRoleARN = "arn:aws:iam::123456789012:role/path/to/alice-worker"
	for kind, want := range map[string]map[string]any{
		"ec2": {"bound_iam_role_arn": []string{f.IAMRoleARN}, "bound_iam_principal_arn": []string{}, "resolve_aws_unique_ids": true},
		"iam": {"bound_iam_role_arn": []string{f.IAMRoleARN}, "bound_iam_principal_arn": []string{"arn:aws:iam::123456789012:role/alice-worker"}, "resolve_aws_unique_ids": false},
	} {
		fs := files()
		both(replace("worker/profile.yaml", "{token_ttl:", "{type: "+kind+", token_ttl:"), replace("worker/profile.yaml", "role/alice-worker", "role/*alice-worker"))(fs)
		g, err := render(t, fs, f)
		if err != nil {
			t.Fatal(err)
		}
		if differ := (grant.Object{Kind: grant.KindAuthRole, Fields: want}).Differences(g.AuthRole.Fields); len(differ) > 0 {
			t.Errorf("%s: %v differ: another role's session, or another role in the instance profile, could log in: %v", kind, differ, g.AuthRole.Fields)
		}
	}
	fs := files()
	both(replace("worker/profile.yaml", "{token_ttl:", "{type: iam, token_ttl:"), replace("worker/profile.yaml", `iam_role_arn: "arn:aws:iam::*:role/alice-worker"`, `iam_instance_profile_arn: "arn:aws:iam::*:instance-profile/alice-worker"`))(fs)
	f.IAMRoleARN = ""
	if _, err := render(t, fs, f); fault.KindOf(err) != fault.Refuse {
		t.Errorf("iam without a role has no principal to bind: want it refused, got %v", err)
	}
}

func netipFrom(a, b, c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{a, b, c, d}) }
