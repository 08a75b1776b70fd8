package grant_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

// The baseline is one profile and one instance without a fault. Each test changes one thing.
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

// filesWith returns the baseline's files with changes.
func filesWith(changes ...func(fstest.MapFS)) fstest.MapFS {
	fs := files()
	both(changes...)(fs)
	return fs
}

// loaded returns the set of profiles that must load, so that only the instance can fail.
func loaded(t *testing.T, fs fstest.MapFS) *grant.Set {
	t.Helper()
	set, err := grant.Load(fs)
	if err != nil {
		t.Fatalf("the profiles must load: %v", err)
	}
	return set
}

// wantFault fails unless the files are refused with an error that says all of these texts.
func wantFault(t *testing.T, fs fstest.MapFS, says ...string) {
	t.Helper()
	_, err := grant.Load(fs)
	for _, text := range says {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("want an error that says %q, got %v", text, err)
		}
	}
}

// rendered returns the grant of an instance that must get one.
func rendered(t *testing.T, fs fstest.MapFS, f facts.Instance) *grant.Grant {
	t.Helper()
	g, err := render(t, fs, f)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// policyOf returns the text of a grant's first policy.
func policyOf(g *grant.Grant) string { return fmt.Sprint(g.Objects[0].Fields["policy"]) }

func render(t *testing.T, fs fstest.MapFS, f facts.Instance) (*grant.Grant, error) {
	t.Helper()
	p, err := loaded(t, fs).Match(f)
	if err != nil || p == nil {
		t.Fatalf("the instance must match the profile: %v, %v", p, err)
	}
	return p.Render(f, grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"})
}

// replace returns a change of a file that replaces the first occurrence of old. It panics if there is none.
func replace(name, old, with string) func(fstest.MapFS) {
	return func(fs fstest.MapFS) {
		text := string(fs[name].Data)
		if !strings.Contains(text, old) {
			panic(fmt.Sprintf("%s does not contain %q", name, old))
		}
		fs[name] = &fstest.MapFile{Data: []byte(strings.Replace(text, old, with, 1))}
	}
}

// text returns a change of a file to this text.
func text(name, data string) func(fstest.MapFS) {
	return func(fs fstest.MapFS) { fs[name] = &fstest.MapFile{Data: []byte(data)} }
}

// tagged lets a tag choose the baseline's FQDN.
var tagged = replace("worker/profile.yaml", `fqdn: "{{ .PrivateDNSName }}"`, "fqdn: '{{ .Tag \"name\" }}'\nfqdn_suffixes: [corp.example]")

// both makes several changes.
func both(changes ...func(fstest.MapFS)) func(fstest.MapFS) {
	return func(fs fstest.MapFS) {
		for _, c := range changes {
			c(fs)
		}
	}
}

// second adds a profile to the baseline's, with the same templates.
func second(profile string) func(fstest.MapFS) {
	return func(fs fstest.MapFS) {
		fs["master/profile.yaml"] = &fstest.MapFile{Data: []byte(profile)}
		for _, file := range []string{"policy.hcl.tmpl", "kubelet.json.tmpl", "host.json.tmpl"} {
			fs["master/"+file] = fs["worker/"+file]
		}
	}
}

// masterProfile shares the baseline's PKI mount. Its certificates have each kind of name and address.
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

func netipFrom(a, b, c, d byte) netip.Addr { return netip.AddrFrom4([4]byte{a, b, c, d}) }
