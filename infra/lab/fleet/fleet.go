package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

const callLimit = 30 * time.Second

// Options configure a fleet.
type Options struct {
	AWS        aws.Config // moto, with the home account's credentials and region
	AccountID  string     // the home account
	VaultAddr  string     // where instances log in
	VaultCAPEM string
	// VaultNamespace is the namespace of the instances' clients; empty for the root one.
	VaultNamespace string
	// QueuesFor returns the queues that the stack's rules feed with a state. Events
	// of other accounts and regions go there directly, because moto's forwarding
	// between event buses loses an event's account and region.
	QueuesFor func(state string) []string
}

// Fleet makes and changes instances. It is safe for concurrent use.
type Fleet struct {
	opts   Options
	signer *signer

	mu       sync.Mutex
	accounts map[string]aws.CredentialsProvider
	profiles map[string]bool
	started  map[string]time.Time // pending time of the latest start, by instance ID
	subnets  map[string]string    // IDs in the loopback network, by account and region
}

// New returns a fleet with a new key that signs its identity documents.
func New(o Options) (*Fleet, error) {
	s, err := newSigner()
	if err != nil {
		return nil, fmt.Errorf("making the key that signs identity documents: %w", err)
	}
	if o.QueuesFor == nil {
		o.QueuesFor = func(string) []string { return nil }
	}
	return &Fleet{
		opts: o, signer: s, accounts: map[string]aws.CredentialsProvider{},
		profiles: map[string]bool{}, started: map[string]time.Time{}, subnets: map[string]string{},
	}, nil
}

// Spec describes instances to launch; its zero value is one instance without a
// role in the home account and region.
type Spec struct {
	Count             int
	AccountID, Region string
	Role              string // name of the IAM role and instance profile; made if missing
	Tags              map[string]string
	InstanceType      string
	SubnetID          string // empty for a subnet of the loopback network
	PrivateIP         string // for a single instance only
	IPv6Count         int
}

// Instance is a launched instance.
type Instance struct {
	ID, AccountID, Region            string
	AvailabilityZone, VPCID          string
	SubnetID, ImageID, InstanceType  string
	PrivateIP, PrivateDNS            string
	IPv6s                            []string
	Role, RoleARN, InstanceProfileID string
	InstanceProfileARN               string
	Tags                             map[string]string
	LaunchTime                       time.Time
}

// ARN returns the instance's ARN.
func (i Instance) ARN() string {
	return "arn:aws:ec2:" + i.Region + ":" + i.AccountID + ":instance/" + i.ID
}

// Launch runs instances and returns them as running.
func (f *Fleet) Launch(ctx context.Context, s Spec) ([]Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit+time.Duration(s.Count)*time.Second)
	defer cancel()
	s.Count = max(1, s.Count)
	s.AccountID, s.Region = cmp.Or(s.AccountID, f.opts.AccountID), cmp.Or(s.Region, f.opts.AWS.Region)
	cfg, err := f.Config(ctx, s.AccountID, s.Region)
	if err != nil {
		return nil, err
	}
	in := &ec2.RunInstancesInput{
		ImageId: aws.String("ami-12c6146b"), InstanceType: ec2types.InstanceType(cmp.Or(s.InstanceType, "t3.micro")),
		MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
	}
	if s.SubnetID == "" {
		if s.SubnetID, err = f.subnet(ctx, cfg, s.AccountID); err != nil {
			return nil, err
		}
	}
	in.SubnetId = &s.SubnetID
	if s.PrivateIP != "" {
		in.PrivateIpAddress = &s.PrivateIP
	}
	if s.IPv6Count > 0 {
		in.Ipv6AddressCount = aws.Int32(int32(s.IPv6Count))
	}
	if s.Role != "" {
		if err := f.ensureProfile(ctx, cfg, s.AccountID, s.Role); err != nil {
			return nil, fmt.Errorf("making role and instance profile %s in account %s: %w", s.Role, s.AccountID, err)
		}
		in.IamInstanceProfile = &ec2types.IamInstanceProfileSpecification{Name: &s.Role}
	}
	if len(s.Tags) > 0 {
		in.TagSpecifications = []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeInstance, Tags: tagList(s.Tags)}}
	}
	client := ec2.NewFromConfig(cfg)
	ids := make([]string, 0, s.Count)
	for range s.Count { // one call each: moto attaches an instance profile only to the first instance of a call
		out, err := client.RunInstances(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("running an instance in account %s, %s: %w", s.AccountID, s.Region, err)
		}
		ids = append(ids, aws.ToString(out.Instances[0].InstanceId))
	}
	return f.describe(ctx, cfg, s.AccountID, ids)
}

// describe returns instances in the order of ids. In moto the call also changes
// pending instances to running.
func (f *Fleet) describe(ctx context.Context, cfg aws.Config, account string, ids []string) ([]Instance, error) {
	found := make(map[string]Instance, len(ids))
	pages := ec2.NewDescribeInstancesPaginator(ec2.NewFromConfig(cfg), &ec2.DescribeInstancesInput{
		Filters: []ec2types.Filter{{Name: aws.String("instance-id"), Values: ids}},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("describing instances %v: %w", ids, err)
		}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				found[aws.ToString(i.InstanceId)] = f.fromEC2(i, account, cfg.Region)
			}
		}
	}
	instances := make([]Instance, 0, len(ids))
	for _, id := range ids {
		i, ok := found[id]
		if !ok {
			return nil, fmt.Errorf("describing instance %s: not found in EC2", id)
		}
		instances = append(instances, i)
	}
	return instances, nil
}

