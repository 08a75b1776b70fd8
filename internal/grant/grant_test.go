package grant_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// The baseline: one profile, one instance, both right. Each test changes one thing.
const (
	baselineProfile = `name: alice_cluster-worker
match: {iam_role_arn: "arn:aws:iam::*:role/alice-worker"}
base_path: alice_cluster
fqdn: "{{ .PrivateDNSName }}"
auth: {token_ttl: 1h, token_max_ttl: 24h, bind_token_to_instance_ip: true}
outputs:
  - {name: node, type: policy, template: policy.hcl.tmpl}
  - {name: kubelet, type: pki-role, path: pki/k8s/roles, common_name: "system:node:{{ .FQDN }}", template: kubelet.json.tmpl}
  - {name: host, type: generic, path: ssh/roles, template: host.json.tmpl}
`
	baselinePolicy = `{{ pkiAccess "kubelet" }}
path "{{ .BasePath }}/kv/data/{{ .InstanceID }}" {
  capabilities = ["read"]
}
`
	baselineRole = `{"max_ttl": "24h", "organization": ["system:nodes"]}`
	baselineHost = `{"key_type": "ca", "allowed_domains": "{{ .FQDN }}"}`
)

func files() fstest.MapFS {
	return fstest.MapFS{
		"worker/profile.yaml":      {Data: []byte(baselineProfile)},
		"worker/policy.hcl.tmpl":   {Data: []byte(baselinePolicy)},
		"worker/kubelet.json.tmpl": {Data: []byte(baselineRole)},
		"worker/host.json.tmpl":    {Data: []byte(baselineHost)},
	}
}

func baseline() facts.Instance {
	return facts.Instance{
		ID: "i-0123456789abcdef0", State: facts.Running, Account: "123456789012", Region: "us-east-1",
		AvailabilityZone: "us-east-1a", VPCID: "vpc-0a1b2c3d", SubnetID: "subnet-0a1b2c3d", ImageID: "ami-0a1b2c3d", Type: "m5.large",
		PrivateDNSName:        "ip-10-1-1-4.ec2.internal",
		IPv4s:                 []netip.Addr{netip.MustParseAddr("10.1.1.4")},
		IAMInstanceProfileARN: "arn:aws:iam::123456789012:instance-profile/alice-worker",
		IAMRoleARN:            "arn:aws:iam::123456789012:role/alice-worker",
		LaunchTime:            time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		Tags:                  map[string]string{"team": "storage", "name": "db1.corp.example"},
	}
}

func load(fs fstest.MapFS) (*grant.Set, error) { return grant.Load(fs) }

