package instance

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"golang.org/x/sync/singleflight"
)

// rolesKept is how long the role of an instance profile is taken as known. A role that is swapped inside a profile
// is noticed after this time, by the next event or reconcile; a first grant never rests on a remembered one.
const rolesKept = 5 * time.Minute

// roles finds the IAM role behind an instance profile.
type roles struct {
	clients *clients
	now     func() time.Time

	asked singleflight.Group // by instance profile ARN
	mu    sync.Mutex
	known map[string]role // by instance profile ARN
}

type role struct {
	arn string
	at  time.Time // when IAM was asked
}

func newRoles(c *clients) *roles {
	return &roles{clients: c, now: time.Now, known: map[string]role{}}
}

// of returns the role in an instance profile, without an ARN for a profile without a role. An answer that is kept is good
// if IAM gave it after since, and not too long ago. A profile that IAM does not know is an error and not "no role": the
// answer decides whether an instance keeps its grant.
func (r *roles) of(ctx context.Context, account, profileARN string, since time.Time) (role, error) {
	now := r.now().Round(0)
	r.mu.Lock()
	known, ok := r.known[profileARN]
	r.mu.Unlock()
	if ok && now.Before(known.at.Add(rolesKept)) && !known.at.Before(since) {
		return known, nil
	}
	// The instances of a batch share their instance profiles: one call answers them all, whoever of them gives up.
	answer, err, _ := r.asked.Do(profileARN, func() (any, error) { return r.ask(context.WithoutCancel(ctx), account, profileARN) })
	found, _ := answer.(role)
	if err == nil && found.at.Before(since) { // another's call, begun too early
		return r.ask(ctx, account, profileARN)
	}
	return found, err
}

func (r *roles) ask(ctx context.Context, account, profileARN string) (role, error) {
	found := role{at: r.now().Round(0)} // before the call: what was true then may have changed since
	get, err := r.clients.iam(ctx, account)
	if err != nil {
		return role{}, err
	}
	name := profileARN[strings.LastIndexByte(profileARN, '/')+1:]
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := get(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: aws.String(name)})
	if err != nil {
		return role{}, fmt.Errorf("asking IAM for the role in %s: %w", profileARN, err)
	}
	for _, r := range answer.InstanceProfile.Roles { // at most one, by IAM's rules
		found.arn = aws.ToString(r.Arn)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if found.arn == "" {
		delete(r.known, profileARN) // not kept: a role is swapped by taking one out and putting another in
	} else {
		r.known[profileARN] = found
	}
	return found, nil
}
