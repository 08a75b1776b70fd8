package grant_test

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
)

func TestClaims_CoverEverythingUnshared(t *testing.T) {
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
		"names, common name and addresses": {both(), at("10.1.1.4", "ip-10-1-1-4.ec2.internal", "system:node:ip-10-1-1-4.ec2.internal")},
		"derived names, and no fixed or shared ones": {asMaster,
			at("10.1.1.4", "etcd-ip-10-1-1-4.ec2.internal", "ip-10-1-1-4.ec2.internal")},
		"a common name that is shared": {replace("worker/profile.yaml", `common_name: "system:node:{{ .FQDN }}"`, `common_name: "nodes of {{ .Region }}", shared_common_name: true`),
			at("10.1.1.4", "ip-10-1-1-4.ec2.internal")},
		"addresses within their VPC": {both(replace("worker/profile.yaml", "base_path:", "overlapping_addresses: true\nbase_path:"), replace("worker/profile.yaml", "match: {", "match: {vpc_ids: [vpc-0a1b2c3d], ")),
			at("10.1.1.4@vpc-0a1b2c3d", "ip-10-1-1-4.ec2.internal", "system:node:ip-10-1-1-4.ec2.internal")},
		"no address of a role without pkiAccess": {replace("worker/policy.hcl.tmpl", `{{ pkiAccess "kubelet" }}`, ""),
			at("ip-10-1-1-4.ec2.internal", "system:node:ip-10-1-1-4.ec2.internal")},
	} {
		g := rendered(t, filesWith(row.change), baseline())
		if !slices.Equal(g.Claims, row.want) {
			t.Errorf("%s: got %v\nwant %v: another instance can hold a name that is not claimed", name, g.Claims, row.want)
		}
		if g.CertificateTTL != 24*time.Hour {
			t.Errorf("%s: want a CertificateTTL of 24h, the role's max_ttl, got %s", name, g.CertificateTTL)
		}
	}
}

func TestClaims_BeyondOneTransactionAreRefused(t *testing.T) {
	f := baseline()
	for last := byte(1); last < 120; last++ {
		f.IPv4s = append(f.IPv4s, netipFrom(10, 1, 2, last))
	}
	if _, err := render(t, files(), f); fault.KindOf(err) != fault.Refuse || !strings.Contains(err.Error(), "123 names and addresses") {
		t.Errorf("want the instance refused with the number of its names, got %v", err)
	}
}