func render(t *testing.T, fs fstest.MapFS, f facts.Instance) (*grant.Grant, error) {
	t.Helper()
	set, err := load(fs)
	if err != nil {
		t.Fatalf("the profile must load, so that the instance is what fails: %v", err)
	}
	p, err := set.Match(f)
	if err != nil || p == nil {
		t.Fatalf("the instance must match the profile: %v, %v", p, err)
	}
	return p.Render(f, grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"})
}

func replace(name, old, new string) func(fstest.MapFS) {
	return func(fs fstest.MapFS) {
		text := string(fs[name].Data)
		if !strings.Contains(text, old) {
			panic(fmt.Sprintf("%s does not hold %q", name, old))
		}
		fs[name] = &fstest.MapFile{Data: []byte(strings.Replace(text, old, new, 1))}
	}
}

func TestTheBaselineLoadsAndRenders(t *testing.T) {
	g, err := render(t, files(), baseline())
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, o := range g.All() {
		paths = append(paths, string(o.Kind)+" "+o.Path)
	}
	want := []string{
		"policy sys/policies/acl/ec2-i-0123456789abcdef0-node",
		"pki-role alice_cluster/pki/k8s/roles/i-0123456789abcdef0-kubelet",
		"generic alice_cluster/ssh/roles/i-0123456789abcdef0-host",
		"auth-role auth/aws/role/i-0123456789abcdef0",
	}
	if !slices.Equal(paths, want) {
		t.Errorf("the names are a contract with other people's scripts\ngot  %q\nwant %q", paths, want)
	}
	again, err := render(t, files(), baseline())
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range g.All() {
		if o.SHA256() != again.All()[i].SHA256() {
			t.Errorf("%s renders differently the second time: every event would write it anew", o.Path)
		}
	}
}

func TestAProfileThatErrsIsRefusedWhenItLoads(t *testing.T) {
	const profile, policy, role, host = "worker/profile.yaml", "worker/policy.hcl.tmpl", "worker/kubelet.json.tmpl", "worker/host.json.tmpl"
	for name, row := range map[string]struct {
		spoil func(fstest.MapFS)
		says  string
	}{
		"an unknown field":                       {replace(profile, "base_path:", "base_paths: x\nbase_path:"), "base_paths"},
		"an unknown field of an output":          {replace(profile, "{name: host,", "{nme: x, name: host,"), "nme"},
		"no match":                               {replace(profile, `{iam_role_arn: "arn:aws:iam::*:role/alice-worker"}`, "{regions: [us-east-1]}"), "iam_role_arn or iam_instance_profile_arn"},
		"a name without a cluster":               {replace(profile, "alice_cluster-worker", "worker"), "<cluster>-<role>"},
		"an account that is none":                {replace(profile, "match: {", "match: {account_ids: [\"12345\"], "), "neither an account ID nor a pattern"},
		"a pattern too long for an account":      {replace(profile, "match: {", "match: {account_ids: [\"123456789012*\"], "), "neither an account ID nor a pattern"},
		"an output name with a hyphen":           {replace(profile, "name: host", "name: ho-st"), "ho-st"},
		"an output name twice":                   {replace(profile, "name: host", "name: node"), "twice"},
		"a base path of Vault's own":             {replace(profile, "base_path: alice_cluster", "base_path: sys/policies"), "belongs to Vault itself"},
		"a base path that leaves itself":         {replace(profile, "base_path: alice_cluster", "base_path: alice/../sys"), "base_path"},
		"a base path with the claim's separator": {replace(profile, "base_path: alice_cluster", `base_path: "a#b"`), "base_path"},
		"a PKI role outside roles":               {replace(profile, "path: pki/k8s/roles", "path: pki/k8s/config"), "<PKI mount>/roles"},
		"an unknown type":                        {replace(profile, "type: generic", "type: secret"), "none of policy, pki-role, generic"},
		"a policy with a path":                   {replace(profile, "type: policy,", "type: policy, path: x,"), "neither path nor names"},
		"a generic object with names":            {replace(profile, "type: generic,", "type: generic, dns_names: [x],"), "no names"},
		"a missing template":                     {replace(profile, "host.json.tmpl", "gone.json.tmpl"), "gone.json.tmpl"},
		"a template outside its folder":          {replace(profile, "host.json.tmpl", "../x.tmpl"), "beside profile.yaml"},
		"a maximum below the TTL":                {replace(profile, "token_max_ttl: 24h", "token_max_ttl: 1m"), "shorter than token_ttl"},
		"the root policy as an extra":            {replace(profile, "bind_token", "extra_policies: [root], bind_token"), "root"},
		"another instance's policy as an extra":  {replace(profile, "bind_token", "extra_policies: [ec2-i-0123456789abcdef1-node], bind_token"), "generated policy"},
		"an unknown value":                       {replace(policy, ".InstanceID", ".InstanceId"), "InstanceId"},
		"an unknown value in a branch not taken": {replace(policy, "{{ pkiAccess", "{{ if false }}{{ .Nope }}{{ end }}{{ pkiAccess"), "Nope"},
		"a value inside range without $":         {replace(policy, "{{ pkiAccess", "{{ range .IPv4s }}{{ .FQDN }}{{ end }}{{ pkiAccess"), "$.FQDN"},
		"an unknown value inside else":           {replace(policy, "{{ pkiAccess", "{{ if true }}{{ else }}{{ $.Nope }}{{ end }}{{ pkiAccess"), "Nope"},
		"a field of a variable":                  {replace(policy, "{{ pkiAccess", "{{ $x := .FQDN }}{{ if false }}{{ $x.Nope }}{{ end }}{{ pkiAccess"), "has no fields"},
		"an unknown function":                    {replace(policy, "{{ .InstanceID }}", "{{ env \"HOME\" }}"), "env"},
		"a built-in that is not offered":         {replace(policy, "{{ .InstanceID }}", "{{ printf \"%s\" .InstanceID }}"), "printf"},
		"a tag without its key":                  {replace(policy, "{{ .InstanceID }}", "{{ .Tag }}"), ".Tag"},
		"a definition":                           {replace(policy, "{{ pkiAccess", `{{ define "x" }}{{ end }}{{ pkiAccess`), "not offered"},
		"pkiAccess to an output that is none":    {replace(policy, `pkiAccess "kubelet"`, `pkiAccess "other"`), "names no pki-role output"},
		"pkiAccess by a computed name":           {replace(policy, `pkiAccess "kubelet"`, `pkiAccess .FQDN`), "literal name"},
		"pkiAccess outside a policy":             {replace(host, "ca", `{{ pkiAccess "kubelet" }}`), "for policies"},
		"a name that is taken from a tag":        {replace(profile, `"system:node:{{ .FQDN }}"`, `"{{ .Tag \"name\" }}"`), "through fqdn"},
		"text that is no policy":                 {replace(policy, "capabilities", "capabilities capabilities"), "policy.hcl.tmpl"},
		"a JSON template that is none":           {replace(role, "{", "["), "kubelet.json.tmpl"},
		"something behind the JSON object":       {replace(role, "}", "}{}"), "behind the JSON object"},
		"a role field that Vault does not know":  {replace(role, "max_ttl", "maximum_ttl"), "unknown field"},
		"a role field of the lock":               {replace(role, `"max_ttl": "24h"`, `"allow_any_name": true`), "set by the program"},
		"a role field of another type":           {replace(role, `"24h"`, `["24h"]`), "max_ttl"},
		"Vault's own template marks":             {replace(policy, "kv/data/{{ .InstanceID }}", `{{ "{{" }}identity.entity.id}}`), "{{ or }}"},
		"Vault's own template marks, escaped":    {replace(policy, "kv/data/{{ .InstanceID }}", `\x7b\x7bidentity.entity.id\x7d\x7d`), "{{ or }}"},
		"the dot itself":                         {replace(policy, "{{ .InstanceID }}", "{{ . }}"), "stands for all values"},
		"the dollar itself":                      {replace(policy, "{{ .InstanceID }}", "{{ range .IPv4s }}{{ $ }}{{ end }}"), "stands for all values"},
		"a range over a number":                  {replace(policy, "{{ .InstanceID }}", "{{ range 1000000000 }}x{{ end }}"), "range goes over .IPv4s or .IPv6s"},
		"a range over a number in brackets":      {replace(policy, "{{ .InstanceID }}", "{{ range (300000000) }}{{ end }}"), "range goes over .IPv4s or .IPv6s"},
		"a tag that decides a branch":            {replace(policy, "{{ pkiAccess", `{{ if eq (.Tag "team") "root" }}# x{{ end }}{{ pkiAccess`), "no branch hangs on a tag"},
		"a tag that decides in a variable":       {replace(policy, "{{ pkiAccess", `{{ $t := .Tag "team" }}{{ if eq $t "root" }}# x{{ end }}{{ pkiAccess`), "not kept in a variable"},
		"a tag that decides by with":             {replace(policy, "{{ pkiAccess", `{{ with .Tag "team" }}# {{ . }}{{ end }}{{ pkiAccess`), "no branch hangs on a tag"},
		"a tag compared and printed":             {replace(host, "ca", `{{ eq (.Tag "team") "root" }}`), "says nothing about a tag"},
		"a tag as an organization":               {replace(role, "system:nodes", `{{ .Tag "team" }}`), "no tag may stand in a certificate"},
		"a negative duration":                    {replace(role, `"24h"`, `"-1h"`), "max_ttl"},
		"a PKI role as a generic object":         {replace(host, `"key_type"`, `"allow_any_name": true, "key_type"`), "use type pki-role"},
		"a generic object in KV version 2":       {replace(profile, "path: ssh/roles", "path: kv/data/hosts"), "KV engine"},
		"a second document":                      {replace(profile, "name: alice_cluster-worker", "name: alice_cluster-worker\n---\nname: x"), "second document"},
		"a client style that is none":            {replace(profile, "base_path:", "client_style: chatty\nbase_path:"), "client_style"},
		"a shared name from a tag":               {replace(profile, "template: kubelet.json.tmpl", `shared_dns_names: ["{{ .Tag \"name\" }}"], template: kubelet.json.tmpl`), "through fqdn"},
		"an empty pattern for a tag":             {replace(profile, "{iam_role_arn:", `{tags: {a: ""}, iam_role_arn:`), "can never match"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := files()
			row.spoil(fs)
			_, err := load(fs)
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Fatalf("want an error that says %q, got %v", row.says, err)
			}
			if !strings.Contains(err.Error(), "worker/") {
				t.Errorf("the error must name the profile's file: %v", err)
			}
		})
	}
}

