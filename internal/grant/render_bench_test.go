package grant_test

import (
	"net/netip"
	"testing"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/grant"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/templates"
)

// BenchmarkRender measures the rendering of one grant: with the guard, as for a write, and without it, as for a comparison.
func BenchmarkRender(b *testing.B) {
	set, err := grant.Load(templates.FS)
	if err != nil {
		b.Fatal(err)
	}
	f := facts.Instance{
		ID: "i-0123456789abcdef0", State: facts.Running, Account: "123456789012", Region: "us-east-1", VPCID: "vpc-0a1b2c3d",
		PrivateDNSName: "ip-10-1-1-4.ec2.internal", IPv4s: []netip.Addr{netip.MustParseAddr("10.1.1.4")},
		IAMInstanceProfileARN: "arn:aws:iam::123456789012:instance-profile/alice-worker", IAMRoleARN: "arn:aws:iam::123456789012:role/alice-worker",
		Tags: map[string]string{"Name": "x", "role": "worker"},
	}
	for name, render := range map[string]func(*grant.Profile, facts.Instance, grant.Realm) (*grant.Grant, error){
		"render": (*grant.Profile).Render, "draft": (*grant.Profile).Draft,
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				p, err := set.Match(f)
				if err != nil || p == nil {
					b.Fatal(p, err)
				}
				g, err := render(p, f, grant.Realm{Deployment: "d", AuthMount: "aws"})
				if err != nil {
					b.Fatal(err)
				}
				for _, o := range g.All() {
					_ = o.SHA256()
				}
			}
		})
	}
}
