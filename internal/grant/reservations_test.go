package grant_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// Neither a tag nor an address makes an instance hold a name that another profile, or its own, reserves.
func TestName_OfAnotherProfileIsRefused(t *testing.T) {
	for name, row := range map[string]struct {
		master string // the text of the other profile that with replaces
		with   string
		tag    string
		says   string // empty if the instance is granted
	}{
		"a free name":                          {tag: "db1.corp.example"},
		"a shared name":                        {tag: "api.corp.example", says: "is fixed in profile alice_cluster-master"},
		"a shared name made from a value":      {tag: "us-east-1.api.corp.example", says: "has the form of the names of profile alice_cluster-master"},
		"a literal name":                       {master: "localhost]", with: "vault.corp.example]", tag: "vault.corp.example", says: "is fixed in profile"},
		"a literal FQDN":                       {master: `fqdn: "{{ .PrivateDNSName }}"`, with: "fqdn: m1.corp.example", tag: "m1.corp.example", says: "is fixed in profile"},
		"a derived name":                       {tag: "etcd-ip-10-0-0-1.corp.example", says: "has the form"},
		"a derived name of a domain":           {master: "etcd-{{ .FQDN }}", with: "{{ .InstanceID }}.corp.example", tag: "i-0123456789abcdef1.corp.example", says: "has the form"},
		"another form in the same domain":      {master: "etcd-{{ .FQDN }}", with: "{{ .InstanceID }}.corp.example", tag: "i-x.corp.example"},
		"a name made by AWS":                   {master: "etcd-{{ .FQDN }}", with: "etcd-x.{{ .FQDN }}", tag: "ip-10-0-0-1.corp.example", says: "has the form"},
		"a name that its tags can make":        {master: `fqdn: "{{ .PrivateDNSName }}"`, with: "fqdn: '{{ .Tag \"role\" }}-{{ .Tag \"n\" }}.corp.example'\nfqdn_suffixes: [corp.example]", tag: "n-1.corp.example"},
		"a name derived from its tags":         {master: `fqdn: "{{ .PrivateDNSName }}"`, with: "fqdn: '{{ .Tag \"n\" }}.corp.example'\nfqdn_suffixes: [corp.example]", tag: "etcd-1.corp.example", says: "has the form"},
		"a shared name beside much fixed text": {master: `"{{ .Region }}.api.corp.example"`, with: `"api.{{ .Region }}.corp.example"`, tag: "api.us-east-1.corp.example", says: "has the form"},
		"a shared name made by a function":     {master: `"{{ .Region }}.api.corp.example"`, with: `"{{ replace \"-\" \"\" .Region }}.corp.example"`, tag: "useast1.corp.example", says: "has the form"},
		"a shared name with the deployment":    {master: `"{{ .Region }}.api.corp.example"`, with: `"{{ .Deployment }}.corp.example"`, tag: "vaultec.corp.example", says: "has the form"},
		"an FQDN made by a function":           {master: `fqdn: "{{ .PrivateDNSName }}"`, with: `fqdn: '{{ trimSuffix ".ec2.internal" .PrivateDNSName }}.corp.example'`, tag: "ip-10-0-0-9.corp.example", says: "has the form"},
		"an FQDN of an address":                {master: `fqdn: "{{ .PrivateDNSName }}"`, with: `fqdn: 'm-{{ replace "." "-" .InternalIPv4 }}.corp.example'`, tag: "m-10-0-0-9.corp.example", says: "has the form"},
		"the same form as the other's":         {master: `fqdn: "{{ .PrivateDNSName }}"`, with: "fqdn: '{{ .Tag \"name\" }}'\nfqdn_suffixes: [corp.example]", tag: "db1.corp.example"},
	} {
		t.Run(name, func(t *testing.T) {
			f := baseline()
			f.Tags["name"] = row.tag
			_, err := render(t, filesWith(tagged, second(strings.Replace(masterProfile, row.master, row.with, 1))), f)
			refused := err != nil && fault.KindOf(err) == fault.Refuse
			if refused != (row.says != "") || (refused && !strings.Contains(err.Error(), row.says)) {
				t.Errorf("tag %q: want an error that says %q, got %v", row.tag, row.says, err)
			}
		})
	}
	const shared = "type: pki-role, shared_dns_names: [api.corp.example],"
	named := func(tag string) func(*facts.Instance) { return func(f *facts.Instance) { f.Tags["name"] = tag } }
	for name, row := range map[string]struct {
		files  fstest.MapFS
		change func(*facts.Instance)
		says   string
	}{
		"a service's address": {
			filesWith(second(masterProfile)), func(f *facts.Instance) { f.IPv4s = append(f.IPv4s, netipFrom(10, 254, 0, 1)) },
			"10.254.0.1 is fixed in profile alice_cluster-master",
		},
		"a service's address in another spelling": {
			filesWith(second(strings.Replace(masterProfile, "10.254.0.1", `"FD00:0:0::1"`, 1))),
			func(f *facts.Instance) { f.IPv6s = append(f.IPv6s, netip.MustParseAddr("fd00::1")) },
			"fd00::1 is fixed in profile alice_cluster-master",
		},
		"an address as common name": {
			filesWith(tagged, replace("worker/profile.yaml", `"system:node:{{ .FQDN }}"`, `'{{ trimSuffix ".corp.example" .FQDN }}'`)), named("10.9.9.9.corp.example"), "",
		},
		"its own shared name": {filesWith(tagged, replace("worker/profile.yaml", "type: pki-role,", shared)), named("api.corp.example"), ""},
	} {
		f := baseline()
		row.change(&f)
		if _, err := render(t, row.files, f); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: want a refusal that says %q, got %v", name, row.says, err)
		}
	}
}