func TestAPolicyTemplateThatReachesTooFarIsRefusedWhenItLoads(t *testing.T) {
	for name, row := range map[string]struct{ block, says string }{
		"sudo":                                {`path "alice_cluster/kv/x" { capabilities = ["sudo"] }`, "sudo"},
		"no capabilities":                     {`path "alice_cluster/kv/x" { }`, "no capabilities"},
		"the old policy key":                  {`path "alice_cluster/kv/x" { policy = "write" }`, "unknown key"},
		"sys":                                 {`path "sys/mounts" { capabilities = ["read"] }`, "outside the base path"},
		"auth":                                {`path "auth/aws/role/i-0123456789abcdef1" { capabilities = ["update"] }`, "outside the base path"},
		"identity":                            {`path "identity/entity/id/*" { capabilities = ["delete"] }`, "outside the base path"},
		"another cluster":                     {`path "bob_cluster/kv/x" { capabilities = ["read"] }`, "outside the base path"},
		"a cluster whose name goes on":        {`path "alice_cluster2/kv/x" { capabilities = ["read"] }`, "outside the base path"},
		"a glob in place of the base path":    {`path "+/kv/x" { capabilities = ["read"] }`, "outside the base path"},
		"everything":                          {`path "*" { capabilities = ["read"] }`, "outside the base path"},
		"up and out":                          {`path "alice_cluster/../sys/x" { capabilities = ["read"] }`, "dot segment"},
		"issuing without a parameter list":    {`path "alice_cluster/pki/k8s/issue/any" { capabilities = ["update"] }`, "pkiAccess"},
		"issuing by a glob":                   {`path "alice_cluster/pki/*" { capabilities = ["update"] }`, "pkiAccess"},
		"issuing by a segment":                {`path "alice_cluster/+/k8s/issue/any" { capabilities = ["update"] }`, "pkiAccess"},
		"issuing by two segments":             {`path "alice_cluster/+/+/issue/any" { capabilities = ["update"] }`, "pkiAccess"},
		"issuing by half a name":              {`path "alice_cluster/pk*" { capabilities = ["update"] }`, "pkiAccess"},
		"the whole base path":                 {`path "alice_cluster/*" { capabilities = ["read"] }`, "pkiAccess"},
		"sign-verbatim":                       {`path "alice_cluster/pki/k8s/sign-verbatim" { capabilities = ["update"] }`, "past every role"},
		"sign-verbatim on any mount":          {`path "alice_cluster/legacy/sign-verbatim/x" { capabilities = ["update"] }`, "past every role"},
		"a wildcard inside a parameter value": {`path "alice_cluster/ssh/sign/x" { capabilities = ["update"] allowed_parameters = { "valid_principals" = ["host-*"] } }`, "holds a wildcard"},
		"a wildcard that is none to Vault":    {`path "alice_cluster/kv/+*" { capabilities = ["read"] }`, "no wildcard"},
		"writing a PKI role":                  {`path "alice_cluster/pki/k8s/roles/x" { capabilities = ["update"] }`, "pkiAccess"},
		"writing what may only be read":       {`path "alice_cluster/pki/k8s/cert/ca" { capabilities = ["update"] }`, "pkiAccess"},
		"more than its own token":             {`path "auth/token/lookup-self" { capabilities = ["read", "update"] }`, "only"},
		"a path twice":                        {`path "alice_cluster/kv/x" { capabilities = ["read"] }` + "\n" + `path "alice_cluster/kv/x" { capabilities = ["list"] }`, "twice"},
		"a key twice":                         {`path "alice_cluster/kv/x" { capabilities = ["read"]` + "\n" + `capabilities = ["list"] }`, "already set"},
		"a block that is no path":             {`name = "x"`, "only blocks"},
		"its own lock, loosened":              {`path "alice_cluster/pki/k8s/issue/i-00000000000000000-kubelet" { capabilities = ["update"] }`, "pki"},
		"a minimum of subscribe capability":   {`path "alice_cluster/kv/x" { capabilities = ["subscribe"] }`, "subscribe"},
		"an unquoted path, as no policy has":  {`path alice_cluster { capabilities = ["read"] }`, "path"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := files()
			fs["worker/policy.hcl.tmpl"] = &fstest.MapFile{Data: []byte(row.block)}
			if _, err := load(fs); err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), "policy.hcl.tmpl") {
				t.Errorf("want an error that names the file and says %q, got %v", row.says, err)
			}
		})
	}
}

