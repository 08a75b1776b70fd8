// Package instance looks instances up in EC2, IAM and STS, across accounts and regions: one DescribeInstances for
// each account and region of a batch, and one GetInstanceProfile for each instance profile, kept for a while.
package instance

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// Sighting is what a look at one instance gave.
type Sighting struct {
	// Found is false when a complete, successful answer of EC2 does not hold the instance: it is not visible yet, or
	// not any more.
	Found bool
	Facts facts.Instance
	// Err says why nothing can be said of the instance; its fault kind says whether to look again.
	Err error
}

const (
	callTimeout = 10 * time.Second
	// filterValues is how many values one filter may hold,
	// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html
	filterValues = 200
	pageSize     = 1000
	// lookTime bounds a whole look, so that an account that does not answer leaves time for the others.
	lookTime = 20 * time.Second
	// places is how many accounts and regions are asked side by side.
	places = 8
)

// Lookup looks instances up. It is safe for concurrent use.
type Lookup struct {
	clients *clients
	roles   *roles
	now     func() time.Time
}

// Options are what a Lookup needs.
type Options struct {
	Config aws.Config
	// MemberRole is the name of the role to assume in accounts other than the function's own; empty for none.
	MemberRole string
	// Accounts are those other than the function's own whose instances are looked at.
	Accounts []string
	// ExternalID is sent with every AssumeRole, for trust policies that ask for it.
	ExternalID string
}

// New makes a Lookup. Nothing is called before the first look.
func New(o Options) *Lookup {
	c := newClients(o)
	return &Lookup{clients: c, roles: newRoles(c), now: time.Now}
}

// Look gives one sighting for each ref. A fault of one account and region stays with the instances
// of that account and region.
func (l *Lookup) Look(ctx context.Context, refs []facts.Ref) map[facts.Ref]Sighting {
	ids := map[facts.Place][]string{}
	for _, r := range refs {
		p := r.Place
		if !slices.Contains(ids[p], r.ID) {
			ids[p] = append(ids[p], r.ID)
		}
	}
	found := make(chan map[facts.Ref]Sighting, len(ids))
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(places)
	for p, list := range ids {
		g.Go(func() error {
			found <- l.lookIn(ctx, p, list)
			return nil
		})
	}
	_ = g.Wait() // the functions above report in their sightings
	close(found)
	all := make(map[facts.Ref]Sighting, len(refs))
	for f := range found {
		maps.Copy(all, f)
	}
	return all
}

func (l *Lookup) lookIn(ctx context.Context, p facts.Place, ids []string) map[facts.Ref]Sighting {
	out := make(map[facts.Ref]Sighting, len(ids))
	call, err := l.clients.ec2s.At(ctx, p)
	for chunk := range slices.Chunk(ids, filterValues) {
		seen := map[string]Sighting{}
		if err == nil {
			seen, err = l.describe(ctx, call, p, chunk)
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

// describe asks by the instance-id filter: one unknown ID would fail a whole call by InstanceIds.
func (l *Lookup) describe(ctx context.Context, call describeInstances, p facts.Place, ids []string) (map[string]Sighting, error) {
	seen := map[string]Sighting{}
	err := l.list(ctx, call, p, ids, func(page []Sighting) error {
		for _, s := range page {
			seen[s.Facts.ID] = s
		}
		return nil
	})
	return seen, err
}

// list shows the instances of a place, or those of a few IDs, page by page.
func (l *Lookup) list(ctx context.Context, call describeInstances, p facts.Place, ids []string, each func([]Sighting) error) error {
	input := &ec2.DescribeInstancesInput{MaxResults: aws.Int32(pageSize)}
	if ids != nil {
		input.Filters = []types.Filter{{Name: aws.String("instance-id"), Values: ids}}
	}
	for {
		observed := l.now().Round(0) // before the call: what was true then may have changed since
		page, err := nextPage(ctx, call, input)
		if err != nil {
			return fmt.Errorf("describing the instances of %s: %w", p, err)
		}
		seen := map[string]Sighting{}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				s := sight(i, aws.ToString(r.OwnerId), p)
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

func sight(i types.Instance, owner string, p facts.Place) Sighting {
	f, err := fromEC2(i, owner, p.Region)
	if err == nil && f.Account != p.Account {
		err = fmt.Errorf("it belongs to account %s", f.Account)
	}
	if err != nil {
		err = fmt.Errorf("describing instance %s of %s: %w", f.ID, p, err)
	}
	return Sighting{Found: true, Facts: f, Err: err}
}

func nextPage(ctx context.Context, call describeInstances, input *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx, input)
}

// addRoles resolves the IAM role of each live instance from its instance profile: the role is what profiles match
// on, and EC2 tells only the instance profile. Each profile is asked for once, its error included, side by side. What
// is gone needs no role: its removal must not hang on IAM.
func (l *Lookup) addRoles(ctx context.Context, account string, seen map[string]Sighting) {
	type answer struct {
		role role
		err  error
	}
	answers := map[string]*answer{}
	for _, s := range seen {
		if s.needsRole() {
			answers[s.Facts.IAMInstanceProfileARN] = &answer{}
		}
	}
	var g errgroup.Group
	g.SetLimit(places)
	for profile, a := range answers {
		g.Go(func() error {
			a.role, a.err = l.roles.of(ctx, account, profile, time.Time{})
			return nil
		})
	}
	_ = g.Wait() // each answer keeps its own error
	for id, s := range seen {
		if !s.needsRole() {
			continue
		}
		a := answers[s.Facts.IAMInstanceProfileARN]
		s.Facts.IAMRoleARN, s.Facts.RoleObservedAt = a.role.arn, a.role.at
		if a.err != nil {
			s.Err = fmt.Errorf("instance %s: %w", id, a.err)
		}
		seen[id] = s
	}
}

// RoleNow returns the ARN of the role in an instance's instance profile, asked for after the instance was observed; empty
// for an instance without a role.
func (l *Lookup) RoleNow(ctx context.Context, f facts.Instance) (string, error) {
	if f.IAMInstanceProfileARN == "" {
		return "", nil
	}
	found, err := l.roles.of(ctx, f.Account, f.IAMInstanceProfileARN, f.ObservedAt)
	if err != nil {
		return "", fmt.Errorf("instance %s: %w", f.ID, err)
	}
	return found.arn, nil
}

func (s Sighting) needsRole() bool {
	live := s.Facts.State == facts.Pending || s.Facts.State == facts.Running
	return s.Err == nil && live && s.Facts.IAMInstanceProfileARN != ""
}
