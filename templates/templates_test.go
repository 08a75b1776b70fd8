package templates_test

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

var update = flag.Bool("update", false, "write what is rendered into testdata instead of comparing")

func TestProfile_RendersItsGoldenFile(t *testing.T) {
	set, err := grant.Load(templates.FS)
	if err != nil {
		t.Fatalf("the built-in profiles must load: %v", err)
	}
	for _, role := range []string{"etcd", "master", "worker"} {
		t.Run(role, func(t *testing.T) {
			instance := facts.Instance{
				ID: "i-0123456789abcdef0", State: facts.Running, Account: "123456789012", Region: "us-east-1",
				AvailabilityZone: "us-east-1a", VPCID: "vpc-0a1b2c3d", SubnetID: "subnet-0a1b2c3d",
				ImageID: "ami-0a1b2c3d4e5f60718", Type: "m5.large", PrivateDNSName: "ip-10-1-1-4.ec2.internal",
				IPv4s:                 []netip.Addr{netip.MustParseAddr("10.1.1.4"), netip.MustParseAddr("10.1.2.9")},
				IPv6s:                 []netip.Addr{netip.MustParseAddr("2001:db8:0:0::5")},
				IAMInstanceProfileARN: "arn:aws:iam::123456789012:instance-profile/alice-" + role,
				IAMRoleARN:            "arn:aws:iam::123456789012:role/alice-" + role,
				LaunchTime:            time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			}
			profile, err := set.Match(instance)
			if err != nil || profile == nil {
				t.Fatalf("an instance with role alice-%s must match one profile, got %v, %v", role, profile, err)
			}
			g, err := profile.Render(instance, grant.Realm{Deployment: "vault-ec2", AuthMount: "aws"})
			if err != nil {
				t.Fatal(err)
			}
			compare(t, role, textOf(g))
		})
	}
}

// The roles of another account may be in another partition, or have a path.
func TestProfiles_FitEveryPartitionAndPath(t *testing.T) {
	set, err := grant.Load(templates.FS)
	if err != nil {
		t.Fatal(err)
	}
	for arn, fits := range map[string]bool{
		"arn:aws:iam::123456789012:role/alice-%s":             true,
		"arn:aws-cn:iam::123456789012:role/alice-%s":          true,
		"arn:aws-us-gov:iam::123456789012:role/alice-%s":      true,
		"arn:aws:iam::123456789012:role/team/alice-%s":        true,
		"arn:aws-cn:iam::123456789012:role/a/b/alice-%s":      true,
		"arn:aws:iam::123456789012:role/malice-%s":            false,
		"arn:aws:iam::123456789012:role/team/malice-%s":       false,
		"arn:aws:iam::123456789012:role/alice-%s/x":           false,
		"arn:aws:iam::123456789012:role/alice-%s-x":           false,
		"arn:aws:iam::123456789012:instance-profile/alice-%s": false,
	} {
		for _, role := range []string{"etcd", "master", "worker"} {
			f := facts.Instance{ID: "i-0123456789abcdef0", VPCID: "vpc-0a1b2c3d", IAMRoleARN: strings.ReplaceAll(arn, "%s", role)}
			p, err := set.Match(f)
			if err != nil || (p != nil) != fits || (fits && p.Name != "alice_cluster-"+role) {
				t.Errorf("%s: want a profile: %v, got %v, %v", f.IAMRoleARN, fits, p, err)
			}
		}
	}
}

// textOf writes policies as their text and all else as JSON, for a person to review.
func textOf(g *grant.Grant) string {
	var out strings.Builder
	for _, o := range g.All() {
		out.WriteString("=== " + string(o.Kind) + " " + o.Path + "\n")
		if text, ok := o.Fields["policy"].(string); ok {
			out.WriteString(text + "\n")
			continue
		}
		text, _ := json.MarshalIndent(o.Fields, "", "  ")
		out.WriteString(string(text) + "\n\n")
	}
	return out.String()
}

func compare(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("what profile %s renders differs from %s; if the change is meant, run: go test ./templates -update\ngot:\n%s\nwant:\n%s", name, file, got, want)
	}
}