func TestNestedJSONAndParametersAreNoTemplateMarks(t *testing.T) {
	fs := files()
	fs["worker/host.json.tmpl"] = &fstest.MapFile{Data: []byte(`{"data":{"a":{"b":"c"}}}`)}
	fs["worker/policy.hcl.tmpl"] = &fstest.MapFile{Data: []byte(`path "alice_cluster/kv/x" { capabilities = ["update"] allowed_parameters = {"a" = []}}`)}
	if _, err := load(fs); err != nil {
		t.Error(err)
	}
}

func TestAFaultInAPolicyTemplateIsNamedByFileLineAndRule(t *testing.T) {
	fs := files()
	fs["worker/policy.hcl.tmpl"] = &fstest.MapFile{Data: []byte(`# line 1
{{ pkiAccess "kubelet" }}

path "alice_cluster/kv/x" {
  capabilities = ["read"]
}
path "sys/mounts" {
  capabilities = ["read"]
}
`)}
	_, err := load(fs)
	if err == nil || !strings.Contains(err.Error(), "worker/policy.hcl.tmpl:7: ") || !strings.Contains(err.Error(), `lies outside the base path "alice_cluster"`) {
		t.Errorf("want file, line 7 of the template and the rule, got %v", err)
	}
}

func TestACompleteClientsEmptyFieldsAreLetInAndNothingButEmpty(t *testing.T) {
	fs := files()
	replace("worker/profile.yaml", "base_path:", "client_style: complete\nbase_path:")(fs)
	g, err := render(t, fs, baseline())
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(g.Objects[0].Fields["policy"])
	for _, line := range []string{`"uri_sans" = [""]`, `"not_after" = [""]`, `"serial_number" = [""]`, `"ip_sans" = ["10.1.1.4", ""]`, `"exclude_cn_from_sans" = [true, false, "true", "false"]`} {
		if strings.Count(text, line) != 2 {
			t.Errorf("want %s for issue and for sign, got\n%s", line, text)
		}
	}
}

func TestASharedNameIsForEveryInstanceOfTheProfile(t *testing.T) {
	fs := files()
	replace("worker/profile.yaml", "template: kubelet.json.tmpl", "shared_dns_names: [api.corp.example], template: kubelet.json.tmpl")(fs)
	for _, last := range []string{"4", "5"} {
		f := baseline()
		f.PrivateDNSName = "ip-10-1-1-" + last + ".ec2.internal"
		g, err := render(t, fs, f)
		if err != nil {
			t.Fatal(err)
		}
		want := `"alt_names" = ["api.corp.example", "` + f.PrivateDNSName + `", "api.corp.example,` + f.PrivateDNSName + `"]`
		if text := fmt.Sprint(g.Objects[0].Fields["policy"]); strings.Count(text, want) != 2 {
			t.Errorf("want %s, got\n%s", want, text)
		}
		if domains := g.Objects[1].Fields["allowed_domains"].([]string); !slices.Contains(domains, "api.corp.example") {
			t.Errorf("the PKI role lets in %v", domains)
		}
	}
}

func TestWhatATokenNeedsForItselfIsLetIn(t *testing.T) {
	fs := files()
	fs["worker/policy.hcl.tmpl"] = &fstest.MapFile{Data: []byte(`path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "alice_cluster/pki/k8s/cert/ca" { capabilities = ["read"] }
path "alice_cluster/pki/k8s/*" { capabilities = ["deny"] }
path "alice_cluster/kv/+/shared/*" { capabilities = ["read", "list"] }
`)}
	if _, err := load(fs); err != nil {
		t.Error(err)
	}
}

func TestAGenericObjectCannotBeWrittenIntoAPKIMount(t *testing.T) {
	fs := files()
	replace("worker/profile.yaml", "path: ssh/roles", "path: pki/k8s/roles")(fs)
	if _, err := load(fs); err == nil || !strings.Contains(err.Error(), "use type pki-role") {
		t.Errorf("a generic object would carry no lock; want it refused, got %v", err)
	}
}

func TestAnotherProfilesPKIMountIsOutOfReachToo(t *testing.T) {
	fs := files()
	second := strings.NewReplacer("alice_cluster-worker", "alice_cluster-etcd", "role/alice-worker", "role/alice-etcd", "pki/k8s", "pki/etcd").Replace(baselineProfile)
	fs["etcd/profile.yaml"] = &fstest.MapFile{Data: []byte(second)}
	for _, f := range []string{"policy.hcl.tmpl", "kubelet.json.tmpl", "host.json.tmpl"} {
		fs["etcd/"+f] = fs["worker/"+f]
	}
	if _, err := load(fs); err != nil {
		t.Fatal(err)
	}
	fs["etcd/policy.hcl.tmpl"] = &fstest.MapFile{Data: []byte(`path "alice_cluster/pki/k8s/issue/x" { capabilities = ["update"] }`)}
	if _, err := load(fs); err == nil || !strings.Contains(err.Error(), "reaches the PKI mount") {
		t.Errorf("want the worker's PKI mount closed to the etcd profile, got %v", err)
	}
}

func TestEveryFaultOfEveryProfileIsReportedAtOnce(t *testing.T) {
	fs := files()
	replace("worker/profile.yaml", "fqdn:", "fqnd:")(fs)
	fs["broken/profile.yaml"] = &fstest.MapFile{Data: []byte("name: x")}
	_, err := load(fs)
	for _, part := range []string{"worker/profile.yaml", "broken/profile.yaml", "fqnd", "base_path", "outputs"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("want all faults in one error, %q is missing: %v", part, err)
		}
	}
}

