package converge_test

import (
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/converge"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/ledger"
)

// A profile that takes its name from a tag, and one whose template uses an IPv4 address, meet an instance without them.
func TestLateValue_IsAwaitedThenRefused(t *testing.T) {
	const tagged = `{name: alice_cluster-worker, match: {iam_role_arn: "*/alice-worker"}, base_path: alice_cluster, auth: {token_ttl: 1h, token_max_ttl: 24h}, fqdn: '{{ .Tag "Name" }}', fqdn_suffixes: [ec2.internal],
		outputs: [{name: node, type: policy, template: policy.hcl.tmpl}]}`
	const addressed = `{name: alice_cluster-worker, match: {iam_role_arn: "*/alice-worker"}, base_path: alice_cluster, auth: {token_ttl: 1h, token_max_ttl: 24h}, fqdn: "{{ .PrivateDNSName }}",
		outputs: [{name: node, type: policy, template: policy.hcl.tmpl}]}`
	for name, row := range map[string]struct {
		profile, policy string
		lack, come      func(*facts.Instance)
		says            string
	}{
		"the tag of the name": {
			tagged, `path "alice_cluster/kv/data/{{ .FQDN }}" { capabilities = ["read"] }`,
			func(*facts.Instance) {}, func(f *facts.Instance) { f.Tags = map[string]string{"Name": "a.ec2.internal"} }, `no tag "Name": set it`,
		},
		"the tag of the name, still empty": {
			tagged, `path "alice_cluster/kv/data/{{ .FQDN }}" { capabilities = ["read"] }`,
			func(f *facts.Instance) { f.Tags = map[string]string{"Name": ""} },
			func(f *facts.Instance) { f.Tags = map[string]string{"Name": "a.ec2.internal"} }, `the tag "Name" of instance ` + idA + " is empty: give it a value",
		},
		"the tag of a template": {
			addressed, `path "alice_cluster/kv/data/{{ .Tag "team" }}" { capabilities = ["read"] }`,
			func(*facts.Instance) {}, func(f *facts.Instance) { f.Tags = map[string]string{"team": "storage"} }, `no tag "team": set it`,
		},
		"an IPv4 address": {
			addressed, `path "alice_cluster/kv/data/{{ .InternalIPv4 }}" { capabilities = ["read"] }`,
			func(f *facts.Instance) { f.IPv4s, f.IPv6s = nil, []netip.Addr{netip.MustParseAddr("2001:db8::4")} },
			func(f *facts.Instance) { f.IPv4s = []netip.Addr{netip.MustParseAddr("10.1.1.4")} }, "IPv6-only instance one with .IPv6s",
		},
	} {
		set, err := grant.Load(fstest.MapFS{
			"w/profile.yaml": {Data: []byte(row.profile)}, "w/policy.hcl.tmpl": {Data: []byte(row.policy)},
		})
		if err != nil {
			t.Fatal(err)
		}
		w, c := launched(t, mayMake, func(o *converge.Options) { o.Profiles = set })
		w.show(idA, func(f *facts.Instance) { f.LaunchTime = start; row.lack(f) })
		running := w.event(idA, facts.Running)
		w.wantFault(c, running, fault.Retry, name+": a launch hook is held by heartbeats while it is retried", row.says)
		w.pass(converge.LateTime - time.Second)
		w.wantFault(c, running, fault.Retry, name+": it may still come", row.says)
		if len(w.Records) != 0 {
			t.Errorf("%s: want nothing recorded while it may still come, got %+v", name, w.Records)
		}
		w.pass(time.Second)
		w.wantFault(c, running, fault.Refuse, name+": it did not come", row.says, "until 5m0s after the start")
		if r := w.Records[idA]; r.State != ledger.Refused || !strings.Contains(r.LastError, row.says) {
			t.Errorf("%s: want the refusal recorded with its reason, got %+v", name, r)
		}
		w.show(idA, row.come)
		w.must(c, idA, facts.Pending, converge.Provisioned) // as by the event of a changed tag
	}
}
