package instance

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// Sighting is EC2's answer for one instance.
type Sighting struct {
	// Found is false if a complete and successful answer of EC2 lacks the instance: it is not visible yet, or no longer.
	Found bool
	Facts facts.Instance
	// Err says why the other fields are unknown; its fault kind says whether to try again. If LacksRole, only the role is unknown.
	Err error
}

const (
	callTimeout = 10 * time.Second
	// maxFilterValues is the maximum number of values in one filter,
	// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
	maxFilterValues = 200
	pageSize        = 1000
	// describeTimeout bounds a whole Describe, so that an account that does not answer leaves time for the others.
	describeTimeout = 20 * time.Second
	// maxConcurrent is the number of concurrent calls, to EC2 by place and to IAM by instance profile.
	maxConcurrent = 8
)

// Lookup looks instances up. It is safe for concurrent use.
type Lookup struct {
	clients *clients
	roles   *roles
	// needsRole reports whether the role of a live instance matters.
	needsRole func(facts.Instance) bool
	now       func() time.Time
}

// Options configure a Lookup.
type Options struct {
	Config aws.Config
	// MemberRole is the name of the role to assume in accounts other than the function's own; empty: no other accounts.
	MemberRole string
	// Accounts are the allowed accounts besides the function's own.
	Accounts []string
	// AnyAccount allows every account with the member role, whatever Accounts holds.
	AnyAccount bool
	// ExternalID is sent with every AssumeRole, for trust policies that require one; empty: not sent.
	ExternalID string
	// NeedsRole reports whether the IAM role of an instance is looked up; it gets the facts without the role. Nil looks each up.
	NeedsRole func(facts.Instance) bool
	// Log receives a line for each role that IAM did not confirm; nil: none.
	Log *slog.Logger
}

// New makes a Lookup. It makes no calls.
func New(o Options) *Lookup {
	c := newClients(o)
	needs := o.NeedsRole
	if needs == nil {
		needs = func(facts.Instance) bool { return true }
	}
	return &Lookup{clients: c, roles: newRoles(c, o.Log), needsRole: needs, now: time.Now}
}

// Describe returns one sighting for each ref. A failure of one account and region is in the sightings of its instances only.
func (l *Lookup) Describe(ctx context.Context, refs []facts.Ref) map[facts.Ref]Sighting {
	ids := map[facts.Place][]string{}
	for _, r := range refs {
		p := r.Place
		if !slices.Contains(ids[p], r.ID) {
			ids[p] = append(ids[p], r.ID)
		}
	}
	found := make(chan map[facts.Ref]Sighting, len(ids))
	ctx, cancel := context.WithTimeout(ctx, describeTimeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(maxConcurrent)
	for p, list := range ids {
		g.Go(func() error {
			found <- l.describeIn(ctx, p, list)
			return nil
		})
	}
	_ = g.Wait() // errors are in the sightings
	close(found)
	all := make(map[facts.Ref]Sighting, len(refs))
	for f := range found {
		maps.Copy(all, f)
	}
	return all
}

// describeIn returns one sighting for each instance of a place.
func (l *Lookup) describeIn(ctx context.Context, p facts.Place, ids []string) map[facts.Ref]Sighting {
	out := make(map[facts.Ref]Sighting, len(ids))
	call, err := l.clients.ec2s.At(ctx, p)
	s := l.splitter(call, p)
	for chunk := range slices.Chunk(inRandomOrder(ids), maxFilterValues) {
		seen := map[string]Sighting{}
		if err == nil {
			seen, err = s.describe(ctx, chunk)
		}
		for _, id := range chunk {
			ref := facts.Ref{ID: id, Place: p}
			if err != nil {
				out[ref] = Sighting{Err: err}
				continue
			}
			out[ref] = seen[id]
		}
	}
	return out
}

// filteredBy returns the input for the instances with the given IDs; for all instances if ids is nil. It names the IDs in a
// filter: an unknown ID would fail a whole call by InstanceIds.
func filteredBy(ids []string) *ec2.DescribeInstancesInput {
	input := &ec2.DescribeInstancesInput{MaxResults: aws.Int32(pageSize)}
	if ids != nil {
		input.Filters = []types.Filter{{Name: aws.String("instance-id"), Values: ids}}
	}
	return input
}

// list passes the instances of a place that input asks for to each, page by page.
func (l *Lookup) list(ctx context.Context, call describeInstances, p facts.Place, input *ec2.DescribeInstancesInput, each func([]Sighting) error) error {
	for {
		observed := l.now().Round(0) // before the call, since the answer may be older than its arrival
		page, err := nextPage(ctx, call, input)
		if err != nil {
			return fmt.Errorf("describing the instances of %s: %w", p.Name(), err)
		}
		seen := map[string]Sighting{}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				s := sightingOf(i, aws.ToString(r.OwnerId), p)
				s.Facts.ObservedAt = observed
				seen[s.Facts.ID] = s
			}
		}
		l.addRoles(ctx, p.Account, seen)
		if err := each(slices.Collect(maps.Values(seen))); err != nil {
			return err
		}
		if aws.ToString(page.NextToken) == "" {
			return nil
		}
		input.NextToken = page.NextToken
	}
}

