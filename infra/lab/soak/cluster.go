package soak

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/vault-ec2-provisioner/vault-ec2-provisioner/infra/lab/vaultserver"
)

// strike is a way in which nodes of a cluster go down. One node at a time, so that the others elect a leader, or all of them.
type strike struct {
	name string
	do   func(context.Context, *vaultserver.Cluster) error
}

func onLeader(do func(context.Context, *vaultserver.Node) error) func(context.Context, *vaultserver.Cluster) error {
	return func(ctx context.Context, c *vaultserver.Cluster) error {
		leader, err := c.Leader(ctx)
		if err != nil {
			return err
		}
		return do(ctx, leader)
	}
}

func onStandby(do func(*vaultserver.Node) error) func(context.Context, *vaultserver.Cluster) error {
	return func(ctx context.Context, c *vaultserver.Cluster) error {
		standbys, err := c.Standbys(ctx)
		if err != nil {
			return err
		}
		return do(standbys[0])
	}
}

func strikes() []strike {
	return []strike{
		{"Vault's leader killed", onLeader(func(_ context.Context, n *vaultserver.Node) error { return n.Kill() })},
		{"Vault's leader sealed", onLeader(func(ctx context.Context, n *vaultserver.Node) error { return n.Seal(ctx) })},
		{"Vault's leader stepped down", onLeader(func(ctx context.Context, n *vaultserver.Node) error { return n.StepDown(ctx) })},
		{"Vault's leader frozen", onLeader(func(ctx context.Context, n *vaultserver.Node) error { return n.Freeze(ctx, 5*time.Second) })},
		{"a standby of Vault stopped", onStandby((*vaultserver.Node).Stop)},
		{"a standby of Vault killed", onStandby((*vaultserver.Node).Kill)},
		{"all nodes of Vault killed", func(_ context.Context, c *vaultserver.Cluster) error {
			var errs []error
			for _, n := range c.Nodes {
				errs = append(errs, n.Kill())
			}
			return errors.Join(errs...)
		}},
	}
}

const (
	// away bounds the time that a node stays down, beside its own start.
	away = 6 * time.Second
	// whole bounds the time between two strikes with all nodes up.
	whole = 16 * time.Second
)

// striker takes nodes of the cluster away, one strike after the other, and brings them back.
type striker struct {
	cluster *vaultserver.Cluster
	counts  *injector
	rng     *rand.Rand
	errs    []error // of the lab; read after run
}

// run strikes until the context ends, and returns with the cluster whole.
func (s *striker) run(ctx context.Context) {
	all := strikes()
	for n := 0; ctx.Err() == nil; n++ {
		if n%len(all) == 0 {
			s.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
		strike := all[n%len(all)]
		// A strike that has begun ends, also when the soak's time is over.
		acting, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Minute)
		err := strike.do(acting, s.cluster)
		if err == nil {
			s.counts.count(strike.name)
			s.pause(ctx, away)
			err = s.cluster.Restore(acting)
		}
		cancel()
		if err != nil {
			s.errs = append(s.errs, fmt.Errorf("%s: %w", strike.name, err))
			return
		}
		s.pause(ctx, whole)
	}
}

// pause waits for a random time of at most limit.
func (s *striker) pause(ctx context.Context, limit time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(s.rng.Int64N(int64(limit)))):
	}
}
