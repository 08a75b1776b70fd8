package instance

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// setAddresses sets every private address of i in f: the instance's primary one first, then those of each interface, its primary
// one first. EC2 promises no order of interfaces or addresses, so none of it depends on theirs.
func setAddresses(f *facts.Instance, i types.Instance) error {
	interfaces := slices.DeleteFunc(slices.Clone(i.NetworkInterfaces), func(n types.InstanceNetworkInterface) bool {
		// An interface of another VPC has addresses of a network that the profile's vpc_ids do not name.
		return n.VpcId != nil && aws.ToString(n.VpcId) != aws.ToString(i.VpcId)
	})
	slices.SortStableFunc(interfaces, func(a, b types.InstanceNetworkInterface) int {
		return cmp.Or(slices.Compare(slot(a), slot(b)), strings.Compare(aws.ToString(a.NetworkInterfaceId), aws.ToString(b.NetworkInterfaceId)))
	})
	primary6 := aws.ToString(i.Ipv6Address)
	v4, v6 := make([][]assigned, len(interfaces)), make([][]assigned, len(interfaces))
	for at, n := range interfaces {
		for _, a := range n.PrivateIpAddresses {
			v4[at] = append(v4[at], assigned{aws.ToString(a.PrivateIpAddress), aws.ToBool(a.Primary)})
		}
		for _, a := range n.Ipv6Addresses {
			v6[at] = append(v6[at], assigned{aws.ToString(a.Ipv6Address), aws.ToBool(a.IsPrimaryIpv6)})
			if at == 0 && aws.ToBool(a.IsPrimaryIpv6) {
				primary6 = aws.ToString(a.Ipv6Address)
			}
		}
	}
	var secondary4, secondary6 []netip.Addr
	var err4, err6 error
	f.IPv4s, secondary4, err4 = order(aws.ToString(i.PrivateIpAddress), v4)
	f.IPv6s, secondary6, err6 = order(primary6, v6)
	f.Secondary = slices.Concat(secondary4, secondary6)
	return errors.Join(err4, err6)
}

// slot returns the network card and the device index of an interface.
func slot(n types.InstanceNetworkInterface) []int32 {
	if n.Attachment == nil {
		return nil
	}
	return []int32{aws.ToInt32(n.Attachment.NetworkCardIndex), aws.ToInt32(n.Attachment.DeviceIndex)}
}

// assigned is an address of an interface. EC2 marks the primary IPv4 address of each interface, and an IPv6 address only where a
// user asked for it, https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceIpv6Address.html
type assigned struct {
	text   string
	marked bool
}

// order returns the addresses of one family without doubles: the instance's primary one, then those of each interface. An interface's
// primary address is the instance's, else the marked one, else the lowest; the others are secondary.
func order(primary string, interfaces [][]assigned) (all, secondary []netip.Addr, err error) {
	if primary != "" {
		a, err := parse(primary)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, a)
	}
	for _, listed := range interfaces {
		var own []netip.Addr
		rank := map[netip.Addr]int{} // of the primary one below that of the others
		for _, a := range listed {
			if a.text == "" {
				continue
			}
			parsed, err := parse(a.text)
			if err != nil {
				return nil, nil, err
			}
			own = append(own, parsed)
			if a.marked || a.text == primary {
				rank[parsed] = -1
			}
		}
		slices.SortFunc(own, func(a, b netip.Addr) int { return cmp.Or(rank[a]-rank[b], a.Compare(b)) })
		for n, a := range slices.Compact(own) {
			if slices.Contains(all, a) {
				continue
			}
			all = append(all, a)
			if n > 0 {
				secondary = append(secondary, a)
			}
		}
	}
	return all, secondary, nil
}

func parse(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return a, fmt.Errorf("EC2 returned the address %+q: %w", text, err)
	}
	return a, nil
}