func TestAnInstanceThatMatchesTwoProfilesIsRefusedNamingBoth(t *testing.T) {
	fs := files()
	for name, f := range files() {
		fs[strings.Replace(name, "worker/", "other/", 1)] = f
	}
	replace("other/profile.yaml", "alice_cluster-worker", "alice_cluster-other")(fs)
	set, err := load(fs)
	if err != nil {
		t.Fatal(err)
	}
	_, err = set.Match(baseline())
	if fault.KindOf(err) != fault.Refuse || !strings.Contains(fmt.Sprint(err), "alice_cluster-worker") || !strings.Contains(fmt.Sprint(err), "alice_cluster-other") {
		t.Errorf("want a refusal that names both profiles, got %v", err)
	}
}

func TestAMatchHoldsOnlyWhenAllOfItDoes(t *testing.T) {
	for name, row := range map[string]struct {
		match  string
		change func(*facts.Instance)
		want   bool
	}{
		"the role by a glob":                      {`iam_role_arn: "arn:aws:iam::*:role/alice-worker"`, nil, true},
		"another role":                            {`iam_role_arn: "arn:aws:iam::*:role/alice-work"`, nil, false},
		"a role that only ends like it":           {`iam_role_arn: "role/alice-worker"`, nil, false},
		"an instance without a role":              {`iam_role_arn: "*"`, func(f *facts.Instance) { f.IAMRoleARN = "" }, false},
		"the instance profile":                    {`iam_instance_profile_arn: "*:instance-profile/alice-*"`, nil, true},
		"an account in the list":                  {`iam_role_arn: "*", account_ids: ["123456789012", "000000000000"]`, nil, true},
		"an account not in the list":              {`iam_role_arn: "*", account_ids: ["000000000000"]`, nil, false},
		"an account by a glob":                    {`iam_role_arn: "*", account_ids: ["1234*"]`, nil, true},
		"an account that no glob fits":            {`iam_role_arn: "*", account_ids: ["1235*", "*13"]`, nil, false},
		"a region by a glob":                      {`iam_role_arn: "*", regions: ["eu-*", "us-*"]`, nil, true},
		"a region not in the list":                {`iam_role_arn: "*", regions: ["eu-*"]`, nil, false},
		"a VPC not in the list":                   {`iam_role_arn: "*", vpc_ids: [vpc-00000000]`, nil, false},
		"a tag":                                   {`iam_role_arn: "*", tags: {team: stor*}`, nil, true},
		"a tag that is missing":                   {`iam_role_arn: "*", tags: {owner: "*"}`, nil, false},
		"a tag of another value":                  {`iam_role_arn: "*", tags: {team: compute}`, nil, false},
		"a dot is a dot, not any character":       {`iam_role_arn: "arn:aws:iam::123456789012:role/alice.worker"`, nil, false},
		"a newline does not end the value early":  {`iam_role_arn: "*", tags: {team: storage}`, func(f *facts.Instance) { f.Tags["team"] = "storage\nx" }, false},
		"two conditions of which one does not do": {`iam_role_arn: "*", iam_instance_profile_arn: "other"`, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			fs := files()
			replace("worker/profile.yaml", `iam_role_arn: "arn:aws:iam::*:role/alice-worker"`, row.match)(fs)
			set, err := load(fs)
			if err != nil {
				t.Fatal(err)
			}
			f := baseline()
			if row.change != nil {
				row.change(&f)
			}
			p, err := set.Match(f)
			if err != nil || (p != nil) != row.want {
				t.Errorf("match {%s}: got %v, %v, want %v", row.match, p != nil, err, row.want)
			}
		})
	}
}

