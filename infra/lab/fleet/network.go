package fleet

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	vaultapi "github.com/hashicorp/vault/api"
)

// loopback is the network of all instances. Its addresses can be the source of a real connection to Vault, so that the lab
// also tests tokens bound to an instance's address.
const loopback = "127.16.0.0/16"

// subnet returns the ID of a subnet of the loopback network for an account and region. The first call makes it.
func (f *Fleet) subnet(ctx context.Context, cfg aws.Config, account string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	place := account + "/" + cfg.Region
	if id := f.subnets[place]; id != "" {
		return id, nil
	}
	client := ec2.NewFromConfig(cfg)
	vpc, err := client.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String(loopback)})
	if err != nil {
		return "", fmt.Errorf("making the loopback network in account %s, %s: %w", account, cfg.Region, err)
	}
	// Each account and region has its own subnet of some two thousand addresses, so that no two instances share an address.
	const places = 32
	if len(f.subnets) == places {
		return "", fmt.Errorf("making the loopback network in account %s, %s: it has room for %d accounts and regions", account, cfg.Region, places)
	}
	block := fmt.Sprintf("127.16.%d.0/21", len(f.subnets)*256/places)
	subnet, err := client.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: vpc.Vpc.VpcId, CidrBlock: &block})
	if err != nil {
		return "", fmt.Errorf("making the subnet %s in account %s, %s: %w", block, account, cfg.Region, err)
	}
	id := aws.ToString(subnet.Subnet.SubnetId)
	f.subnets[place] = id
	return id, nil
}

// dialFrom sets the source address of a client's connections, if address is a loopback address.
func dialFrom(client *vaultapi.Config, address string) {
	ip, err := netip.ParseAddr(address)
	transport, ok := client.HttpClient.Transport.(*http.Transport)
	if err != nil || !ip.IsLoopback() || !ok {
		return
	}
	dialer := net.Dialer{Timeout: 10 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0))}
	transport.DialContext = dialer.DialContext
}
