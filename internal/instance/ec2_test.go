package instance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// described returns a running instance with two interfaces in the wrong order, as EC2 may list them.
func described() types.Instance {
	address := func(a string) types.InstancePrivateIpAddress {
		return types.InstancePrivateIpAddress{PrivateIpAddress: aws.String(a)}
	}
	return types.Instance{
		InstanceId: aws.String("i-0123456789abcdef0"), State: &types.InstanceState{Name: types.InstanceStateNameRunning},
		PrivateIpAddress: aws.String("10.0.0.5"), PrivateDnsName: aws.String("ip-10-0-0-5.ec2.internal"), VpcId: aws.String("vpc-0a1b2c3d"),
		Placement:          &types.Placement{AvailabilityZone: aws.String("us-east-1a")},
		IamInstanceProfile: &types.IamInstanceProfile{Arn: aws.String("arn:aws:iam::123456789012:instance-profile/path/worker")},
		LaunchTime:         aws.Time(time.Unix(0, 0)), Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String("x")}},
		NetworkInterfaces: []types.InstanceNetworkInterface{
			{
				Attachment:         &types.InstanceNetworkInterfaceAttachment{DeviceIndex: aws.Int32(1)},
				PrivateIpAddresses: []types.InstancePrivateIpAddress{address("10.0.1.9")},
				Ipv6Addresses:      []types.InstanceIpv6Address{{Ipv6Address: aws.String("2001:DB8:0:0::2")}},
			},
			{
				Attachment:         &types.InstanceNetworkInterfaceAttachment{DeviceIndex: aws.Int32(0)},
				PrivateIpAddresses: []types.InstancePrivateIpAddress{address("10.0.0.5"), address("10.0.0.6")},
				Ipv6Addresses:      []types.InstanceIpv6Address{{Ipv6Address: aws.String("2001:db8::1")}},
			},
		},
	}
}

