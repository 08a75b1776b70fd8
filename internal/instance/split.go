package instance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

const (
	// maxSplitCalls bounds the calls by InstanceIds of one look-up in one place. Halving finds one instance among 200 with 16
	// calls, and separates 30 instances that alternate between two zones with 59.
	maxSplitCalls = 60
	// splitTimeout bounds one call by InstanceIds, so that halves of a group without an answer fit into describeTimeout.
	splitTimeout = 4 * time.Second
)

// splitter describes instances of a place by their IDs, also while an Availability Zone is out of service. EC2 then fails every
// call without InstanceIds, one with a filter too, and every call with the ID of an instance in that zone; a call with IDs of
// other zones works. https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
type splitter struct {
	lookup    *Lookup
	call      describeInstances
	place     facts.Place
	callsLeft int   // by InstanceIds
	outage    error // of the call without InstanceIds; nil if none failed
}

// describe returns a sighting for each of up to maxFilterValues instances that EC2 shows. It asks by the filter, and after an
// outage by InstanceIds. An instance that EC2 cannot describe then has an error, and only an instance that EC2 says does not
// exist has no sighting.
func (s *splitter) describe(ctx context.Context, ids []string) (map[string]Sighting, error) {
	if s.outage == nil {
		seen, err := s.ask(ctx, s.call, filteredBy(ids))
		if !isOutage(err) || ctx.Err() != nil {
			return seen, err
		}
		s.outage = err
	}
	return s.describeByGroups(ctx, ids), nil
}

// ask returns the instances that EC2 shows for an input, by ID.
func (s *splitter) ask(ctx context.Context, call describeInstances, input *ec2.DescribeInstancesInput) (map[string]Sighting, error) {
	seen := map[string]Sighting{}
	err := s.lookup.list(ctx, call, s.place, input, func(page []Sighting) error {
		for _, found := range page {
			seen[found.Facts.ID] = found
		}
		return nil
	})
	return seen, err
}

// once makes one call without the SDK's retries: a group that fails is asked again in halves.
func (s *splitter) once(ctx context.Context, input *ec2.DescribeInstancesInput, options ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, splitTimeout)
	defer cancel()
	return s.call(ctx, input, append(options, func(o *ec2.Options) { o.Retryer = aws.NopRetryer{} })...)
}

// describeByGroups asks for the instances by InstanceIds, group by group, until each is described or stands alone, or no call is
// left.
func (s *splitter) describeByGroups(ctx context.Context, ids []string) map[string]Sighting {
	out := make(map[string]Sighting, len(ids))
	for _, id := range ids {
		out[id] = Sighting{Err: s.unknown(id, s.outage)}
	}
	groups := [][]string{ids}
	for len(groups) > 0 && s.callsLeft > 0 && ctx.Err() == nil {
		groups = groups[:min(len(groups), s.callsLeft)]
		s.callsLeft -= len(groups)
		answers := make([]map[string]Sighting, len(groups))
		errs := make([]error, len(groups))
		var round errgroup.Group
		round.SetLimit(maxConcurrent)
		for n, group := range groups {
			round.Go(func() error {
				answers[n], errs[n] = s.ask(ctx, s.once, &ec2.DescribeInstancesInput{InstanceIds: group})
				return nil
			})
		}
		_ = round.Wait() // errors are in errs
		var next [][]string
		for n, group := range groups {
			if errs[n] == nil {
				maps.Copy(out, answers[n])
				continue
			}
			next = append(next, s.after(group, errs[n], out)...)
		}
		groups = next
	}
	return out
}

// after sets the sightings of a group whose call failed, and returns the groups to ask for next. After throttling or a denial it
// lets no further call be made.
func (s *splitter) after(group []string, err error, out map[string]Sighting) [][]string {
	if errorCode(err) == "InvalidInstanceID.NotFound" {
		rest := group
		for _, id := range namedIn(err, group) {
			out[id] = Sighting{}
			rest = slices.DeleteFunc(slices.Clone(rest), func(other string) bool { return other == id })
		}
		switch {
		case len(rest) == 0:
			return nil
		case len(rest) < len(group):
			return [][]string{rest}
		}
	}
	for _, id := range group {
		out[id] = Sighting{Err: s.unknown(id, err)}
	}
	switch {
	case !isOutage(err) && !concernsInstance(err):
		s.callsLeft = 0
		return nil
	case len(group) == 1:
		return nil
	}
	return [][]string{group[:len(group)/2], group[len(group)/2:]}
}

func (s *splitter) unknown(id string, err error) error {
	return fmt.Errorf("instance %s: EC2 described no instance of %s without its ID, and not this one by its ID: its Availability Zone may be out of service; EC2 is asked again: %w",
		id, s.place.Name(), err)
}

var idInText = regexp.MustCompile(`i-[0-9a-f]+`)

// namedIn returns the IDs of a group that the text of an error names, as in "The instance IDs 'i-1, i-2' do not exist".
func namedIn(err error, group []string) []string {
	var failed smithy.APIError
	if !errors.As(err, &failed) {
		return nil
	}
	named := idInText.FindAllString(failed.ErrorMessage(), -1)
	return slices.DeleteFunc(slices.Clone(group), func(id string) bool { return !slices.Contains(named, id) })
}

// isOutage reports whether EC2 failed a call, or did not answer it in time. Throttling is none: more calls would add to it.
func isOutage(err error) bool {
	var answer *smithyhttp.ResponseError
	failedInEC2 := errors.As(err, &answer) && answer.HTTPStatusCode() >= http.StatusInternalServerError
	timedOut := errors.Is(err, context.DeadlineExceeded)
	return (failedInEC2 && !isThrottled(err)) || timedOut
}

func isThrottled(err error) bool {
	return retry.ThrottleErrorCode{Codes: retry.DefaultThrottleErrorCodes}.IsErrorThrottle(err) == aws.TrueTernary
}
