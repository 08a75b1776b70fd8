package instance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// taggedAtOnce is how many instances one call tags; EC2 takes up to 1,000.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateTags.html
const taggedAtOnce = 500

// Tagger tags instances. It is safe for concurrent use.
type Tagger struct {
	calls *ByPlace[createTags]
}

type createTags func(context.Context, *ec2.CreateTagsInput, ...func(*ec2.Options)) (*ec2.CreateTagsOutput, error)

// NewTagger makes a Tagger that goes where l looks, with the same credentials.
func NewTagger(l *Lookup) *Tagger {
	return &Tagger{calls: NewByPlace(l.Config, func(c aws.Config) createTags { return ec2.NewFromConfig(c).CreateTags })}
}

// Tag gives instances of a place the same tag, in place of one they may have by that key. There is an error for each that it
// could not be given to: of kind fault.Retry where EC2 was too busy or did not answer, else of kind fault.Refuse.
func (t *Tagger) Tag(ctx context.Context, p facts.Place, ids []string, key, value string) map[string]error {
	failed := map[string]error{}
	call, err := t.calls.At(ctx, p)
	for few := range slices.Chunk(ids, taggedAtOnce) {
		if err == nil {
			tag(ctx, call, few, types.Tag{Key: &key, Value: &value}, failed)
			continue
		}
		for _, id := range few {
			failed[id] = err
		}
	}
	for id, err := range failed {
		failed[id] = fmt.Errorf("tagging instance %s of %s with %s=%s: %w", id, p, key, value, err)
	}
	return failed
}

// tag tags all or none, as EC2 does: for one instance that is gone, or has its 50 tags, it refuses a whole call. Then the
// halves are tried, so that only that one goes without.
func tag(ctx context.Context, call createTags, ids []string, what types.Tag, failed map[string]error) {
	err := once(ctx, call, ids, what)
	if err == nil {
		return
	}
	if len(ids) > 1 && oneOfThem(err) {
		tag(ctx, call, ids[:len(ids)/2], what, failed)
		tag(ctx, call, ids[len(ids)/2:], what, failed)
		return
	}
	for _, id := range ids {
		failed[id] = err
	}
}

func once(ctx context.Context, call createTags, ids []string, tag types.Tag) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := call(ctx, &ec2.CreateTagsInput{Resources: ids, Tags: []types.Tag{tag}})
	switch {
	case passes(err):
		return err
	case denied(err):
		return fault.Refusef("%w (the role that tags needs ec2:CreateTags for the key %s: deploy the present template, in member accounts too)", err, aws.ToString(tag.Key))
	}
	return fault.New(fault.Refuse, err) // whatever else EC2 has against it, it will have again; and a tag is a hint
}

// passes tells what EC2 has nothing against, or not now: no answer, its own faults, and calls that came too often.
func passes(err error) bool {
	var answer *smithyhttp.ResponseError
	return code(err) == "" || errors.As(err, &answer) && answer.HTTPStatusCode() >= http.StatusInternalServerError ||
		retry.ThrottleErrorCode{Codes: retry.DefaultThrottleErrorCodes}.IsErrorThrottle(err) == aws.TrueTernary
}

func denied(err error) bool { return code(err) == "UnauthorizedOperation" }

// oneOfThem tells that EC2 has something against an instance of a call, and not against the call.
func oneOfThem(err error) bool {
	return code(err) == "TagLimitExceeded" || code(err) == "IncorrectState" || strings.HasPrefix(code(err), "InvalidInstanceID.")
}

func code(err error) string {
	var told smithy.APIError
	if !errors.As(err, &told) {
		return ""
	}
	return told.ErrorCode()
}
