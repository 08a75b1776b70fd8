package instance

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// fromEC2 returns the facts in EC2's description of an instance. It fails on a value that it cannot read.
func fromEC2(i types.Instance, owner, region string) (facts.Instance, error) {
	f := facts.Instance{
		ID:             aws.ToString(i.InstanceId),
		Account:        owner,
		Region:         region,
		VPCID:          aws.ToString(i.VpcId),
		SubnetID:       aws.ToString(i.SubnetId),
		ImageID:        aws.ToString(i.ImageId),
		Type:           string(i.InstanceType),
		PrivateDNSName: aws.ToString(i.PrivateDnsName),
		LaunchTime:     aws.ToTime(i.LaunchTime),
		Tags:           make(map[string]string, len(i.Tags)),
	}
	if i.State == nil {
		return f, errors.New("EC2 returned no state")
	}
	state, err := facts.ParseState(string(i.State.Name))
	if err != nil {
		return f, err
	}
	f.State = state
	if i.Placement != nil {
		f.AvailabilityZone = aws.ToString(i.Placement.AvailabilityZone)
	}
	if i.IamInstanceProfile != nil {
		f.IAMInstanceProfileARN = aws.ToString(i.IamInstanceProfile.Arn)
	}
	for _, t := range i.Tags {
		f.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return f, addresses(&f, i)
}

// addresses sets every private address of i in f: the primary one first, then those of each interface.
func addresses(f *facts.Instance, i types.Instance) error {
	v4 := []string{aws.ToString(i.PrivateIpAddress)}
	v6 := []string{aws.ToString(i.Ipv6Address)}
	interfaces := slices.Clone(i.NetworkInterfaces)
	slices.SortStableFunc(interfaces, func(a, b types.InstanceNetworkInterface) int { return cmp.Compare(device(a), device(b)) })
	for _, n := range interfaces {
		for _, a := range n.PrivateIpAddresses {
			v4 = append(v4, aws.ToString(a.PrivateIpAddress))
		}
		for _, a := range n.Ipv6Addresses {
			v6 = append(v6, aws.ToString(a.Ipv6Address))
		}
	}
	var err error
	if f.IPv4s, err = parse(v4); err != nil {
		return err
	}
	f.IPv6s, err = parse(v6)
	return err
}

func device(n types.InstanceNetworkInterface) int32 {
	if n.Attachment == nil {
		return 0
	}
	return aws.ToInt32(n.Attachment.DeviceIndex)
}

// parse parses addresses, without empty texts and duplicates.
func parse(texts []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, t := range texts {
		if t == "" {
			continue
		}
		a, err := netip.ParseAddr(t)
		if err != nil {
			return nil, fmt.Errorf("EC2 returned the address %+q: %w", t, err)
		}
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}
