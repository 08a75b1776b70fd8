package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

const (
	// profilesKey is the key of the item that says which profiles are active.
	profilesKey = "profiles"
	// bundlePrefix begins the key of an item with a packed bundle of profiles; its digest follows.
	bundlePrefix = "profiles#"
	// uploadTimeout bounds a write of profiles, which comes from a person's own line.
	uploadTimeout = 30 * time.Second
	// keptVersions is the number of versions of the profiles that are remembered.
	keptVersions = 20
)

// ProfileVersion is one version of the profiles that was activated.
type ProfileVersion struct {
	Digest string    `dynamodbav:"digest"`
	At     time.Time `dynamodbav:"activated_at"`
	By     string    `dynamodbav:"activated_by,omitempty"` // the ARN of the caller
}

// ProfileVersions are the versions that were activated, the newest first.
type ProfileVersions struct {
	Versions []ProfileVersion `dynamodbav:"versions"`
}

// Active returns the digest of the active version; empty if there is none.
func (v ProfileVersions) Active() string {
	if len(v.Versions) == 0 {
		return ""
	}
	return v.Versions[0].Digest
}

// bundleItem is a packed bundle of profiles.
type bundleItem struct {
	Packed []byte `dynamodbav:"packed"`
}

// ProfileVersions returns the versions of the profiles that were activated; none if there are none.
func (l *Ledger) ProfileVersions(ctx context.Context) (ProfileVersions, error) {
	var v ProfileVersions
	_, err := l.get(ctx, profilesKey, &v)
	return v, err
}

// Bundle returns the packed bundle of profiles with a digest; nil if there is none. The caller checks that it has that digest.
func (l *Ledger) Bundle(ctx context.Context, digest string) ([]byte, error) {
	var b bundleItem
	_, err := l.get(ctx, bundlePrefix+digest, &b)
	return b.Packed, err
}

// PutBundle writes a packed bundle of profiles under its digest, and activates nothing. No function has the right to do that.
func (l *Ledger) PutBundle(ctx context.Context, digest string, packed []byte) error {
	item, err := marshal(bundlePrefix+digest, bundleItem{Packed: packed})
	if err != nil {
		return err
	}
	return l.putProfiles(ctx, &dynamodb.PutItemInput{TableName: &l.table, Item: item}, bundlePrefix+digest)
}

// Activate makes a version of the profiles the active one. old are the versions as they were read; the error wraps ErrChanged if another
// version was activated since. No function has the right to do that.
func (l *Ledger) Activate(ctx context.Context, old ProfileVersions, next ProfileVersion) error {
	versions := append([]ProfileVersion{next}, old.Versions...)
	item, err := marshal(profilesKey, ProfileVersions{Versions: versions[:min(len(versions), keptVersions)]})
	if err != nil {
		return err
	}
	write := &dynamodb.PutItemInput{TableName: &l.table, Item: item, ConditionExpression: aws.String("attribute_not_exists(versions[0])")}
	if len(old.Versions) > 0 {
		was, err := marshal(profilesKey, old.Versions[0])
		if err != nil {
			return err
		}
		write.ConditionExpression = aws.String("versions[0].digest = :digest AND versions[0].activated_at = :at")
		write.ExpressionAttributeValues = map[string]types.AttributeValue{":digest": was["digest"], ":at": was["activated_at"]}
	}
	if err = l.putProfiles(ctx, write, profilesKey); err == nil {
		return nil
	}
	// The answer of a write that took effect may be lost, and its repetition fails by the condition.
	if now, unread := l.ProfileVersions(ctx); unread == nil && len(now.Versions) > 0 && now.Versions[0].equals(next) {
		return nil
	}
	return err
}

func (v ProfileVersion) equals(o ProfileVersion) bool {
	return v.Digest == o.Digest && v.At.Equal(o.At) && v.By == o.By
}

func (l *Ledger) putProfiles(ctx context.Context, write *dynamodb.PutItemInput, key string) error {
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	_, err := l.api.Put(ctx, write)
	var changed *types.ConditionalCheckFailedException
	if errors.As(err, &changed) {
		err = ErrChanged
	}
	if err != nil {
		return fmt.Errorf("writing %s to table %s: %w", key, l.table, err)
	}
	return nil
}