func TestAnInstanceWhoseValuesErrGetsNothing(t *testing.T) {
	fromTag := replace("worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, "fqdn: '{{ .Tag \"name\" }}'\nfqdn_suffixes: [corp.example]")
	inPath := replace("worker/policy.hcl.tmpl", "{{ .InstanceID }}", `{{ .Tag "team" }}`)
	inJSON := replace("worker/host.json.tmpl", "{{ .FQDN }}", `{{ .Tag "team" }}`)
	tag := func(key, value string) func(*facts.Instance) {
		return func(f *facts.Instance) { f.Tags[key] = value }
	}
	for name, row := range map[string]struct {
		spoil  func(fstest.MapFS)
		change func(*facts.Instance)
		kind   fault.Kind
		says   string
	}{
		"no DNS name yet":                      {nil, func(f *facts.Instance) { f.PrivateDNSName = "" }, fault.Retry, ".PrivateDNSName is empty"},
		"no address yet":                       {nil, func(f *facts.Instance) { f.IPv4s = nil }, fault.Retry, "no private address"},
		"an instance ID that is none":          {nil, func(f *facts.Instance) { f.ID = "i-x" }, fault.Refuse, "instance ID"},
		"an FQDN that is an address":           {fromTag, tag("name", "10.0.0.5"), fault.Refuse, "not a host name"},
		"an FQDN with a wildcard":              {fromTag, tag("name", "*.corp.example"), fault.Refuse, "only letters, digits"},
		"an FQDN with a space":                 {fromTag, tag("name", "a b.corp.example"), fault.Refuse, "RFC 1123"},
		"an FQDN with an empty label":          {fromTag, tag("name", "a..corp.example"), fault.Refuse, "RFC 1123"},
		"an FQDN outside its suffixes":         {fromTag, tag("name", "db1.evil.example"), fault.Refuse, "none of fqdn_suffixes"},
		"an FQDN that only ends like a suffix": {fromTag, tag("name", "db1.notcorp.example"), fault.Refuse, "none of fqdn_suffixes"},
		"the bare suffix itself":               {fromTag, tag("name", "corp.example"), fault.Refuse, "none of fqdn_suffixes"},
		"an FQDN of 300 characters":            {fromTag, tag("name", strings.Repeat("abcdefgh.", 27)+"corp.example"), fault.Refuse, "253"},
		"a missing tag":                        {inPath, func(f *facts.Instance) { delete(f.Tags, "team") }, fault.Refuse, `no tag "team"`},
		"an empty tag":                         {inPath, tag("team", ""), fault.Refuse, "is empty"},
		"a tag with a quote":                   {inPath, tag("team", `x" { capabilities = ["sudo"] } path "sys/*`), fault.Refuse, "only letters, digits"},
		"a tag with a newline":                 {inPath, tag("team", "x\npath"), fault.Refuse, `\n`},
		"a tag with braces":                    {inPath, tag("team", "{{identity.entity.id}}"), fault.Refuse, "only letters, digits"},
		"a tag with a comma":                   {inJSON, tag("team", "a,b"), fault.Refuse, "only letters, digits"},
		"a tag with a glob":                    {inPath, tag("team", "*"), fault.Refuse, "only letters, digits"},
		"a tag with an invisible character":    {inPath, tag("team", "a\u200bb"), fault.Refuse, `\u200b`},
		"a tag of 4 kB":                        {inPath, tag("team", strings.Repeat("a", 4096)), fault.Refuse, "more than 256"},
		"a tag that is a one-segment wildcard": {inPath, tag("team", "+"), fault.Refuse, "changes the structure"},
		"a tag that adds a segment":            {inPath, tag("team", "a/b"), fault.Refuse, "changes the structure"},
		"a tag that goes up":                   {inPath, tag("team", ".."), fault.Refuse, "dot segment"},
	} {
		t.Run(name, func(t *testing.T) {
			fs := files()
			if row.spoil != nil {
				row.spoil(fs)
			}
			f := baseline()
			row.change(&f)
			g, err := render(t, fs, f)
			if err == nil || fault.KindOf(err) != row.kind || !strings.Contains(err.Error(), row.says) {
				t.Fatalf("want an error of kind %s that says %q, got %v (kind %s), grant %v", row.kind, row.says, err, fault.KindOf(err), g)
			}
			if !strings.Contains(err.Error(), f.ID) || !strings.Contains(err.Error(), "alice_cluster-worker") {
				t.Errorf("the error must name instance and profile: %v", err)
			}
			if errors.Is(err, grant.ErrNotYet) != (row.kind == fault.Retry) {
				t.Errorf("only what is not known yet is worth another try: %v", err)
			}
		})
	}
}

func TestTheSameTagInItsPlaceIsLetIn(t *testing.T) {
	fs := files()
	replace("worker/policy.hcl.tmpl", "{{ .InstanceID }}", `{{ .Tag "team" }}`)(fs)
	g, err := render(t, fs, baseline())
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(g.Objects[0].Fields["policy"]); !strings.Contains(text, `path "alice_cluster/kv/data/storage"`) {
		t.Errorf("want the tag's value in the path, got %s", text)
	}
}

func TestAddressesAreRenderedInCanonicalFormOneByOneAndJoined(t *testing.T) {
	f := baseline()
	f.IPv6s = []netip.Addr{netip.MustParseAddr("2001:0db8:0:0:0:0:0:0005")}
	g, err := render(t, files(), f)
	if err != nil {
		t.Fatal(err)
	}
	want := `"ip_sans" = ["10.1.1.4", "2001:db8::5", "10.1.1.4,2001:db8::5"]`
	if text := fmt.Sprint(g.Objects[0].Fields["policy"]); strings.Count(text, want) != 2 {
		t.Errorf("Vault compares addresses as text: want %s for issue and sign, got\n%s", want, text)
	}
}

func TestARoleWithoutAddressesDoesNotLetTheParameterIn(t *testing.T) {
	fs := files()
	replace("worker/profile.yaml", `template: kubelet.json.tmpl`, `ip_addresses: [], template: kubelet.json.tmpl`)(fs)
	g, err := render(t, fs, baseline())
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprint(g.Objects[0].Fields["policy"]); strings.Contains(text, "ip_sans") {
		t.Errorf("an empty list would let every address in; the parameter must be absent:\n%s", text)
	}
	if g.Objects[1].Fields["allow_ip_sans"] != false {
		t.Error("the PKI role must not allow addresses")
	}
}

func TestTheAuthRoleIsBoundToTheInstanceWhateverTheProfile(t *testing.T) {
	for _, kind := range []string{"ec2", "iam"} {
		fs := files()
		replace("worker/profile.yaml", "auth: {", "auth: {type: "+kind+", ")(fs)
		g, err := render(t, fs, baseline())
		if err != nil {
			t.Fatal(err)
		}
		for field, want := range map[string][]string{
			"bound_ec2_instance_id":          {"i-0123456789abcdef0"},
			"bound_account_id":               {"123456789012"},
			"bound_vpc_id":                   {"vpc-0a1b2c3d"},
			"bound_iam_instance_profile_arn": {"arn:aws:iam::123456789012:instance-profile/alice-worker"},
			"token_policies":                 {"ec2-i-0123456789abcdef0-node"},
			"token_bound_cidrs":              {"10.1.1.4"},
			"bound_ami_id":                   {}, // sent empty: an AWS auth role write merges
		} {
			if got, _ := g.AuthRole.Fields[field].([]string); !slices.Equal(got, want) || g.AuthRole.Fields[field] == nil {
				t.Errorf("auth type %s: %s is %v, want %v", kind, field, g.AuthRole.Fields[field], want)
			}
		}
	}
}

func TestDifferencesNormaliseBothSides(t *testing.T) {
	o := grant.Object{Kind: grant.KindPKIRole, Path: "x", Fields: map[string]any{
		"max_ttl": int64(3600), "allowed_domains": []string{"a", "b"}, "allow_any_name": false, "not_after": "", "key_bits": int64(0),
	}}
	for name, row := range map[string]struct {
		got  map[string]any
		want []string
	}{
		"the same":                            {map[string]any{"max_ttl": float64(3600), "allowed_domains": []any{"b", "a"}, "allow_any_name": false, "key_bits": float64(2048)}, nil},
		"a duration as text, a list as text":  {map[string]any{"max_ttl": "1h", "allowed_domains": "b,a", "allow_any_name": false}, nil},
		"one boolean loosened":                {map[string]any{"max_ttl": "1h", "allowed_domains": "b,a", "allow_any_name": true}, []string{"allow_any_name"}},
		"a name more, another time":           {map[string]any{"max_ttl": "2h", "allowed_domains": "a,b,c"}, []string{"allowed_domains", "max_ttl"}},
		"an expiry far away":                  {map[string]any{"max_ttl": "1h", "allowed_domains": "a,b", "not_after": "9999-12-31T23:59:59Z"}, []string{"not_after"}},
		"a boolean that is the string 'true'": {map[string]any{"max_ttl": "1h", "allowed_domains": "a,b", "allow_any_name": "true"}, []string{"allow_any_name"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := o.Differences(row.got); !slices.Equal(got, row.want) {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
}

func TestAGenericObjectsTextsAreComparedAsVaultReadsThem(t *testing.T) {
	o := grant.Object{Kind: grant.KindGeneric, Path: "x", Fields: map[string]any{"ttl": "1h", "users": "a,b", "note": "x", "none": ""}}
	for name, row := range map[string]struct {
		got  map[string]any
		want []string
	}{
		"a duration as a number, a list": {map[string]any{"ttl": json.Number("3600"), "users": []any{"b", "a"}, "note": "x"}, nil},
		"as they were written":           {map[string]any{"ttl": "1h", "users": "a,b", "note": "x", "none": ""}, nil},
		"another duration":               {map[string]any{"ttl": json.Number("3601"), "users": "a,b", "note": "x"}, []string{"ttl"}},
		"a number for a text":            {map[string]any{"ttl": "1h", "users": "a,b", "note": json.Number("0"), "none": json.Number("0")}, []string{"none", "note"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := o.Differences(row.got); !slices.Equal(got, row.want) {
				t.Errorf("got %v, want %v", got, row.want)
			}
		})
	}
}

func TestAPolicyIsComparedByItsMarkerAndItsRules(t *testing.T) {
	marker := grant.Marker{Deployment: "vault-ec2", InstanceID: "i-0123456789abcdef0", Profile: "a-b"}.String()
	text := marker + "\npath \"a\" {\n  capabilities = [\"read\", \"list\"]\n}\n\npath \"b\" { capabilities = [\"update\"]\n allowed_parameters = { x = [\"1\"] } }\n"
	o := grant.Object{Kind: grant.KindPolicy, Path: "x", Fields: map[string]any{"policy": text}}
	for name, row := range map[string]struct {
		got  string
		same bool
	}{
		"the same text":            {text, true},
		"in another layout":        {marker + `path "b" { allowed_parameters = { "x" = ["1"] } capabilities = ["update"] } path "a" { capabilities = ["list", "read"] } # end`, true},
		"one capability more":      {strings.Replace(text, `"list"`, `"list", "sudo"`, 1), false},
		"one rule more":            {text + `path "c" { capabilities = ["read"] }`, false},
		"one value more":           {strings.Replace(text, `["1"]`, `["1", "2"]`, 1), false},
		"another marker":           {strings.Replace(text, "vault-ec2\n", "other\n", 1), false},
		"no marker":                {strings.TrimPrefix(text, marker), false},
		"a rule that stands twice": {text + `path "a" { capabilities = ["read"] }`, false},
		"what does not parse":      {text + "path {", false},
		"nothing":                  {"", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := len(o.Differences(map[string]any{"policy": row.got})) == 0; got != row.same {
				t.Errorf("taken as the same: %v, want %v", got, row.same)
			}
		})
	}
}

func TestAMarkerIsReadFromTheLeadingCommentOnly(t *testing.T) {
	m := grant.Marker{Deployment: "vault-ec2", InstanceID: "i-0123456789abcdef0", Profile: "a-b"}
	for name, row := range map[string]struct {
		text string
		ok   bool
	}{
		"its own text":                  {m.String() + "\npath \"x\" {}", true},
		"with carriage returns":         {strings.ReplaceAll(m.String(), "\n", "\r\n"), true},
		"behind a rule":                 {"path \"x\" {}\n" + m.String(), false},
		"behind an empty line":          {"\n" + m.String(), false},
		"another program":               {strings.Replace(m.String(), grant.Program, "other", 1), false},
		"no deployment":                 {strings.Replace(m.String(), "# deployment: vault-ec2\n", "", 1), false},
		"two deployments":               {m.String() + "# deployment: other\n", false},
		"no text at all":                {"", false},
		"a deployment that is indented": {strings.Replace(m.String(), "# deployment", " # deployment", 1), false},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := grant.ParseMarker(row.text)
			if ok != row.ok || ok && got != m {
				t.Errorf("got %+v, %v, want ok %v: ownership decides what may be deleted", got, ok, row.ok)
			}
		})
	}
}

func FuzzNamesSplitBackIntoTheirPartsOneWayOnly(f *testing.F) {
	f.Add("i-0123456789abcdef0", "node")
	f.Add("i-01234567", "a_b")
	f.Add("ec2-i-01234567", "x")
	f.Fuzz(func(t *testing.T, id, output string) {
		gotID, gotOutput, ok := grant.SplitObjectName(grant.ObjectName(id, output))
		if ok && (grant.ObjectName(gotID, gotOutput) != strings.TrimPrefix(grant.ObjectName(id, output), "ec2-")) {
			t.Errorf("%q and %q make a name that splits into %q and %q", id, output, gotID, gotOutput)
		}
		if facts.IsInstanceID(id) && output != "" && strings.Trim(output, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && (!ok || gotID != id || gotOutput != output) {
			t.Errorf("%q and %q come back as %q and %q (%v)", id, output, gotID, gotOutput, ok)
		}
	})
}

func FuzzNoTagChangesTheStructureOfWhatIsRendered(f *testing.F) {
	for _, s := range []string{"storage", `x" {}`, "{{", "a/b", "+", "*", "..", "\x00", "\u202e", "a,b", "#", "${x}", `\"`} {
		f.Add(s)
	}
	fs := files()
	replace("worker/policy.hcl.tmpl", "{{ .InstanceID }}", `{{ .Tag "team" }}`)(fs)
	replace("worker/host.json.tmpl", "{{ .FQDN }}", `{{ .Tag "team" }}`)(fs)
	set, err := load(fs)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, tag string) {
		i := baseline()
		i.Tags["team"] = tag
		p, err := set.Match(i)
		if err != nil || p == nil {
			t.Fatal("the instance must match")
		}
		g, err := p.Render(i, grant.Realm{Deployment: "d", AuthMount: "aws"})
		if err != nil {
			return
		}
		text := fmt.Sprint(g.Objects[0].Fields["policy"])
		if strings.Count(text, "path ") != 3 || strings.Count(text, "capabilities") != 3 || !strings.Contains(text, `"alice_cluster/kv/data/`+tag+`"`) {
			t.Errorf("tag %q gave\n%s", tag, text)
		}
	})
}

func FuzzAMarkerIsNeverReadFromBehindTheLeadingComment(f *testing.F) {
	m := grant.Marker{Deployment: "vault-ec2", InstanceID: "i-0123456789abcdef0", Profile: "a-b"}.String()
	for _, s := range []string{"", m, "\n" + m, "path \"x\" {}\n" + m, m + m, "# a: b\n" + m, strings.ReplaceAll(m, "\n", "\r\n"), "#" + m, "# deployment: x\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := grant.ParseMarker(text)
		if !ok {
			return
		}
		// Only what leads the text may count: all else is the template's, and a template must not claim ownership.
		leading := text
		for i, line := range strings.SplitAfter(text, "\n") {
			if !strings.HasPrefix(line, "# ") {
				leading = strings.Join(strings.SplitAfter(text, "\n")[:i], "")
				break
			}
		}
		for _, part := range []string{"# managed-by: " + grant.Program, "# deployment: " + got.Deployment, "# instance: " + got.InstanceID, "# profile: " + got.Profile} {
			if strings.Count(leading, part) < 1 {
				t.Errorf("%q gave %+v, but %q does not lead it", text, got, part)
			}
		}
	})
}

