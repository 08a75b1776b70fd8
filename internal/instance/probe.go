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

// TryRole takes on the member role in an account, anew: credentials that were got before would hide that the role does
// not admit the function any more. In the function's own account there is no role to take on, and it makes sure that
// the function has credentials at all.
func (l *Lookup) TryRole(ctx context.Context, account string) error {
	provider, err := newClients(l.clients.options).credentials(ctx, account)
	if err == nil {
		_, err = provider.Retrieve(ctx)
	}
	if err != nil {
		return fmt.Errorf("taking on the member role in account %s: %w", account, err)
	}
	return nil
}

// TryInstances makes the smallest listing of a place's instances that EC2 allows.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
func (l *Lookup) TryInstances(ctx context.Context, p facts.Place) error {
	call, err := l.clients.ec2s.At(ctx, p)
	if err == nil {
		_, err = call(ctx, &ec2.DescribeInstancesInput{MaxResults: aws.Int32(5)})
	}
	if err != nil {
		return fmt.Errorf("describing the instances of %s: %w", p, err)
	}
	return nil
}

// TryProfiles asks IAM in an account for an instance profile that is not there: to be told so is to be allowed to ask.
func (l *Lookup) TryProfiles(ctx context.Context, account string) error {
	const nobodys = "vault-ec2-provisioner-asks-whether-it-may-ask"
	call, err := l.clients.iam(ctx, account)
	if err == nil {
		_, err = call(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: aws.String(nobodys)})
	}
	var absent *iamtypes.NoSuchEntityException
	if err != nil && !errors.As(err, &absent) {
		return fmt.Errorf("asking IAM in account %s for an instance profile: %w", account, err)
	}
	return nil
}
