package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
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
	// Reach connects to the service. It needs no right and changes nothing.
	Reach func(ctx context.Context) error
}

// serviceSteps returns a check for each service.
func (d Doctor) serviceSteps() []*step {
	steps := make([]*step, 0, len(d.Services))
	for _, s := range d.Services {
		steps = append(steps, &step{name: "reach " + s.Name + " " + s.Region, check: func(ctx context.Context) finding {
			if err := s.Reach(ctx); err != nil {
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
	return fmt.Sprintf("the function's subnets have no route to %s: add the %s endpoint com.amazonaws.%s.%s to their VPC, or a NAT gateway (%s)", service, kind, region, service, network)
}

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
