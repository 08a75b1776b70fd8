package grant

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// rehearse renders the profile for an invented instance with neutral names and tags. So a template that parses but renders
// something outside the bounds is refused when the profile loads, and not when an instance starts.
func (p *Profile) rehearse() error {
	f := facts.Instance{
		ID: "i-00000000000000000", Account: "000000000000", Region: "us-east-1", AvailabilityZone: "us-east-1a",
		VPCID: "vpc-00000000", SubnetID: "subnet-00000000", ImageID: "ami-00000000", Type: "m5.large",
		IPv4s:                 []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		IPv6s:                 []netip.Addr{netip.MustParseAddr("2001:db8::1")},
		IAMRoleARN:            "arn:aws:iam::000000000000:role/neutral",
		IAMInstanceProfileARN: "arn:aws:iam::000000000000:instance-profile/neutral",
		PrivateDNSName:        neutralDNS,
	}
	v := newValues(f, "neutral", p).neutralised()
	v.LaunchTime = "2000-01-01T00:00:00Z"
	if _, err := p.fqdn.execute(v, nil); err != nil {
		return err
	}
	r := rendering{profile: p, values: v, identities: map[string]identity{}, guard: withGuard}
	for _, o := range p.Outputs {
		object, _, err := r.object(o)
		p.lease(o.Name, object)
		p.store(o.Name, object)
		p.refer(o, object)
		if broken := (*ruleError)(nil); errors.As(err, &broken) {
			p.bar(fmt.Errorf("output %s, rendered for an invented instance: %w", o.Name, err))
			continue
		}
		if err != nil {
			return fmt.Errorf("output %s, rendered for an invented instance: %w", o.Name, err)
		}
	}
	return nil
}
