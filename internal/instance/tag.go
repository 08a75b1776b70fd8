package instance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/fault"
)

// taggedAtOnce is how many instances one call tags; EC2 takes up to 1,000.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateTags.html
const taggedAtOnce = 500

// Tagger tags instances. It is safe for concurrent use. Only what tags holds one: the call is code that the others need not carry.
type Tagger struct {
	config func(context.Context, Place) (aws.Config, error)

	mu    sync.Mutex
	calls map[Place]createTags // a client has connections of its own
}

type createTags func(context.Context, *ec2.CreateTagsInput, ...func(*ec2.Options)) (*ec2.CreateTagsOutput, error)

// NewTagger makes a Tagger that goes where l looks, with the same credentials.
func NewTagger(l *Lookup) *Tagger { return &Tagger{config: l.Config, calls: map[Place]createTags{}} }

// Tag gives all instances of a place the same tag, in place of one they may have by that key. What EC2 will not take from
// this function, or for good, is of kind fault.Refuse; anything else may pass, an instance among them that is gone by now,
// for which EC2 tags none of a call's.
func (t *Tagger) Tag(ctx context.Context, p Place, ids []string, key, value string) error {
	call, err := t.at(ctx, p)
	if err != nil {
		return err
	}
	for few := range slices.Chunk(ids, taggedAtOnce) {
		if err := tag(ctx, call, few, types.Tag{Key: &key, Value: &value}); err != nil {
			return fmt.Errorf("tagging %d instances of %s with %s=%s: %w", len(few), p, key, value, err)
		}
	}
	return nil
}

func (t *Tagger) at(ctx context.Context, p Place) (createTags, error) {
	config, err := t.config(ctx, p)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls[p] == nil {
		t.calls[p] = ec2.NewFromConfig(config).CreateTags
	}
	return t.calls[p], nil
}

func tag(ctx context.Context, call createTags, ids []string, tag types.Tag) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := call(ctx, &ec2.CreateTagsInput{Resources: ids, Tags: []types.Tag{tag}})
	var told smithy.APIError
	if errors.As(err, &told) {
		switch told.ErrorCode() {
		case "UnauthorizedOperation":
			return fault.Refusef("%w (the role that tags needs ec2:CreateTags for the key %s: deploy the present template, in member accounts too)", err, aws.ToString(tag.Key))
		case "InvalidParameterValue", "TagLimitExceeded":
			return fault.New(fault.Refuse, err)
		}
	}
	return err
}
