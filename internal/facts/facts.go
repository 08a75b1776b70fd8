// Package facts holds the facts about one instance as EC2 and IAM report them: its identity (Ref, Place), its state, and the
// closed forms that every value must match. It makes no calls. All packages that render or decide use these types instead of
// AWS's.
package facts

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// State is the state of an instance. The zero value is no state.
type State string

// The states of EC2, https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
const (
	Pending      State = "pending"
	Running      State = "running"
	Stopping     State = "stopping"
	Stopped      State = "stopped"
	ShuttingDown State = "shutting-down"
	Terminated   State = "terminated"
)

// IsLive reports whether an instance in this state starts or runs, and so has its grant.
func (s State) IsLive() bool { return s == Pending || s == Running }

// IsEnding reports whether an instance in this state has ended, or is about to: there is no way back.
func (s State) IsEnding() bool { return s == ShuttingDown || s == Terminated }

// ParseState returns the state that AWS spells as s, or an error for any other text.
func ParseState(s string) (State, error) {
	switch state := State(s); state {
	case Pending, Running, Stopping, Stopped, ShuttingDown, Terminated:
		return state, nil
	}
	return "", fmt.Errorf("unknown instance state %q", s)
}

// Instance is one instance as EC2 and IAM described it at ObservedAt. An empty string is a value that AWS has not set yet (the
// DNS name of a pending instance) or that does not exist (no instance profile).
type Instance struct {
	ID                    string
	State                 State
	Account               string
	Region                string
	AvailabilityZone      string
	VPCID                 string
	SubnetID              string
	ImageID               string
	Type                  string
	PrivateDNSName        string
	IPv4s                 []netip.Addr // all private addresses, the primary one first
	IPv6s                 []netip.Addr // likewise
	Secondary             []netip.Addr // those of both that are not the primary address of an interface
	IAMInstanceProfileARN string
	IAMRoleARN            string
	LaunchTime            time.Time
	RootAttachedAt        time.Time // when the root volume was attached; zero for an instance without an EBS root volume
	Tags                  map[string]string
	ObservedAt            time.Time
	// RoleObservedAt is when IAM named the role. Before ObservedAt, the role comes from a cache.
	RoleObservedAt time.Time
	// RoleUnconfirmed reports whether IAM was asked for the role and did not answer: the role is from an earlier answer. It may make a
	// grant, and never change or remove one.
	RoleUnconfirmed bool
}

// IsRoleUnknown reports whether IAM was not asked for the role in the instance profile. It is asked only where the role can decide.
func (i Instance) IsRoleUnknown() bool {
	return i.IAMInstanceProfileARN != "" && !i.ObservedAt.IsZero() && i.RoleObservedAt.IsZero()
}

// Owned says which of an instance's addresses are its own. The others belong to what runs on it, such as pods with addresses of
// the VPC: https://github.com/aws/amazon-vpc-cni-k8s
type Owned string

// The choices of addresses.
const (
	OwnAll        Owned = "all"
	OwnInterfaces Owned = "interfaces" // the primary address of each interface
	OwnPrimary    Owned = "primary"    // the instance's primary address
)

// Only returns the instance with its own addresses only. Every choice keeps at least one address of each family that the instance
// has.
func (i Instance) Only(own Owned) Instance {
	keep := func(all []netip.Addr) []netip.Addr {
		switch own {
		case OwnPrimary:
			return all[:min(1, len(all))]
		case OwnInterfaces:
			return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return slices.Contains(i.Secondary, a) })
		case OwnAll:
		}
		return all
	}
	i.IPv4s, i.IPv6s = keep(i.IPv4s), keep(i.IPv6s)
	return i
}

// Addresses returns all addresses of the instance as text in canonical form (RFC 5952 for IPv6), IPv4 first.
func (i Instance) Addresses() []string {
	out := make([]string, 0, len(i.IPv4s)+len(i.IPv6s))
	for _, a := range i.IPv4s {
		out = append(out, a.String())
	}
	for _, a := range i.IPv6s {
		out = append(out, a.String())
	}
	return out
}

var (
	instanceID = NewForm(`^i-(?:[0-9a-f]{8}|[0-9a-f]{17})$`, 19)
	account    = NewForm(`^[0-9]{12}$`, 12)
	region     = NewForm(`^[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2}$`, 64)
	zone       = NewForm(`^[a-z0-9-]+$`, 64)
	resourceID = NewForm(`^[a-z]+-[0-9a-f]{8,17}$`, 64)
	kind       = NewForm(`^[a-z0-9.-]+$`, 64)
	hostName   = NewForm(`^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$`, 253)
	// The path of an ARN's name is up to 512 characters, the name up to 128.
	// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
	profileARN = NewForm(`^arn:aws[a-z-]*:iam::[0-9]{12}:instance-profile/[A-Za-z0-9+=,.@_/-]+$`, 1024)
	roleARN    = NewForm(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+$`, 1024)
)

// IsInstanceID reports whether s has the form of an EC2 instance ID. Names in Vault are built from it, so no other text may take
// its place.
func IsInstanceID(s string) bool { return instanceID.Match(s) }

// IsAccount reports whether s is a twelve-digit AWS account ID.
func IsAccount(s string) bool { return account.Match(s) }

// IsRegion reports whether s has the form of an AWS region's name.
func IsRegion(s string) bool { return region.Match(s) }

// Check returns an error that names the first value that does not match AWS's closed form for it. A value that matches cannot
// change the structure of a text rendered from it. Tags are free text; their users check them.
func (i Instance) Check() error {
	for _, c := range []struct {
		name, value string
		form        Form
		required    bool
	}{
		{"instance ID", i.ID, instanceID, true},
		{"account", i.Account, account, true},
		{"region", i.Region, region, true},
		{"availability zone", i.AvailabilityZone, zone, false},
		{"VPC ID", i.VPCID, resourceID, false},
		{"subnet ID", i.SubnetID, resourceID, false},
		{"image ID", i.ImageID, resourceID, false},
		{"instance type", i.Type, kind, false},
		{"private DNS name", i.PrivateDNSName, hostName, false},
		{"instance profile ARN", i.IAMInstanceProfileARN, profileARN, false},
		{"IAM role ARN", i.IAMRoleARN, roleARN, false},
	} {
		if c.value == "" && !c.required {
			continue
		}
		if !c.form.Match(c.value) {
			return fmt.Errorf("the %s %+q is not of the form %s", c.name, c.value, c.form)
		}
	}
	return nil
}