func (f *Fleet) fromEC2(i ec2types.Instance, account, region string) Instance {
	out := Instance{
		ID: aws.ToString(i.InstanceId), AccountID: account, Region: region, VPCID: aws.ToString(i.VpcId),
		SubnetID: aws.ToString(i.SubnetId), ImageID: aws.ToString(i.ImageId), InstanceType: string(i.InstanceType),
		PrivateIP: aws.ToString(i.PrivateIpAddress), PrivateDNS: aws.ToString(i.PrivateDnsName),
		LaunchTime: aws.ToTime(i.LaunchTime), Tags: map[string]string{},
	}
	if i.Placement != nil {
		out.AvailabilityZone = aws.ToString(i.Placement.AvailabilityZone)
	}
	if p := i.IamInstanceProfile; p != nil {
		out.InstanceProfileARN, out.InstanceProfileID = aws.ToString(p.Arn), aws.ToString(p.Id)
		out.Role = nameOf(out.InstanceProfileARN)
		out.RoleARN = "arn:aws:iam::" + account + ":role/" + out.Role
	}
	for _, n := range i.NetworkInterfaces {
		for _, a := range n.Ipv6Addresses {
			out.IPv6s = append(out.IPv6s, aws.ToString(a.Ipv6Address))
		}
	}
	for _, t := range i.Tags {
		out.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return out
}

// Refresh returns the instance as EC2 describes it now.
func (f *Fleet) Refresh(ctx context.Context, i Instance) (Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	cfg, err := f.Config(ctx, i.AccountID, i.Region)
	if err != nil {
		return Instance{}, err
	}
	got, err := f.describe(ctx, cfg, i.AccountID, []string{i.ID})
	if err != nil {
		return Instance{}, err
	}
	return got[0], nil
}

// Terminate ends instances. EC2 still returns them for a while, as terminated.
func (f *Fleet) Terminate(ctx context.Context, instances ...Instance) error {
	return f.onEach(ctx, "terminating", instances, func(ctx context.Context, c *ec2.Client, id []string) error {
		_, err := c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: id})
		return err
	})
}

// Stop stops instances.
func (f *Fleet) Stop(ctx context.Context, instances ...Instance) error {
	return f.onEach(ctx, "stopping", instances, func(ctx context.Context, c *ec2.Client, id []string) error {
		_, err := c.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: id})
		return err
	})
}

// Start starts stopped instances; their identity documents get a new pending time.
func (f *Fleet) Start(ctx context.Context, instances ...Instance) error {
	err := f.onEach(ctx, "starting", instances, func(ctx context.Context, c *ec2.Client, id []string) error {
		_, err := c.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: id})
		return err
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range instances {
		f.started[i.ID] = time.Now()
	}
	return err
}

// SetTags adds or changes tags of an instance.
func (f *Fleet) SetTags(ctx context.Context, i Instance, tags map[string]string) error {
	return f.onEach(ctx, "tagging", []Instance{i}, func(ctx context.Context, c *ec2.Client, id []string) error {
		_, err := c.CreateTags(ctx, &ec2.CreateTagsInput{Resources: id, Tags: tagList(tags)})
		return err
	})
}

// onEach makes one call for the instances of each account and region.
func (f *Fleet) onEach(ctx context.Context, doing string, instances []Instance, call func(context.Context, *ec2.Client, []string) error) error {
	type place struct{ account, region string }
	groups := map[place][]string{}
	for _, i := range instances {
		at := place{i.AccountID, i.Region}
		groups[at] = append(groups[at], i.ID)
	}
	var errs []error
	for at, ids := range groups {
		ctx, cancel := context.WithTimeout(ctx, callLimit)
		cfg, err := f.Config(ctx, at.account, at.region)
		if err == nil {
			err = call(ctx, ec2.NewFromConfig(cfg), ids)
		}
		cancel()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %v in account %s, %s: %w", doing, ids, at.account, at.region, err))
		}
	}
	return errors.Join(errs...)
}

// Config returns a configuration that calls moto as an account and in a region. In
// moto the account follows from the assumed role, which need not exist.
func (f *Fleet) Config(ctx context.Context, account, region string) (aws.Config, error) {
	cfg := f.opts.AWS.Copy()
	cfg.Region = region
	if account == f.opts.AccountID {
		return cfg, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.accounts[account] == nil {
		out, err := sts.NewFromConfig(f.opts.AWS).AssumeRole(ctx, &sts.AssumeRoleInput{
			RoleArn: aws.String("arn:aws:iam::" + account + ":role/lab"), RoleSessionName: aws.String("lab"),
		})
		if err != nil {
			return aws.Config{}, fmt.Errorf("assuming a role of account %s: %w", account, err)
		}
		f.accounts[account] = credentials.NewStaticCredentialsProvider(
			aws.ToString(out.Credentials.AccessKeyId), aws.ToString(out.Credentials.SecretAccessKey), aws.ToString(out.Credentials.SessionToken))
	}
	cfg.Credentials = f.accounts[account]
	return cfg, nil
}

// ensureProfile makes a role that EC2 may assume, and its instance profile, if they are missing.
func (f *Fleet) ensureProfile(ctx context.Context, cfg aws.Config, account, name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.profiles[account+"/"+name] {
		return nil
	}
	client := iam.NewFromConfig(cfg)
	const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	_, roleErr := client.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(trust)})
	_, profileErr := client.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: &name})
	if err := errors.Join(unlessThere(roleErr), unlessThere(profileErr)); err != nil {
		return err
	}
	_, err := client.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: &name, RoleName: &name})
	// An existing profile has its role already: it holds at most one.
	var full *iamtypes.LimitExceededException
	if err := unlessThere(err); err != nil && !errors.As(err, &full) {
		return err
	}
	f.profiles[account+"/"+name] = true
	return nil
}

func unlessThere(err error) error {
	var there *iamtypes.EntityAlreadyExistsException
	if errors.As(err, &there) {
		return nil
	}
	return err
}
