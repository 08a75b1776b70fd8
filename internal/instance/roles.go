package instance

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"golang.org/x/sync/singleflight"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/observe"
)

// rolesTTL is how long the role of an instance profile is cached. The next event or reconcile after that time notices that a
// role was swapped inside an instance profile; a first grant never rests on a cached role.
const rolesTTL = 5 * time.Minute

// outageTTL is how long a role that IAM named is used while IAM does not answer. It outlasts an outage of IAM's control plane, and
// hardly any sandbox lives longer.
const outageTTL = 24 * time.Hour

// roles returns and caches the IAM roles of instance profiles.
type roles struct {
	clients *clients
	now     func() time.Time
	log     *slog.Logger

	inFlight singleflight.Group // by instance profile ARN
	mu       sync.Mutex
	cached   map[string]role    // by instance profile ARN
	failed   map[string]failure // likewise, the last call if IAM did not answer it
}

type role struct {
	arn string
	at  time.Time // when IAM was asked
	// unconfirmed reports whether IAM was asked again since and did not answer.
	unconfirmed bool
}

// failure is a call of IAM without an answer.
type failure struct {
	at  time.Time // when IAM was asked
	err error
}

// newRoles makes roles; a nil log discards.
func newRoles(c *clients, log *slog.Logger) *roles {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &roles{clients: c, now: time.Now, log: log, cached: map[string]role{}, failed: map[string]failure{}}
}

// get returns the role in an instance profile; its ARN is empty for an instance profile without a role. It uses a cached
// answer that is younger than rolesTTL and not from before since. An instance profile that IAM does not know is an error and
// not "no role", since the answer decides whether an instance keeps its grant. If IAM does not answer, get returns the role that IAM
// named up to outageTTL before, as unconfirmed.
func (r *roles) get(ctx context.Context, account, profileARN string, since time.Time) (role, error) {
	now := r.now().Round(0)
	r.mu.Lock()
	cached, isKnown := r.cached[profileARN]
	failed, hasFailed := r.failed[profileARN]
	r.mu.Unlock()
	if isKnown && now.Before(cached.at.Add(rolesTTL)) && !cached.at.Before(since) {
		return cached, nil
	}
	err := failed.err
	wasAsked := hasFailed && !since.IsZero() && !failed.at.Before(since) // a batch does not wait again for each of its instances
	if !wasAsked {
		var found role
		if found, err = r.ask(ctx, account, profileARN, since); err == nil {
			return found, nil
		}
	}
	if isKnown && now.Before(cached.at.Add(outageTTL)) && isUnanswered(err) {
		r.log.WarnContext(ctx, "IAM does not answer: a role of an earlier answer is used to make grants, and to change or remove none",
			observe.KeyObject, profileARN, observe.KeyReason, cached.arn+", as IAM answered at "+cached.at.UTC().Format(time.RFC3339), observe.KeyError, err)
		cached.unconfirmed = true
		return cached, nil
	}
	return role{}, err
}

// isUnanswered reports whether AWS was asked and did not answer the question: no response, a 5xx, or throttling.
func isUnanswered(err error) bool { return isTransient(err) && fault.KindOf(err) == fault.Retry }

// ask asks IAM for the role, by a call that began after since.
func (r *roles) ask(ctx context.Context, account, profileARN string, since time.Time) (role, error) {
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
	if err := checkProfileARN(profileARN, account); err != nil {
		return role{}, err
	}
	get, err := r.clients.iam(ctx, account)
	if err != nil {
		return role{}, err
	}
	name := profileARN[strings.LastIndexByte(profileARN, '/')+1:]
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := get(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: aws.String(name)})
	if err != nil {
		err = fmt.Errorf("asking IAM for the role in %s: %w", profileARN, err)
		r.mu.Lock()
		defer r.mu.Unlock()
		if isUnanswered(err) {
			r.failed[profileARN] = failure{at: found.at, err: err}
		} else {
			delete(r.cached, profileARN) // a definite answer, such as NoSuchEntity, ends what was known
		}
		return role{}, err
	}
	for _, r := range answer.InstanceProfile.Roles { // at most one, by IAM's rules
		found.arn = aws.ToString(r.Arn)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.failed, profileARN)
	if found.arn == "" {
		delete(r.cached, profileARN) // not cached: swapping a role leaves the profile empty for a moment
	} else {
		r.cached[profileARN] = found
	}
	return found, nil
}