// sightingOf returns the sighting in EC2's description of an instance.
func sightingOf(i types.Instance, owner string, p facts.Place) Sighting {
	f, err := fromEC2(i, owner, p.Region)
	if err == nil && f.Account != p.Account {
		err = fmt.Errorf("it belongs to account %s", f.Account)
	}
	if err != nil {
		err = fmt.Errorf("describing instance %s of %s: %w", f.ID, p.Name(), err)
	}
	return Sighting{Found: true, Facts: f, Err: err}
}

func nextPage(ctx context.Context, call describeInstances, input *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx, input)
}

// addRoles sets the IAM role of each live instance that needs it: profiles match on it, but EC2 names only the instance profile. It
// looks each instance profile up once, concurrently. Other instances need no role: their removal must not depend on IAM.
func (l *Lookup) addRoles(ctx context.Context, account string, seen map[string]Sighting) {
	type answer struct {
		role role
		err  error
	}
	answers := map[string]*answer{}
	for _, s := range seen {
		if l.asksRole(s) {
			answers[s.Facts.IAMInstanceProfileARN] = &answer{}
		}
	}
	var g errgroup.Group
	g.SetLimit(maxConcurrent)
	for profile, a := range answers {
		g.Go(func() error {
			a.role, a.err = l.roles.get(ctx, account, profile, time.Time{})
			return nil
		})
	}
	_ = g.Wait() // errors are in the answers
	for id, s := range seen {
		if !l.asksRole(s) {
			continue
		}
		a := answers[s.Facts.IAMInstanceProfileARN]
		s.Facts.IAMRoleARN, s.Facts.RoleObservedAt, s.Facts.RoleUnconfirmed = a.role.arn, a.role.at, a.role.unconfirmed
		if a.err != nil {
			s.Err = l.roleError(s.Facts, a.err)
		}
		seen[id] = s
	}
}

// RoleNow returns f with the role in its instance profile as IAM named it after the instance was observed: no role for an instance
// without an instance profile, and for one whose role does not matter. If IAM does not answer, the role is unconfirmed.
func (l *Lookup) RoleNow(ctx context.Context, f facts.Instance) (facts.Instance, error) {
	f.IAMRoleARN, f.RoleObservedAt, f.RoleUnconfirmed = "", f.ObservedAt, false
	if f.IAMInstanceProfileARN == "" || !l.needsRole(f) {
		return f, nil
	}
	found, err := l.roles.get(ctx, f.Account, f.IAMInstanceProfileARN, f.ObservedAt)
	if err != nil {
		return f, l.roleError(f, err)
	}
	f.IAMRoleARN, f.RoleUnconfirmed = found.arn, found.unconfirmed
	return f, nil
}

// asksRole reports whether the role of a sighted instance is looked up.
func (l *Lookup) asksRole(s Sighting) bool {
	live := s.Facts.State == facts.Pending || s.Facts.State == facts.Running
	return s.Err == nil && live && s.Facts.IAMInstanceProfileARN != "" && l.needsRole(s.Facts)
}
