package wiring

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go/middleware"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/version"
)

// program is the functions' name in the user agents.
const program = "vault-ec2-provisioner"

// identify makes every client that is made from c send the program's name and version in its user agent, which CloudTrail shows.
func identify(c *aws.Config) {
	c.APIOptions = append(c.APIOptions, awsmiddleware.AddUserAgentKeyValue(program, version.Product()))
}

// measure makes every client that is made from c add its calls to s; each try of the SDK is a call.
func measure(c *aws.Config, s *observe.Services) {
	throttled := retry.IsErrorThrottles(retry.DefaultThrottles)
	byService := map[string]*observe.Calls{"EC2": &s.EC2, "DynamoDB": &s.DynamoDB}
	timed := middleware.DeserializeMiddlewareFunc("Measure",
		func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (middleware.DeserializeOutput, middleware.Metadata, error) {
			start := time.Now()
			out, metadata, err := next.HandleDeserialize(ctx, in)
			if calls := byService[awsmiddleware.GetServiceID(ctx)]; calls != nil {
				calls.Observe(time.Since(start), err != nil && throttled.IsErrorThrottle(err).Bool())
			}
			return out, metadata, err
		})
	c.APIOptions = append(c.APIOptions, func(stack *middleware.Stack) error {
		// Outermost in the step that the SDK repeats for each try: the answer's error is known there.
		return stack.Deserialize.Add(timed, middleware.Before)
	})
}
