package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// network is the page about a network without NAT, named in remedies.
const network = "docs/deploying.md, A network without NAT"

// Service is a service of AWS that the functions call in their own region and that no other check calls.
type Service struct {
	// Name is as in the name of its VPC endpoint, com.amazonaws.<region>.<name>.
	Name   string
	Region string
	// Use says what the functions use it for.
	Use string
	// Optional is true if no setting says whether the deployment has that use. A service that is not reached is then OK, with a note.
	Optional bool
	// Reach connects to the service. It needs no right and changes nothing.
	Reach func(ctx context.Context) error
}

// serviceSteps returns a check for each service.
func (d Doctor) serviceSteps() []*step {
	steps := make([]*step, 0, len(d.Services))
	for _, s := range d.Services {
		steps = append(steps, &step{name: "reach " + s.Name + " " + s.Region, check: func(ctx context.Context) finding {
			err := s.Reach(ctx)
			switch {
			case err != nil && s.Optional:
				return good("%s is not reached, and only %s need it. If you use them: %s. The error: %v", s.Name, s.Use, d.routeTo(s.Name, s.Region), err)
			case err != nil:
				return bad(d.routeTo(s.Name, s.Region), "%s is not reached, which the functions need for %s: %v", s.Name, s.Use, err)
			}
			return good("%s is reached, for %s", s.Name, s.Use)
		}})
	}
	return steps
}

// isUnreached reports whether a call got no answer: no route, no address, or none in time. AWS's refusals are answers. The SDK's
// error has the status 0 for a request that was not answered.
func isUnreached(err error) bool {
	var answer interface{ HTTPStatusCode() int }
	var refusal interface{ ErrorCode() string }
	if (errors.As(err, &answer) && answer.HTTPStatusCode() > 0) || errors.As(err, &refusal) {
		return false
	}
	var failed net.Error
	return errors.As(err, &failed) || errors.Is(err, context.DeadlineExceeded)
}

// routeTo returns the remedy for a service that is not reached in a region.
func (d Doctor) routeTo(service, region string) string {
	if region != d.Region {
		return fmt.Sprintf("the function's subnets have no route to %s in %s: a VPC of %s has no endpoint for another region, so give them a NAT gateway or a transit gateway (%s); "+
			"or the region's name is wrong", service, region, d.Region, network)
	}
	kind := "interface"
	if service == "dynamodb" {
		kind = "gateway"
	}
	variant := ""
	if isInChina(region) {
		variant = " (for some services cn.com.amazonaws…)"
	}
	return fmt.Sprintf("the function's subnets have no route to %s: add the %s endpoint com.amazonaws.%s.%s%s to their VPC, or a NAT gateway (%s)", service, kind, region, service, variant, network)
}

// routeToIAM returns the ways to IAM, which is reached in the region of its control plane only. A VPC of another region can have its
// endpoint, as AWS's list of cross-region services says:
// https://docs.aws.amazon.com/vpc/latest/privatelink/aws-services-cross-region-privatelink-support.html
func (d Doctor) routeToIAM() string {
	const missing = "the function's subnets have no route to IAM: add the interface endpoint com.amazonaws.iam"
	home := iamRegion(d.Region)
	if home == d.Region {
		return missing + " to their VPC, or a NAT gateway"
	}
	return missing + " with the service region " + home + " to their VPC, or a NAT gateway, or a transit gateway to a VPC of " + home + " that has the endpoint"
}

// iamRegion returns the region of IAM's control plane in the partition of a region, as the SDK's list of endpoints has it.
func iamRegion(region string) string {
	switch {
	case isInChina(region):
		return "cn-north-1"
	case strings.HasPrefix(region, "us-gov-"):
		return "us-gov-west-1"
	}
	return "us-east-1"
}

func isInChina(region string) bool { return strings.HasPrefix(region, "cn-") }

// profilesNeedingRole returns the names of the profiles that need the IAM role of an instance.
func (d Doctor) profilesNeedingRole() []string {
	var names []string
	for _, p := range d.Profiles.Profiles {
		if p.NeedsRole() {
			names = append(names, p.Name)
		}
	}
	return names
}