func TestNoTwoSetsOfFieldsHaveOneDigest(t *testing.T) {
	seen := map[string]string{}
	for name, fields := range map[string]map[string]any{
		"nothing": {}, "a text": {"a": "1"}, "a number": {"a": int64(1)}, "another name": {"b": "1"}, "true": {"a": true}, "false": {"a": false},
		"a list of one": {"a": []string{"1"}}, "of two": {"a": []string{"1", "2"}}, "of one that looks like two": {"a": []string{"1,2"}}, "of one that is written like two": {"a": []string{"11:2"}},
		"no list": {"a": []string{}}, "two fields": {"a": "1", "b": "2"}, "one that is written like two": {"a": "11:bs1:2"}, "a list between": {"a": []string{"1"}, "b": "2"},
		"any JSON": {"a": []any{"1", true, 1.5}}, "other JSON": {"a": []any{"1", true, 2.5}}, "null": {"a": nil},
	} {
		digest := grant.Object{Fields: fields}.SHA256()
		if other, taken := seen[digest]; taken {
			t.Errorf("%s and %s have one digest: a change from one to the other would not be seen", name, other)
		}
		seen[digest] = name
		if again := (grant.Object{Fields: maps.Clone(fields)}).SHA256(); again != digest {
			t.Errorf("%s: two digests, %s and %s", name, digest, again)
		}
	}
}

