package instance

import (
	"context"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/internal/facts"
)

// Configs returns the AWS configuration for a place: in accounts other than the function's own, with the member role's
// credentials.
type Configs func(ctx context.Context, p facts.Place) (aws.Config, error)

// ByPlace makes one client for each account and region and keeps its calls, since a client has connections of its own. It is safe
// for concurrent use.
type ByPlace[T any] struct {
	configs Configs
	connect func(aws.Config) T

	mu  sync.Mutex
	all map[facts.Place]T
}

// NewByPlace makes a ByPlace. connect makes a client and returns its calls; it is called once for each place.
func NewByPlace[T any](configs Configs, connect func(aws.Config) T) *ByPlace[T] {
	return &ByPlace[T]{configs: configs, connect: connect, all: map[facts.Place]T{}}
}

// At returns the calls for a place. It calls configs each time, and fails with its error.
func (b *ByPlace[T]) At(ctx context.Context, p facts.Place) (calls T, err error) {
	config, err := b.configs(ctx, p)
	if err != nil {
		return calls, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, found := b.all[p]; !found {
		b.all[p] = b.connect(config)
	}
	return b.all[p], nil
}
