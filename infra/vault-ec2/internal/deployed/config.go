// Package deployed finds what is deployed: a stack's outputs and parameters, and the reconcile function of a stack or of a running lab.
package deployed

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/smithy-go/middleware"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

// LoadConfig returns the AWS configuration as the aws command reads it: AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL and so on. A missing
// region is an error.
func LoadConfig(ctx context.Context) (aws.Config, error) {
	c, err := config.LoadDefaultConfig(ctx, config.WithAPIOptions([]func(*middleware.Stack) error{
		awsmiddleware.AddUserAgentKeyValue("vault-ec2", version.Product()),
	}))
	if err != nil {
		return aws.Config{}, fmt.Errorf("loading the AWS configuration: %w", err)
	}
	if c.Region == "" {
		return aws.Config{}, errors.New("no AWS region is set: set AWS_REGION, or AWS_PROFILE to a profile with one")
	}
	return c, nil
}