func TestAddresses_AreUniqueAndPrimaryFirst(t *testing.T) {
	f, err := fromEC2(described(), "123456789012", "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"10.0.0.5", "10.0.0.6", "10.0.1.9", "2001:db8::1", "2001:db8::2"}
	if got := f.Addresses(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: names in certificates are compared with these as text", got, want)
	}
	if f.Account != "123456789012" || f.State != facts.Running || f.Tags["Name"] != "x" || f.AvailabilityZone != "us-east-1a" {
		t.Errorf("got %+v", f)
	}
	if err := f.Check(); err != nil {
		t.Errorf("EC2's values must match their forms: %v", err)
	}
}

func TestRootVolume_IsTheOneOfTheRootDevice(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	i := described()
	i.RootDeviceName = aws.String("/dev/xvda")
	disk := func(name string, attached time.Time) types.InstanceBlockDeviceMapping {
		return types.InstanceBlockDeviceMapping{DeviceName: &name, Ebs: &types.EbsInstanceBlockDevice{AttachTime: &attached}}
	}
	i.BlockDeviceMappings = []types.InstanceBlockDeviceMapping{disk("/dev/xvda", at), disk("/dev/xvdb", at.Add(time.Hour))}
	if f, err := fromEC2(i, "123456789012", "us-east-1"); err != nil || !f.RootAttachedAt.Equal(at) {
		t.Errorf("want %s, got %s, %v: a login would be reset by the age of another volume", at, f.RootAttachedAt, err)
	}
	if f, err := fromEC2(described(), "123456789012", "us-east-1"); err != nil || !f.RootAttachedAt.IsZero() {
		t.Errorf("want no time for an instance without a root volume, got %s, %v", f.RootAttachedAt, err)
	}
}

func TestAddresses_DoNotDependOnTheOrderOfTheAnswer(t *testing.T) {
	one := described()
	for n := range one.NetworkInterfaces {
		i := &one.NetworkInterfaces[n]
		i.PrivateIpAddresses[0].Primary = aws.Bool(true)
		for _, extra := range []string{"10.0.7.20", "10.0.7.3"} {
			i.PrivateIpAddresses = append(i.PrivateIpAddresses, types.InstancePrivateIpAddress{PrivateIpAddress: aws.String(extra[:5] + strconv.Itoa(n) + extra[6:])})
		}
		i.Ipv6Addresses = append(i.Ipv6Addresses, types.InstanceIpv6Address{Ipv6Address: aws.String("2001:db8::" + strconv.Itoa(n+7))})
	}
	want, err := fromEC2(one, "123456789012", "us-east-1")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(want.Secondary), "[10.0.0.6 10.0.1.3 10.0.1.20 10.0.0.3 10.0.0.20 2001:db8::8 2001:db8::7]"; got != want {
		t.Errorf("the addresses that are not the primary one of an interface: got %s, want %s", got, want)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		other := one
		other.NetworkInterfaces = append(slices.Clone(one.NetworkInterfaces), one.NetworkInterfaces[random.IntN(2)]) // repeated
		for n := range other.NetworkInterfaces {
			i := &other.NetworkInterfaces[n]
			i.PrivateIpAddresses = append(slices.Clone(i.PrivateIpAddresses), i.PrivateIpAddresses[random.IntN(len(i.PrivateIpAddresses))])
			i.Ipv6Addresses = slices.Clone(i.Ipv6Addresses)
			random.Shuffle(len(i.PrivateIpAddresses), func(a, b int) {
				i.PrivateIpAddresses[a], i.PrivateIpAddresses[b] = i.PrivateIpAddresses[b], i.PrivateIpAddresses[a]
			})
			random.Shuffle(len(i.Ipv6Addresses), func(a, b int) { i.Ipv6Addresses[a], i.Ipv6Addresses[b] = i.Ipv6Addresses[b], i.Ipv6Addresses[a] })
		}
		random.Shuffle(len(other.NetworkInterfaces), func(a, b int) {
			other.NetworkInterfaces[a], other.NetworkInterfaces[b] = other.NetworkInterfaces[b], other.NetworkInterfaces[a]
		})
		got, err := fromEC2(other, "123456789012", "us-east-1")
		if err != nil || !slices.Equal(got.Addresses(), want.Addresses()) || !slices.Equal(got.Secondary, want.Secondary) {
			t.Fatalf("another order of the same answer: got %v, secondary %v (%v), want %v, secondary %v: every comparison would rewrite the grant",
				got.Addresses(), got.Secondary, err, want.Addresses(), want.Secondary)
		}
	}
}

func TestAddresses_OfAnotherVPCAreNotTheInstances(t *testing.T) {
	i := described()
	i.NetworkInterfaces[0].VpcId, i.NetworkInterfaces[1].VpcId = aws.String("vpc-0ffffffff"), i.VpcId
	f, err := fromEC2(i, "123456789012", "us-east-1")
	if want := []string{"10.0.0.5", "10.0.0.6", "2001:db8::1"}; err != nil || !slices.Equal(f.Addresses(), want) {
		t.Errorf("got %v (%v), want %v: a profile names its VPCs, so that no instance brings addresses of another network", f.Addresses(), err, want)
	}
}

func TestAddresses_TheMarkedIPv6AddressIsPrimary(t *testing.T) {
	i := described()
	i.Ipv6Address = aws.String("2001:db8::1")
	i.NetworkInterfaces[1].Ipv6Addresses = append(i.NetworkInterfaces[1].Ipv6Addresses, types.InstanceIpv6Address{Ipv6Address: aws.String("2001:db8::9"), IsPrimaryIpv6: aws.Bool(true)})
	f, err := fromEC2(i, "123456789012", "us-east-1")
	if want := "2001:db8::9"; err != nil || f.IPv6s[0].String() != want {
		t.Errorf("got %v (%v), want %s first: the user marked it, and EC2 says only that the other is one of the instance's", f.IPv6s, err, want)
	}
}

func TestDescribe_ImpossibleAnswerIsAnError(t *testing.T) {
	for name, row := range map[string]struct {
		spoil func(*types.Instance)
		says  string
	}{
		"no state":                 {func(i *types.Instance) { i.State = nil }, "no state"},
		"an unknown state":         {func(i *types.Instance) { i.State.Name = "hibernated" }, "hibernated"},
		"a malformed address":      {func(i *types.Instance) { i.PrivateIpAddress = aws.String("10.0.0.5, 8.8.8.8") }, "8.8.8.8"},
		"a malformed IPv6 address": {func(i *types.Instance) { i.Ipv6Address = aws.String("2001::db8::1") }, "2001::db8::1"},
	} {
		t.Run(name, func(t *testing.T) {
			i := described()
			row.spoil(&i)
			if _, err := fromEC2(i, "123456789012", "us-east-1"); err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("want an error that says %q, got %v", row.says, err)
			}
		})
	}
}

func TestRole_IsNeededForLiveInstancesOnly(t *testing.T) {
	for state, want := range map[facts.State]bool{
		facts.Pending: true, facts.Running: true, facts.Stopping: false, facts.Stopped: false, facts.ShuttingDown: false, facts.Terminated: false,
	} {
		s := Sighting{Found: true, Facts: facts.Instance{State: state, IAMInstanceProfileARN: "arn:aws:iam::123456789012:instance-profile/worker"}}
		if l := New(Options{}); l.asksRole(s) != want {
			t.Errorf("%s: got %v: a removal must not depend on IAM", state, !want)
		}
	}
}
