package instance

import (
	"errors"

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
	for _, m := range i.BlockDeviceMappings {
		if m.Ebs != nil && aws.ToString(m.DeviceName) == aws.ToString(i.RootDeviceName) {
			f.RootAttachedAt = aws.ToTime(m.Ebs.AttachTime)
		}
	}
	for _, t := range i.Tags {
		f.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return f, setAddresses(&f, i)
}
