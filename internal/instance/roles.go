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

// rolesTTL is how long the role of an instance profile is cached. The next event or reconcile after that time notices that a
// role was swapped inside an instance profile; a first grant never rests on a cached role.
const rolesTTL = 5 * time.Minute

// roles returns and caches the IAM roles of instance profiles.
type roles struct {
	clients *clients
	now     func() time.Time

	inFlight singleflight.Group // by instance profile ARN
	mu       sync.Mutex
	cached   map[string]role // by instance profile ARN
}

type role struct {
	arn string
	at  time.Time // when IAM was asked
}

func newRoles(c *clients) *roles {
	return &roles{clients: c, now: time.Now, cached: map[string]role{}}
}

// get returns the role in an instance profile; its ARN is empty for an instance profile without a role. It uses a cached
// answer that is younger than rolesTTL and not from before since. An instance profile that IAM does not know is an error and
// not "no role", since the answer decides whether an instance keeps its grant.
func (r *roles) get(ctx context.Context, account, profileARN string, since time.Time) (role, error) {
	now := r.now().Round(0)
	r.mu.Lock()
	cached, ok := r.cached[profileARN]
	r.mu.Unlock()
	if ok && now.Before(cached.at.Add(rolesTTL)) && !cached.at.Before(since) {
		return cached, nil
	}
	// One call serves all callers of a batch that share an instance profile, even if one of them gives up.
	answer, err, _ := r.inFlight.Do(profileARN, func() (any, error) { return r.fetch(context.WithoutCancel(ctx), account, profileARN) })
	found, _ := answer.(role)
	if err == nil && found.at.Before(since) { // another caller's call, made too early
		return r.fetch(ctx, account, profileARN)
	}
	return found, err
}

// fetch asks IAM for the role and caches it.
func (r *roles) fetch(ctx context.Context, account, profileARN string) (role, error) {
	found := role{at: r.now().Round(0)} // before the call, since the answer may be older than its arrival
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
		delete(r.cached, profileARN) // not cached: swapping a role leaves the profile empty for a moment
	} else {
		r.cached[profileARN] = found
	}
	return found, nil
}
