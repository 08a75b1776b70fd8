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

// Instances have loopback addresses, which can be the source of a real connection to Vault, so that the lab also tests tokens bound to an
// instance's address. Each account and region has its own subnet of some two thousand addresses, so that no two instances share one.
const (
	firstNetwork = 16 // 127.16.0.0/16
	places       = 64
	inNetwork    = 32 // of the places
)

// subnet returns the ID of a subnet of the loopback network for an account and region. The first call makes it.
func (f *Fleet) subnet(ctx context.Context, cfg aws.Config, account string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	place := account + "/" + cfg.Region
	if id := f.subnets[place]; id != "" {
		return id, nil
	}
	client := ec2.NewFromConfig(cfg)
	n := len(f.subnets)
	if n == places {
		return "", fmt.Errorf("making the loopback network in account %s, %s: it has room for %d accounts and regions", account, cfg.Region, places)
	}
	network := firstNetwork + n/inNetwork
	vpc, err := client.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String(fmt.Sprintf("127.%d.0.0/16", network))})
	if err != nil {
		return "", fmt.Errorf("making the loopback network in account %s, %s: %w", account, cfg.Region, err)
	}
	block := fmt.Sprintf("127.%d.%d.0/21", network, n%inNetwork*256/inNetwork)
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
