package instance

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// TryRole assumes the member role in an account. It does not use cached credentials: they would hide that the role no longer
// trusts the function. In the function's own account it only checks that the function has credentials.
func (l *Lookup) TryRole(ctx context.Context, account string) error {
	provider, err := newClients(l.clients.options).credentials(ctx, account)
	if err == nil {
		_, err = provider.Retrieve(ctx)
	}
	if err != nil {
		return fmt.Errorf("assuming the member role in account %s: %w", account, err)
	}
	return nil
}

// TryInstances lists as few instances of a place as EC2 allows.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
func (l *Lookup) TryInstances(ctx context.Context, p facts.Place) error {
	call, err := l.clients.ec2s.At(ctx, p)
	if err == nil {
		_, err = call(ctx, &ec2.DescribeInstancesInput{MaxResults: aws.Int32(5)})
	}
	if err != nil {
		return fmt.Errorf("describing the instances of %s: %w", p.Name(), err)
	}
	return nil
}

// TryProfiles asks IAM in an account for an instance profile that does not exist. The answer that it does not exist shows that
// the call is allowed.
func (l *Lookup) TryProfiles(ctx context.Context, account string) error {
	const missing = "vault-ec2-provisioner-asks-whether-it-may-ask"
	call, err := l.clients.iam(ctx, account)
	if err == nil {
		_, err = call(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: aws.String(missing)})
	}
	var absent *iamtypes.NoSuchEntityException
	if err != nil && !errors.As(err, &absent) {
		return fmt.Errorf("asking IAM in account %s for an instance profile: %w", account, err)
	}
	return nil
}
