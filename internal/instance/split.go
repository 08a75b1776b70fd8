package instance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

const (
	// splitSize is the number of instances that are separated at once: a full batch of the queue.
	splitSize = 50
	// maxSplitGroup is the number of instances in a failed group from which on the group is halved. A smaller group is asked for
	// one by one, which takes fewer calls if several of its instances are in the zone.
	maxSplitGroup = 8
	// splitBurst is the number of calls by InstanceIds that are made without a pause. splitSize instances take at most as many: 1, 2, 4
	// and 8 for groups, and one for each instance.
	splitBurst = 65
	// splitRate is the number of further calls in a second. EC2 allows an account and region 100 calls at once and 20 in each further
	// second, which others make too. https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
	splitRate = 10
	// maxSplitCalls bounds the calls by InstanceIds of one look-up in one place: those for 1,000 instances, in about two minutes.
	maxSplitCalls = 1000 / splitSize * splitBurst
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
	pace      *rate.Limiter // of the calls by InstanceIds
	callsLeft int           // by InstanceIds
	isOver    atomic.Bool   // no further call by InstanceIds is made
	outage    error         // of the call without InstanceIds; nil if none failed
	answered  bool          // EC2 described an instance, or said that one does not exist
}

func (l *Lookup) splitter(call describeInstances, p facts.Place) *splitter {
	return &splitter{lookup: l, call: call, place: p, pace: rate.NewLimiter(splitRate, splitBurst), callsLeft: maxSplitCalls}
}

// inRandomOrder returns IDs in a random order. Where an outage lets only a part of them be described, the next try describes others.
func inRandomOrder(ids []string) []string {
	out := slices.Clone(ids)
	rand.Shuffle(len(out), func(i, k int) { out[i], out[k] = out[k], out[i] })
	return out
}

// describe returns a sighting for each of up to maxFilterValues instances that EC2 shows. It asks by the filter, and after an
// outage by InstanceIds. An instance that EC2 cannot describe then has an error, and only an instance that EC2 says does not
// exist has no sighting.
func (s *splitter) describe(ctx context.Context, ids []string) (map[string]Sighting, error) {
	if s.outage == nil {
		seen, err := s.ask(ctx, s.call, filteredBy(ids))
		if !isOutage(err) || ctx.Err() != nil {
			s.answered = s.answered || err == nil
			return seen, err
		}
		s.outage = err
	}
	out := make(map[string]Sighting, len(ids))
	for _, id := range ids {
		out[id] = Sighting{Err: s.unknown(id, s.outage)}
	}
	for chunk := range slices.Chunk(ids, splitSize) {
		s.describeByGroups(ctx, chunk, out)
		if !s.answered {
			s.isOver.Store(true) // the region is out of service, or all instances are in the zone
		}
	}
	return out, nil
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
	if err := s.pace.Wait(ctx); err != nil {
		return nil, fmt.Errorf("no time is left for a call: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, splitTimeout)
	defer cancel()
	return s.call(ctx, input, append(options, func(o *ec2.Options) { o.Retryer = aws.NopRetryer{} })...)
}

// describeByGroups asks for the instances by InstanceIds, group by group, until each is described or stands alone, or no call is
// left. It sets their sightings in out.
func (s *splitter) describeByGroups(ctx context.Context, ids []string, out map[string]Sighting) {
	groups := [][]string{ids}
	for len(groups) > 0 && s.callsLeft > 0 && !s.isOver.Load() && ctx.Err() == nil {
		groups = groups[:min(len(groups), s.callsLeft)]
		s.callsLeft -= len(groups)
		answers := make([]map[string]Sighting, len(groups))
		errs := make([]error, len(groups))
		var round errgroup.Group
		round.SetLimit(maxConcurrent)
		for n, group := range groups {
			round.Go(func() error {
				if errs[n] = errNotAsked; s.isOver.Load() {
					return nil
				}
				answers[n], errs[n] = s.ask(ctx, s.once, &ec2.DescribeInstancesInput{InstanceIds: group})
				if endsSplit(errs[n]) {
					s.isOver.Store(true)
				}
				return nil
			})
		}
		_ = round.Wait() // errors are in errs
		var next [][]string
		for n, group := range groups {
			switch {
			case errs[n] == nil:
				maps.Copy(out, answers[n])
				s.answered = s.answered || len(answers[n]) > 0
			case !errors.Is(errs[n], errNotAsked):
				next = append(next, s.after(group, errs[n], out)...)
			}
		}
		groups = next
	}
}

// errNotAsked is the error of a group for which no call was made.
var errNotAsked = errors.New("EC2 was not asked")

// endsSplit reports whether a failed call concerns the whole account, as throttling and a denial do, so that no further call is made.
func endsSplit(err error) bool {
	return err != nil && !isOutage(err) && !concernsInstance(err)
}

// after sets the sightings of a group whose call failed, and returns the groups to ask for next.
func (s *splitter) after(group []string, err error, out map[string]Sighting) [][]string {
	if errorCode(err) == "InvalidInstanceID.NotFound" {
		rest := group
		for _, id := range namedIn(err, group) {
			out[id], s.answered = Sighting{}, true
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
	case endsSplit(err) || len(group) == 1:
		return nil
	case len(group) <= maxSplitGroup:
		return slices.Collect(slices.Chunk(group, 1))
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
