package instance

import (
	"context"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// Configs gives the AWS configuration for an account and region: the member role's credentials where it is another's.
type Configs func(ctx context.Context, p facts.Place) (aws.Config, error)

// ByPlace makes and keeps the calls of one client for each account and region: a client has connections of its own. It is
// safe for concurrent use.
type ByPlace[T any] struct {
	configs Configs
	dial    func(aws.Config) T

	mu  sync.Mutex
	all map[facts.Place]T
}

// NewByPlace makes a ByPlace. dial makes a client and gives the calls that are wanted of it; it is called once for a place.
func NewByPlace[T any](configs Configs, dial func(aws.Config) T) *ByPlace[T] {
	return &ByPlace[T]{configs: configs, dial: dial, all: map[facts.Place]T{}}
}

// At gives the calls for a place. Whether the place may be reached is asked each time.
func (b *ByPlace[T]) At(ctx context.Context, p facts.Place) (calls T, err error) {
	config, err := b.configs(ctx, p)
	if err != nil {
		return calls, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, known := b.all[p]; !known {
		b.all[p] = b.dial(config)
	}
	return b.all[p], nil
}
