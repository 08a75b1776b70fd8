package deployed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/smithy-go"
)

// callTimeout bounds the calls to CloudFormation for one stack.
const callTimeout = 30 * time.Second

// ErrNoStack is the error for a stack that does not exist.
var ErrNoStack = errors.New("no stack")

// Stack is CloudFormation's answer about a stack of template.yaml.
type Stack struct {
	Name, ID, Region          string
	Status                    string
	Outputs, Parameters, Tags map[string]string
}

// FindStack looks a stack up by its name or ID, in the account and the region of c. CloudFormation knows a deleted stack by its ID.
func FindStack(ctx context.Context, c aws.Config, name string) (Stack, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := cloudformation.NewFromConfig(c).DescribeStacks(ctx, &cloudformation.DescribeStacksInput{StackName: &name})
	// CloudFormation has no error code of its own for a stack that does not exist.
	// https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_DescribeStacks.html
	refused := smithy.APIError(nil)
	isAbsent := errors.As(err, &refused) && refused.ErrorCode() == "ValidationError" && strings.Contains(refused.ErrorMessage(), "does not exist")
	switch {
	case isAbsent, err == nil && len(answer.Stacks) == 0:
		return Stack{}, fmt.Errorf("region %s has %w %s in this account: correct --stack, or set AWS_REGION and AWS_PROFILE to where it is deployed", c.Region, ErrNoStack, name)
	case err != nil:
		return Stack{}, fmt.Errorf("looking up stack %s in region %s (may you call cloudformation:DescribeStacks?): %w", name, c.Region, err)
	}
	found := answer.Stacks[0]
	s := Stack{
		Name: aws.ToString(found.StackName), ID: aws.ToString(found.StackId), Region: c.Region, Status: string(found.StackStatus),
		Outputs: map[string]string{}, Parameters: map[string]string{}, Tags: map[string]string{},
	}
	for _, o := range found.Outputs {
		s.Outputs[aws.ToString(o.OutputKey)] = aws.ToString(o.OutputValue)
	}
	for _, p := range found.Parameters {
		s.Parameters[aws.ToString(p.ParameterKey)] = aws.ToString(p.ParameterValue)
	}
	for _, t := range found.Tags {
		s.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return s, nil
}

// Output returns an output. A missing one is an error.
func (s Stack) Output(name string) (string, error) {
	if value := s.Outputs[name]; value != "" {
		return value, nil
	}
	return "", fmt.Errorf("stack %s (%s) has no output %s: is it a stack of this project? If it is, deploy the current template", s.Name, s.Status, name)
}