func TestAProfileTellsWhichTagsItGoesBy(t *testing.T) {
	for name, row := range map[string]struct {
		change func(fstest.MapFS)
		want   bool
	}{
		"by none": {func(fstest.MapFS) {}, false},
		"by another": {func(f fstest.MapFS) {
			replaceIn(f, "worker/profile.yaml", "match: {", "match: {tags: {role: worker}, ")
		}, false},
		"it is matched by": {func(f fstest.MapFS) {
			replaceIn(f, "worker/profile.yaml", "match: {", "match: {tags: {identity: ready}, ")
		}, true},
		"it takes its name from": {func(f fstest.MapFS) {
			replaceIn(f, "worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, `fqdn: '{{ .Tag "identity" }}'`+"\nfqdn_suffixes: [alice.example]")
		}, true},
		"a template writes it": {func(f fstest.MapFS) {
			replaceIn(f, "worker/policy.hcl.tmpl", "{{ .InstanceID }}", `{{ .InstanceID }}-{{ .Tag "identity" }}`)
		}, true},
		"a template may": {func(f fstest.MapFS) {
			replaceIn(f, "worker/policy.hcl.tmpl", "{{ .InstanceID }}", `{{ .InstanceID }}-{{ .Tag .Region }}`)
		}, true},
	} {
		f := files()
		row.change(f)
		set, err := grant.Load(f)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := set.Profiles[0].UsesTag("identity"); got != row.want {
			t.Errorf("%s: the profile goes by the tag: %v, want %v", name, got, row.want)
		}
	}
}

func replaceIn(f fstest.MapFS, file, old, text string) {
	f[file] = &fstest.MapFile{Data: []byte(strings.Replace(string(f[file].Data), old, text, 1))}
}
