package instance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// maxTagged is the maximum number of instances in one call; EC2 accepts up to 1,000.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateTags.html
const maxTagged = 500

// Tagger tags instances. It is safe for concurrent use.
type Tagger struct {
	calls *ByPlace[createTags]
}

type createTags func(context.Context, *ec2.CreateTagsInput, ...func(*ec2.Options)) (*ec2.CreateTagsOutput, error)

// NewTagger makes a Tagger for the accounts and regions of l, with the same credentials.
func NewTagger(l *Lookup) *Tagger {
	return &Tagger{calls: NewByPlace(l.Config, func(c aws.Config) createTags { return ec2.NewFromConfig(c).CreateTags })}
}

// Tag sets a tag on instances of a place. It returns an error for each instance without it: of kind fault.Retry if EC2 was
// too busy or did not answer, otherwise of kind fault.Refuse.
func (t *Tagger) Tag(ctx context.Context, p facts.Place, ids []string, key, value string) map[string]error {
	failed := map[string]error{}
	call, err := t.calls.At(ctx, p)
	for batch := range slices.Chunk(ids, maxTagged) {
		if err == nil {
			tag(ctx, call, batch, types.Tag{Key: &key, Value: &value}, failed)
			continue
		}
		for _, id := range batch {
			failed[id] = err
		}
	}
	for id, err := range failed {
		failed[id] = fmt.Errorf("tagging instance %s of %s with %s=%s: %w", id, p.Name(), key, value, err)
	}
	return failed
}

// tag tags instances in one call. EC2 refuses the whole call for one instance that is gone or has 50 tags; tag then tries each
// half, so that only that instance fails.
func tag(ctx context.Context, call createTags, ids []string, t types.Tag, failed map[string]error) {
	err := tagOnce(ctx, call, ids, t)
	if err == nil {
		return
	}
	if len(ids) > 1 && concernsInstance(err) {
		tag(ctx, call, ids[:len(ids)/2], t, failed)
		tag(ctx, call, ids[len(ids)/2:], t, failed)
		return
	}
	for _, id := range ids {
		failed[id] = err
	}
}

func tagOnce(ctx context.Context, call createTags, ids []string, tag types.Tag) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := call(ctx, &ec2.CreateTagsInput{Resources: ids, Tags: []types.Tag{tag}})
	switch {
	case isTransient(err):
		return err
	case isDenied(err):
		return fault.Refusef("%w (the role that tags needs ec2:CreateTags for the key %s: deploy the present template, in member accounts too)", err, aws.ToString(tag.Key))
	}
	return fault.New(fault.Refuse, err) // EC2 would refuse it again, and a tag is only a hint
}

// isTransient reports whether a retry may succeed: no response, a 5xx, or throttling. It is true for nil.
func isTransient(err error) bool {
	var answer *smithyhttp.ResponseError
	noResponse := errorCode(err) == ""
	failedInEC2 := errors.As(err, &answer) && answer.HTTPStatusCode() >= http.StatusInternalServerError
	return noResponse || failedInEC2 || isThrottled(err)
}

func isDenied(err error) bool { return errorCode(err) == "UnauthorizedOperation" }

// concernsInstance reports whether EC2 refused a call because of one of its instances.
func concernsInstance(err error) bool {
	return errorCode(err) == "TagLimitExceeded" || errorCode(err) == "IncorrectState" || strings.HasPrefix(errorCode(err), "InvalidInstanceID.")
}

func errorCode(err error) string {
	var failed smithy.APIError
	if !errors.As(err, &failed) {
		return ""
	}
	return failed.ErrorCode()
}
