package instance

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

// rolesKept is how long the role of an instance profile is taken as known. A role that is swapped inside a profile
// is noticed after this time, by the next event or reconcile.
const rolesKept = 5 * time.Minute

// roles finds the IAM role behind an instance profile.
type roles struct {
	clients *clients
	now     func() time.Time

	mu    sync.Mutex
	known map[string]role // by instance profile ARN
}

type role struct {
	arn   string
	until time.Time
}

func newRoles(c *clients) *roles {
	return &roles{clients: c, now: time.Now, known: map[string]role{}}
}

// of gives the ARN of the role in an instance profile; empty for a profile without a role. A profile that IAM does
// not know is an error and not "no role": the answer decides whether an instance keeps its grant.
func (r *roles) of(ctx context.Context, account, profileARN string) (string, error) {
	now := r.now().Round(0)
	r.mu.Lock()
	known, ok := r.known[profileARN]
	r.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.arn, nil
	}
	get, err := r.clients.iam(ctx, account)
	if err != nil {
		return "", err
	}
	name := profileARN[strings.LastIndexByte(profileARN, '/')+1:]
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := get(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: aws.String(name)})
	if err != nil {
		return "", fmt.Errorf("asking IAM for the role in %s: %w", profileARN, err)
	}
	found := role{until: now.Add(rolesKept)}
	for _, r := range answer.InstanceProfile.Roles { // at most one, by IAM's rules
		found.arn = aws.ToString(r.Arn)
	}
	if found.arn == "" {
		return "", nil // not kept: a role is swapped by taking one out and putting another in
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[profileARN] = found
	return found.arn, nil
}
